"""Text to token numbers and back, through the `tokenizers` library (extra ``text``).

The library does the work; this module loads the files that checkpoints come with, trains new
vocabularies, pads batches, and turns token numbers into text as they arrive.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Longest tokenizer file that is read.
MAX_FILE = 64 << 20

_ROLES = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")
# What the roles are called in the vocabularies that this module meets, tried in this order.
_USUAL = {
    "bos": ("<s>", "<|endoftext|>"),
    "eos": ("</s>", "<|endoftext|>", "[SEP]"),
    "pad": ("[PAD]", "<pad>", "<|endoftext|>", "</s>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
}


@dataclass(frozen=True)
class Batch:
    """Token numbers of several texts, padded to the longest.

    Attributes
    ----------
    ids : numpy.ndarray, (B, L) int64
        Token numbers; the padding number where the mask is False.
    attention_mask : numpy.ndarray, (B, L) bool
        True where there is a token.
    token_type_ids : numpy.ndarray, (B, L) int64
        0 for the first text of a pair, 1 for the second.
    """

    ids: NDArray[np.int64]
    attention_mask: NDArray[np.bool_]
    token_type_ids: NDArray[np.int64]


class Tokenizer:
    """A vocabulary with the rules that cut text into its pieces.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        The library's tokenizer. Its own padding and truncation are switched off.
    special : mapping of str to str, optional
        Tokens by role: ``bos``, ``eos``, ``pad``, ``unk``, ``cls``, ``sep``, ``mask``. Roles that
        are not given are looked up under their usual names.
    chat : str, optional
        The name of the chat form the model was trained on; only ``"chatml"`` is known.

    Examples
    --------
    >>> words = Tokenizer.train(["the cat sat", "the mat"], kind="wordpiece", vocab_size=60)
    >>> words.decode(words.encode("the cat"))
    'the cat'
    """

    def __init__(
        self, backend: Any, special: Mapping[str, str] | None = None, chat: str | None = None
    ) -> None:
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self.chat_form = chat
        given = dict(special or {})
        unknown = set(given) - set(_ROLES)
        if unknown:
            raise ValueError(f"unknown roles {sorted(unknown)}; known are {', '.join(_ROLES)}")
        for role, token in given.items():
            if backend.token_to_id(token) is None:
                raise ValueError(f"the {role} token {token!r} is not in the vocabulary")
        ids: dict[str, int | None] = {}
        for role in _ROLES:
            names = (given[role],) if role in given else _USUAL[role]
            found = (backend.token_to_id(name) for name in names)
            ids[role] = next((number for number in found if number is not None), None)
        self.bos_id, self.eos_id, self.pad_id = ids["bos"], ids["eos"], ids["pad"]
        self.unk_id, self.cls_id, self.sep_id = ids["unk"], ids["cls"], ids["sep"]
        self.mask_id = ids["mask"]

    # -- loading ------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Load a tokenizer file, or the one in a directory.

        Parameters
        ----------
        path : str or pathlib.Path
            ``tokenizer.json`` (any model), ``vocab.txt`` (WordPiece), ``vocab.json`` with
            ``merges.txt`` or ``encoder.json`` with ``vocab.bpe`` (byte-level BPE),
            ``unigram.json`` (Unigram), or a directory with one of them.

        Returns
        -------
        Tokenizer
            The tokenizer.

        Raises
        ------
        ValueError
            If there is no such file, or it is not a tokenizer.
        """
        path = Path(path)
        if path.is_dir():
            names = ("tokenizer.json", "vocab.txt", "vocab.json", "encoder.json", "unigram.json")
            found = [path / name for name in names if (path / name).is_file()]
            if not found:
                raise ValueError(f"{path}: none of {', '.join(names)} is here")
            path = found[0]
        if not path.is_file():
            raise ValueError(f"{path}: no such tokenizer file")
        if path.suffix == ".txt":
            return cls._word_piece(path)
        if path.name in ("vocab.json", "encoder.json"):
            return cls._byte_level(path)
        content = _read_json(path)
        if path.name == "unigram.json" or (isinstance(content, dict) and "model" not in content):
            return cls._unigram(path, content)
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            raise ValueError(f"{path}: not a tokenizer file, it describes no model")
        backend = _guarded(str(path), _library().Tokenizer.from_str, json.dumps(content))
        special, chat = _configuration(path.parent, backend)
        return cls(backend, special, chat)

    @classmethod
    def _word_piece(cls, path: Path) -> Tokenizer:
        tokens = _read_text(path).split("\n")
        if tokens and tokens[-1] == "":
            tokens.pop()
        vocabulary = {token.rstrip("\r"): number for number, token in enumerate(tokens)}
        if len(vocabulary) != len(tokens):
            raise ValueError(f"{path}: a token is listed twice")
        for token in ("[UNK]", "[CLS]", "[SEP]"):
            if token not in vocabulary:
                raise ValueError(f"{path}: not a WordPiece vocabulary, {token} is not in it")
        file = path.parent / "tokenizer_config.json"
        settings = _read_json(file) if file.is_file() else {}
        lowercase = settings.get("do_lower_case", True) is not False
        return cls(_word_piece_backend(vocabulary, lowercase))

    @classmethod
    def _byte_level(cls, path: Path) -> Tokenizer:
        library = _library()
        beside = path.parent / ("merges.txt" if path.name == "vocab.json" else "vocab.bpe")
        vocabulary = _read_json(path)
        if not isinstance(vocabulary, dict) or not all(type(v) is int for v in vocabulary.values()):
            raise ValueError(f"{path}: not a map from tokens to numbers")
        if not beside.is_file():
            raise ValueError(f"{beside}: no such file; {path.name} needs its merges")
        lines = _read_text(beside).split("\n")
        pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
        backend = _byte_level_backend(vocabulary, _pairs(pairs, beside), str(path))
        if backend.token_to_id("<|endoftext|>") is not None:
            backend.add_special_tokens([library.AddedToken("<|endoftext|>", special=True)])
        return cls(backend)

    @classmethod
    def _unigram(cls, path: Path, content: Any) -> Tokenizer:
        library = _library()
        pieces: Any = content.get("vocab") if isinstance(content, dict) else content
        unknown = content.get("unk_id", 0) if isinstance(content, dict) else 0
        valid = isinstance(pieces, list) and all(
            isinstance(p, list) and len(p) == 2 and isinstance(p[0], str) for p in pieces
        )
        if not valid:
            raise ValueError(f"{path}: not a Unigram vocabulary, a list of [piece, score]")
        model = _guarded(
            str(path), library.models.Unigram, [(p, float(s)) for p, s in pieces], unknown, False
        )
        backend = library.Tokenizer(model)
        backend.pre_tokenizer = library.pre_tokenizers.Metaspace()
        backend.decoder = library.decoders.Metaspace()
        return cls(backend)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """Build the tokenizer that a GGUF file carries in its metadata.

        Parameters
        ----------
        metadata : mapping
            The metadata of the file. Byte-level BPE (``tokenizer.ggml.model`` of ``"gpt2"``) is
            read, with the cutting rules ``gpt-2`` and ``smollm``.

        Returns
        -------
        Tokenizer
            The tokenizer.

        Raises
        ------
        ValueError
            If the metadata has no tokenizer, or one of another kind.
        """
        library = _library()
        kind, cut = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
        if kind != "gpt2" or cut not in ("gpt-2", "smollm", None):
            raise ValueError(
                f"the file's tokenizer is {kind!r} with {cut!r} cutting; byte-level BPE (gpt2) "
                "with gpt-2 or smollm cutting is read"
            )
        tokens = metadata.get("tokenizer.ggml.tokens")
        merges = metadata.get("tokenizer.ggml.merges")
        for name, words in (("tokens", tokens), ("merges", merges)):
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise ValueError(f"tokenizer.ggml.{name} is not a list of strings")
        assert isinstance(tokens, list) and isinstance(merges, list)
        vocabulary = {token: number for number, token in enumerate(tokens)}
        if len(vocabulary) != len(tokens):
            raise ValueError("tokenizer.ggml.tokens lists a token twice")
        pairs = _pairs([merge.split(" ") for merge in merges], "tokenizer.ggml.merges")
        backend = _byte_level_backend(vocabulary, pairs, "tokenizer.ggml", cut == "smollm")
        kinds = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
        added = [
            library.AddedToken(token, special=kind == 3, normalized=False)
            for token, kind in zip(tokens, kinds)
            if kind in (3, 4)  # control and user-defined tokens are never cut
        ]
        backend.add_tokens(added)
        special = {}
        for role, word in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
            number = metadata.get(f"tokenizer.ggml.{word}_token_id")
            if type(number) is int and 0 <= number < len(tokens):
                special[role] = tokens[number]
        template = metadata.get("tokenizer.chat_template")
        return cls(backend, special, _chat_form(template))

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        kind: str = "bpe",
        vocab_size: int = 8000,
        special_tokens: Sequence[str] | None = None,
        lowercase: bool = False,
    ) -> Tokenizer:
        """Learn a vocabulary.

        Parameters
        ----------
        texts : iterable of str
            What to learn from.
        kind : {"bpe", "wordpiece", "unigram"}
            Byte-level BPE (GPT-2), WordPiece (BERT) or Unigram (SentencePiece).
        vocab_size : int
            At most this many tokens.
        special_tokens : sequence of str, optional
            Tokens with the first numbers; by default those the kind usually has.
        lowercase : bool
            For WordPiece: fold case and strip accents.

        Returns
        -------
        Tokenizer
            The tokenizer.

        Raises
        ------
        ValueError
            If `kind` is unknown or `vocab_size` leaves no room.
        """
        library = _library()
        usual: dict[str, list[str]] = {
            "bpe": ["<|endoftext|>"],
            "wordpiece": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
            "unigram": ["<unk>", "<s>", "</s>", "<pad>"],
        }
        if kind not in usual:
            raise ValueError(f"kind is {kind!r}; known are {', '.join(usual)}")
        special = list(usual[kind] if special_tokens is None else special_tokens)
        if vocab_size <= len(special):
            raise ValueError(f"vocab_size {vocab_size} leaves no room beside {len(special)} tokens")
        options = {"vocab_size": vocab_size, "special_tokens": special, "show_progress": False}
        if kind == "bpe":
            backend = _byte_level_backend({}, [], "train")
            alphabet = library.pre_tokenizers.ByteLevel.alphabet()
            trainer = library.trainers.BpeTrainer(initial_alphabet=alphabet, **options)
        elif kind == "wordpiece":
            backend = _cutting_words(library.models.WordPiece(unk_token="[UNK]"), lowercase)
            trainer = library.trainers.WordPieceTrainer(**options)
        else:
            backend = library.Tokenizer(library.models.Unigram())
            backend.normalizer = library.normalizers.NFKC()
            backend.pre_tokenizer = library.pre_tokenizers.Metaspace()
            backend.decoder = library.decoders.Metaspace()
            trainer = library.trainers.UnigramTrainer(unk_token=special[0], **options)
        backend.train_from_iterator(texts, trainer)
        if kind == "wordpiece" and {"[UNK]", "[CLS]", "[SEP]"} <= set(special):
            backend = _word_piece_backend(backend.get_vocab(), lowercase)
        return cls(backend)

    # -- use ----------------------------------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        """Number of tokens, the added ones included."""
        return int(self.backend.get_vocab_size())

    def token_id(self, token: str) -> int:
        """The number of a token.

        Parameters
        ----------
        token : str
            A token of the vocabulary.

        Returns
        -------
        int
            Its number.

        Raises
        ------
        ValueError
            If it is not in the vocabulary.
        """
        number = self.backend.token_to_id(token)
        if number is None:
            raise ValueError(f"{token!r} is not in the vocabulary of {self.vocab_size} tokens")
        return int(number)

    def encode(
        self, text: str, pair: str | None = None, *, add_special_tokens: bool = True
    ) -> list[int]:
        """Token numbers of a text, or of a pair of texts.

        Parameters
        ----------
        text, pair : str
            The text, and the second one of a pair.
        add_special_tokens : bool
            Frame the text as the model expects it (``[CLS] ... [SEP]``).

        Returns
        -------
        list of int
            Token numbers.

        Raises
        ------
        ValueError
            If the text has no UTF-8 form (a lone surrogate).
        """
        return list(self._encode(text, pair, add_special_tokens).ids)

    def _encode(self, text: str, pair: str | None, add_special_tokens: bool) -> Any:
        for part in (text, pair):
            if part is None:
                continue
            try:
                part.encode("utf-8")
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"the text has no UTF-8 form at character {error.start}: "
                    f"{part[error.start]!r} is half of a surrogate pair"
                ) from None
        return self.backend.encode(text, pair, add_special_tokens=add_special_tokens)

    def encode_batch(
        self,
        texts: Sequence[str | tuple[str, str]],
        *,
        add_special_tokens: bool = True,
        padding_side: str = "right",
        max_length: int | None = None,
    ) -> Batch:
        """Token numbers of several texts, padded to the longest.

        Parameters
        ----------
        texts : sequence of str or of pairs of str
            The texts.
        add_special_tokens : bool
            Frame each text as the model expects it.
        padding_side : {"right", "left"}
            Where the padding goes; generation wants it on the left.
        max_length : int, optional
            Most tokens a text may have.

        Returns
        -------
        Batch
            Numbers, mask and token types, each (B, L).

        Raises
        ------
        ValueError
            If there is no text, one is longer than `max_length`, or `padding_side` is unknown.
        """
        if padding_side not in ("right", "left"):
            raise ValueError(f"padding_side is {padding_side!r}, not 'right' or 'left'")
        if not texts:
            raise ValueError("no texts to encode")
        pairs = [(text, None) if isinstance(text, str) else text for text in texts]
        codes = [self._encode(first, second, add_special_tokens) for first, second in pairs]
        longest = max(len(code.ids) for code in codes)
        if max_length is not None and longest > max_length:
            which = next(i for i, code in enumerate(codes) if len(code.ids) > max_length)
            raise ValueError(
                f"text {which} has {len(codes[which].ids)} tokens, the model reads up to "
                f"{max_length}; shorten or split it"
            )
        shape = (len(codes), longest)
        ids = np.full(shape, self.pad_id or 0, dtype=np.int64)
        mask, types = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.int64)
        for row, code in enumerate(codes):
            length = len(code.ids)
            span = slice(0, length) if padding_side == "right" else slice(longest - length, longest)
            ids[row, span], mask[row, span], types[row, span] = code.ids, True, code.type_ids
        return Batch(ids, mask, types)

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Text of token numbers.

        Parameters
        ----------
        ids : iterable of int
            Token numbers.
        skip_special_tokens : bool
            Leave out ``[CLS]``, ``<|im_end|>`` and the like.

        Returns
        -------
        str
            The text; bytes that are no UTF-8 become U+FFFD.

        Raises
        ------
        ValueError
            If a number is negative.
        """
        numbers = [int(number) for number in ids]
        if numbers and min(numbers) < 0:
            raise ValueError(f"{min(numbers)} is no token number")
        return str(self.backend.decode(numbers, skip_special_tokens=skip_special_tokens))

    def stream(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> Iterator[str]:
        """Text of token numbers as they arrive.

        A character whose bytes are spread over several tokens is held back until it is whole. The
        pieces joined are what :meth:`decode` gives for all numbers together.

        Parameters
        ----------
        ids : iterable of int
            Token numbers.
        skip_special_tokens : bool
            Leave out special tokens.

        Yields
        ------
        str
            A piece of text, never empty.
        """
        # Decoding from the start each time would be quadratic. A piece depends on the tokens
        # before it only through a leading space, so the last finished piece is context enough.
        context: list[int] = []
        pending: list[int] = []
        for number in ids:
            pending.append(int(number))
            before = self.decode(context, skip_special_tokens=skip_special_tokens)
            after = self.decode(context + pending, skip_special_tokens=skip_special_tokens)
            if len(after) > len(before) and not after.endswith("\ufffd"):
                yield after[len(before) :]
                context, pending = context[-4:] + pending, []
                context = context[-16:]
        before = self.decode(context, skip_special_tokens=skip_special_tokens)
        rest = self.decode(context + pending, skip_special_tokens=skip_special_tokens)
        if len(rest) > len(before):
            yield rest[len(before) :]

    def chat(self, messages: Sequence[Mapping[str, str]], *, reply: bool = True) -> str:
        """The text a chat model reads for a conversation.

        Parameters
        ----------
        messages : sequence of mapping
            ``{"role": "system" | "user" | "assistant", "content": str}`` each.
        reply : bool
            Open the assistant's turn at the end.

        Returns
        -------
        str
            The conversation in the model's form.

        Raises
        ------
        ValueError
            If the model has no known chat form or a role is unknown.
        """
        if self.chat_form != "chatml":
            raise ValueError("this model has no chat form that is known here; use `generate`")
        text = ""
        for message in messages:
            role = message["role"]
            if role not in ("system", "user", "assistant"):
                raise ValueError(f"the role {role!r} is not system, user or assistant")
            text += f"<|im_start|>{role}\n{message['content']}<|im_end|>\n"
        return text + ("<|im_start|>assistant\n" if reply else "")

    def to_json(self) -> str:
        """The content of a ``tokenizer.json``.

        Returns
        -------
        str
            What :meth:`load` reads.
        """
        return str(self.backend.to_str(pretty=True))


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise ImportError(
            "texts need the `tokenizers` package: pip install minitransformer[text]"
        ) from None
    # Threads inside a forked worker make the library warn; this package does its own threading.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return tokenizers


def _guarded(what: str, build: Any, *arguments: Any) -> Any:
    """Call the library; turn what it raises on bad input, Rust panics included, into ValueError."""
    try:
        return build(*arguments)
    except Exception as error:
        raise ValueError(f"{what}: not a valid tokenizer ({str(error)[:160]})") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{what}: not a valid tokenizer ({str(error)[:160]})") from None


def _read_text(path: Path) -> str:
    size = os.path.getsize(path)
    if size > MAX_FILE:
        raise ValueError(f"{path}: {size} bytes, at most {MAX_FILE} are read")
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}") from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None


def _pairs(words: list[list[str]], what: object) -> list[tuple[str, str]]:
    for pair in words:
        if len(pair) != 2:
            raise ValueError(f"{what}: a merge joins two tokens, found {' '.join(pair)[:80]!r}")
    return [(left, right) for left, right in words]


def _byte_level_backend(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], what: str, digits: bool = False
) -> Any:
    """GPT-2's tokenizer; with `digits`, each digit is a token of its own (SmolLM)."""
    library = _library()
    model = _guarded(what, lambda: library.models.BPE(vocab=vocabulary, merges=merges))
    backend = library.Tokenizer(model)
    byte_level = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    steps = [library.pre_tokenizers.Digits(individual_digits=True), byte_level]
    backend.pre_tokenizer = library.pre_tokenizers.Sequence(steps) if digits else byte_level
    backend.decoder = library.decoders.ByteLevel()
    return backend


