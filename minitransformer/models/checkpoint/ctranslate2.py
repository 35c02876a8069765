"""The binary format of CTranslate2 (``model.bin``): a list of named arrays and of aliases.

References
----------
.. [1] OpenNMT/CTranslate2, ``python/ctranslate2/specs/model_spec.py``, ``_serialize``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .entry import (
    Array,
    Checkpoint,
    CheckpointError,
    Cursor,
    Entry,
    bfloat16,
    element_count,
    plain,
)

# type number: (name, bytes per element, decoder)
_TYPES: dict[int, tuple[str, int, Callable[[bytes, tuple[int, ...]], Array]]] = {
    0: ("float32", 4, plain("<f4")),
    1: ("int8", 1, plain("<i1")),
    2: ("int16", 2, plain("<i2")),
    3: ("int32", 4, plain("<i4")),
    4: ("float16", 2, plain("<f2")),
    5: ("bfloat16", 2, bfloat16),
}
_VERSIONS = (5, 6)


def _string(cursor: Cursor, what: str) -> str:
    text = cursor.text(cursor.unsigned(2, what), what)
    if not text.endswith("\0") or "\0" in text[:-1]:
        raise CheckpointError(f"{cursor.path}: {what} is not terminated")
    return text[:-1]


def read_ctranslate2(path: str | Path) -> Checkpoint:
    """Open a CTranslate2 ``model.bin``.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    Checkpoint
        Its arrays; `metadata` has ``specification`` (for example ``"WhisperSpec"``), ``revision``
        and ``aliases``, a map of second names.

    Raises
    ------
    CheckpointError
        If the file is damaged or of another version.
    """
    path = Path(path)
    entries: dict[str, Entry] = {}
    with open(path, "rb") as file:
        cursor = Cursor(file, path)
        version = cursor.unsigned(4, "the version")
        if version not in _VERSIONS:
            raise CheckpointError(
                f"{path}: CTranslate2 format {version}; formats {_VERSIONS} are read"
            )
        specification = _string(cursor, "the specification's name")
        revision = cursor.unsigned(4, "the revision")
        count = cursor.unsigned(4, "the number of arrays")
        for _ in range(count):
            name = _string(cursor, "the name of an array")
            rank = cursor.unsigned(1, f"the rank of {name!r}")
            shape = tuple(cursor.unsigned(4, f"the shape of {name!r}") for _ in range(rank))
            kind = cursor.unsigned(1, f"the type of {name!r}")
            nbytes = cursor.unsigned(4, f"the size of {name!r}")
            if kind not in _TYPES:
                known = ", ".join(t[0] for t in _TYPES.values())
                raise CheckpointError(f"{path}: {name!r} has the type {kind}; read are {known}")
            stored, width, decode = _TYPES[kind]
            if name in entries or element_count(shape, path, name) * width != nbytes:
                raise CheckpointError(
                    f"{path}: {name!r} appears twice, or its {nbytes} bytes are not "
                    f"{shape} of {stored}"
                )
            entries[name] = Entry(name, shape, stored, path, cursor.position, nbytes, decode)
            cursor.skip(nbytes, f"the data of {name!r}")
        aliases: dict[str, str] = {}
        for _ in range(cursor.unsigned(4, "the number of aliases")):
            alias, name = _string(cursor, "an alias"), _string(cursor, "an alias")
            if alias in entries or alias in aliases or name not in entries:
                raise CheckpointError(f"{path}: the alias {alias!r} of {name!r} is not valid")
            aliases[alias] = name
        if cursor.remaining:
            raise CheckpointError(f"{path}: {cursor.remaining} bytes are left after the last array")
    metadata = {"specification": specification, "revision": revision, "aliases": aliases}
    return Checkpoint(path, "ctranslate2", entries, metadata)
