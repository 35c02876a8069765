"""Weights in and out of a model: which entry of a checkpoint each parameter is, and a report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from .. import nn
from .._version import __version__
from ..autograd import Tensor
from ..backend import to_numpy
from .checkpoint import Checkpoint, CheckpointError, open_checkpoint, read_json
from .checkpoint import save_directory as write_directory

Model = TypeVar("Model", bound="PretrainedModel")

_LAYERS = ("_layers", "n_layer")


@dataclass(frozen=True)
class Take:
    """Where a parameter comes from, and the steps from there, in the order of the attributes.

    Attributes
    ----------
    name : str
        The entry of the checkpoint.
    before : str, optional
        Another entry, put before it along the second axis.
    axes : tuple of int, optional
        Transpose to this order of axes.
    shape : tuple of int, optional
        View in this shape.
    part, parts : int
        Use only this one of so many equal groups of rows (a fused projection).
    rotary_heads : int
        Rows of this many heads have the rotated pairs side by side (GGUF); put them into halves.
    """

    name: str
    before: str | None = None
    axes: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    part: int = 0
    parts: int = 1
    rotary_heads: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The entries that are read."""
        return (self.name,) if self.before is None else (self.before, self.name)

    def apply(self, *arrays: Any) -> Any:
        """Take the steps with the arrays of :attr:`names`.

        Raises
        ------
        ValueError
            If their shapes do not allow a step.
        """
        array = arrays[0] if self.before is None else np.concatenate(arrays, axis=1)
        if self.axes is not None:
            array = array.transpose(self.axes)
        if self.shape is not None:
            array = array.reshape(self.shape)
        if self.parts > 1:
            array = np.split(array, self.parts)[self.part]
        if self.rotary_heads:
            pairs = array.reshape(self.rotary_heads, -1, 2, *array.shape[1:])
            array = pairs.swapaxes(1, 2).reshape(array.shape)
        return array

    def result_shape(self, *stored: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape after all steps, or None where they do not fit; nothing is read."""
        shape = stored[-1]
        if self.before is not None:
            first = stored[0]
            if len(first) < 2 or (first[0], *first[2:]) != (shape[0], *shape[2:]):
                return None
            shape = (first[0], first[1] + shape[1], *first[2:])
        if self.axes is not None:
            if sorted(self.axes) != list(range(len(shape))):
                return None
            shape = tuple(shape[axis] for axis in self.axes)
        if self.shape is not None:
            if math.prod(self.shape) != math.prod(shape):
                return None
            shape = self.shape
        groups = self.parts * (2 * self.rotary_heads or 1)
        if groups > 1 and (not shape or shape[0] % groups):
            return None
        return (shape[0] // self.parts, *shape[1:]) if self.parts > 1 else shape


@dataclass
class LoadReport:
    """How a checkpoint and a model fit.

    Attributes
    ----------
    missing : list of str
        Parameters of the model that the checkpoint lacks.
    unexpected : list of str
        Entries of the checkpoint that the model has no place for.
    misshapen : list of (str, tuple, tuple)
        Parameter, its shape, and the checkpoint's.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        def some(names: list[str]) -> str:
            return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")

        parts = []
        if self.missing:
            parts.append(f"missing {len(self.missing)}: {some(self.missing)}")
        if self.unexpected:
            parts.append(f"unexpected {len(self.unexpected)}: {some(self.unexpected)}")
        if self.misshapen:
            shown = [f"{n} is {tuple(ours)}, found {tuple(f)}" for n, ours, f in self.misshapen]
            parts.append(f"misshapen {len(self.misshapen)}: {some(shown)}")
        return "; ".join(parts) or "every parameter has its entry"


class PretrainedModel(nn.Module):
    """A model that is loaded from checkpoints and saved to them.

    A subclass names its configuration class and, in :meth:`sources`, where its parameters are in
    the checkpoints of other libraries.
    """

    config_class: ClassVar[type]
    #: Entries that hold nothing trained, such as tables of positions.
    ignored: ClassVar[tuple[str, ...]] = ()

    config: Any

    @classmethod
    def read_config(cls, checkpoint: Checkpoint) -> Any:
        """The configuration that belongs to a checkpoint of another library.

        Parameters
        ----------
        checkpoint : Checkpoint
            The open checkpoint.

        Returns
        -------
        object
            An instance of `config_class`.
        """
        return cls.config_class.from_dict(read_json(_directory(checkpoint) / "config.json"))  # type: ignore[attr-defined]

    def sources(self, checkpoint: Checkpoint) -> Mapping[str, Take]:
        """Where each parameter is in a checkpoint; by default under its own name.

        Parameters
        ----------
        checkpoint : Checkpoint
            The open checkpoint.

        Returns
        -------
        mapping of str to Take
            One for every parameter that can be there.
        """
        return {name: Take(name) for name in self._saved_tensors()}

    @classmethod
    def from_pretrained(
        cls: type[Model], path: str | Path, *, dtype: Any = "float32", strict: bool = True
    ) -> Model:
        """Load a model.

        Parameters
        ----------
        path : str or pathlib.Path
            A directory with ``config.json`` and weights, or a file that holds both (GGUF).
        dtype : dtype or str
            What the parameters become.
        strict : bool
            Refuse a checkpoint that lacks a parameter or has an entry too many. Otherwise
            parameters that are missing keep their random start (a new head), and `load_report`
            says which.

        Returns
        -------
        Model
            In evaluation mode.

        Raises
        ------
        CheckpointError
            If the checkpoint is damaged or does not fit; the message lists the missing,
            unexpected and misshapen keys. Nothing is loaded in part.
        """
        checkpoint = open_checkpoint(path)
        config, own = cls._configuration(checkpoint)
        model = cls._unfilled(config, checkpoint)
        report = model.load_checkpoint(checkpoint, dtype=dtype, strict=strict, own=own)
        if report.missing:
            start = cls(config)._saved_tensors()
            for name in report.missing:
                model._saved_tensors()[name].array = start[name].array.astype(np.dtype(dtype))
        model.load_report = report
        model.eval()
        return model

    @classmethod
    def _unfilled(cls: type[Model], config: Any, checkpoint: Checkpoint) -> Model:
        """The model before its weights are read: none is drawn, so no memory is touched."""
        layers = [getattr(config, f.name) for f in fields(config) if f.name.endswith(_LAYERS)]
        if sum(layers) > len(checkpoint):
            raise CheckpointError(
                f"{checkpoint.path}: {sum(layers)} layers, but only {len(checkpoint)} arrays"
            )
        try:
            with nn.init.skip_random():
                return cls(config)
        except (MemoryError, OverflowError, ValueError) as error:
            raise CheckpointError(
                f"{checkpoint.path}: a model of this configuration cannot be made ({error})"
            ) from None

    @classmethod
    def _configuration(cls, checkpoint: Checkpoint) -> tuple[Any, bool]:
        """The configuration, and whether this library wrote the checkpoint."""
        file = _directory(checkpoint) / "config.json"
        if file.is_file():
            content = read_json(file)
            if "minitransformer" in content:
                if content.get("class") != cls.__name__:
                    raise CheckpointError(
                        f"{checkpoint.path}: saved from {content.get('class')}, not {cls.__name__}"
                    )
                return build_config(cls.config_class, content.get("config"), str(file)), True
        try:
            config = cls.read_config(checkpoint)
            check_kinds(config)
            return config, False
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise CheckpointError(
                f"{checkpoint.path}: no configuration of a {cls.__name__} ({reason})"
            ) from None

    def load_checkpoint(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: Any = "float32",
        strict: bool = True,
        own: bool = False,
    ) -> LoadReport:
        """Fill the parameters from an open checkpoint.

        Parameters
        ----------
        checkpoint : Checkpoint
            The open checkpoint.
        dtype : dtype or str
            What the parameters become.
        strict : bool
            See :meth:`from_pretrained`.
        own : bool
            The entries have this model's own names.

        Returns
        -------
        LoadReport
            What did not fit.

        Raises
        ------
        CheckpointError
            If a shape differs, or, if `strict`, anything is missing or unexpected. Every name and
            shape is compared before the first array is read.
        """
        wanted = self._saved_tensors()
        takes = {name: Take(name) for name in wanted} if own else self.sources(checkpoint)
        report = LoadReport()
        used: set[str] = set()
        for name, tensor in wanted.items():
            take = takes.get(name)
            if take is None or any(source not in checkpoint.entries for source in take.names):
                report.missing.append(name)
                continue
            used.update(take.names)
            stored = [checkpoint.entries[source].shape for source in take.names]
            if take.result_shape(*stored) != tuple(tensor.shape):
                report.misshapen.append((name, tuple(tensor.shape), stored[-1]))
        report.unexpected = [
            name
            for name in checkpoint
            if name not in used and not any(re.fullmatch(p, name) for p in self.ignored)
        ]
        if report.misshapen or (strict and report):
            raise CheckpointError(f"{checkpoint.path} does not fit {type(self).__name__}: {report}")
        target, arrays = np.dtype(dtype), {}
        for name, tensor in wanted.items():
            if name in report.missing:
                arrays[name] = tensor.array
                continue
            array = takes[name].apply(*(checkpoint[source] for source in takes[name].names))
            if array.dtype.kind != "f":
                raise CheckpointError(
                    f"{checkpoint.path}: {takes[name].name!r} is {array.dtype}, not floating"
                )
            # a contiguous array of our own: what is read may be a read-only view
            arrays[name] = np.array(array, dtype=target, order="C")
        for name, tensor in wanted.items():
            tensor.array = arrays[name]
        return report

    def _saved_tensors(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers; shared ones once, under their first name."""
        saved: dict[str, Tensor] = {}
        seen: set[int] = set()
        for name, tensor in self._state_tensors():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                saved[name] = tensor
        return saved

    def save_pretrained(self, path: str | Path, texts: Mapping[str, str] | None = None) -> None:
        """Save configuration and weights as a new directory; see the notes of `save_directory`.

        Parameters
        ----------
        path : str or pathlib.Path
            The directory to make; it must not exist.
        texts : mapping of str to str, optional
            Further files by name, for example ``tokenizer.json``.

        Raises
        ------
        FileExistsError
            If `path` exists.
        """
        arrays = {name: to_numpy(t.array) for name, t in self._saved_tensors().items()}
        config = {
            "minitransformer": __version__,
            "class": type(self).__name__,
            "config": asdict(self.config),
        }
        write_directory(path, arrays, config, texts)

    def num_parameters(self) -> int:
        """How many numbers are trained; shared ones count once.

        Returns
        -------
        int
            The number of elements of all parameters.
        """
        return sum(math.prod(p.shape) for p in self.parameters())


def _directory(checkpoint: Checkpoint) -> Path:
    return checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent


def build_config(config_class: type, content: Any, where: str) -> Any:
    """A configuration from JSON, its field names and kinds checked."""
    if not isinstance(content, dict):
        raise CheckpointError(f"{where}: the configuration is not an object")
    known = {f.name for f in fields(config_class)}
    unknown = sorted(set(content) - known)
    if unknown:
        raise CheckpointError(f"{where}: unknown settings {', '.join(unknown)}")
    content = {n: tuple(v) if isinstance(v, list) else v for n, v in content.items()}
    try:
        config = config_class(**content)
        check_kinds(config)
        return config
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{where}: {error}") from None


_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "int | None": (int, type(None)),
    "float | None": (int, float, type(None)),
}


def check_kinds(config: Any) -> None:
    """Refuse settings that are not of the kind their field says, and numbers that are not finite.

    Raises
    ------
    ValueError
        If one is.
    """
    for item in fields(config):
        value, kinds = getattr(config, item.name), _KINDS[str(item.type)]
        fine = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        if not fine or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{item.name} is {value!r}, not {item.type}")


def positive(**sizes: Any) -> None:
    """Refuse sizes that are not positive whole numbers or are absurdly large."""
    for name, size in sizes.items():
        if type(size) is not int or not 0 < size <= 1 << 26:
            raise ValueError(f"{name} is {size!r}; it must be a positive whole number")


def normal_start(model: nn.Module, std: float, skip: Iterable[str] = ()) -> None:
    """Weights of two or more axes from a normal distribution, biases zero; norms keep theirs."""
    left = tuple(skip)
    for name, parameter in model.named_parameters():
        if name.endswith(left) and left:
            continue
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=std)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