def _cutting_words(model: Any, lowercase: bool) -> Any:
    library = _library()
    backend = library.Tokenizer(model)
    backend.normalizer = library.normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    backend.decoder = library.decoders.WordPiece()
    return backend


def _word_piece_backend(vocabulary: dict[str, int], lowercase: bool) -> Any:
    """BERT's tokenizer: ``[CLS] text [SEP]`` or ``[CLS] text [SEP] pair [SEP]``."""
    library = _library()
    model = library.models.WordPiece(vocab=vocabulary, unk_token="[UNK]")
    backend = _cutting_words(model, lowercase)
    special = [t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in vocabulary]
    backend.add_special_tokens([library.AddedToken(t, special=True) for t in special])
    backend.post_processor = library.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(t, vocabulary[t]) for t in ("[CLS]", "[SEP]")],
    )
    return backend


def _chat_form(template: Any) -> str | None:
    return "chatml" if isinstance(template, str) and "<|im_start|>" in template else None


def _configuration(directory: Path, backend: Any) -> tuple[dict[str, str], str | None]:
    """Special tokens and chat form from ``tokenizer_config.json``, as far as they are given."""
    file = directory / "tokenizer_config.json"
    settings = _read_json(file) if file.is_file() else {}
    if not isinstance(settings, dict):
        return {}, None
    special = {}
    for role in _ROLES:
        token = settings.get(f"{role}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and backend.token_to_id(token) is not None:
            special[role] = token
    return special, _chat_form(settings.get("chat_template"))
