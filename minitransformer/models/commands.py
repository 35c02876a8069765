"""The commands that use a model, from generate to inspect.

Each reads its input from the arguments or from standard input, writes plain text, or with
``--json`` one JSON object per line. Bad input raises ValueError with one clear line, which the
command line prints.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

#: Most bytes that are read from standard input.
MAX_INPUT = 16 << 20


def add_commands(subparsers: Any) -> None:
    """Add the commands of this module.

    Parameters
    ----------
    subparsers : argparse._SubParsersAction
        Where the commands go; each sets ``run``, a function of the parsed arguments that returns
        the exit status.
    """
    generate = _command(subparsers, "generate", run_generate, "continue a text")
    generate.add_argument("prompt", nargs="?", help="the text (standard input if left out)")
    _add_choice(generate, temperature=0.0)
    generate.add_argument("--beams", type=int, default=1, metavar="N", help="beam search")
    generate.add_argument("--length-penalty", type=float, default=1.0, metavar="X")
    generate.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text"
    )

    chat = _command(subparsers, "chat", run_chat, "talk with a chat model, a line at a time")
    chat.add_argument("--system", help="what the model is told first")
    _add_choice(chat, temperature=0.0)

    embed = _command(subparsers, "embed", run_embed, "one vector per text; how alike texts are")
    embed.add_argument("texts", nargs="*", help="texts (lines of standard input if left out)")
    embed.add_argument(
        "--truncate", action="store_true", help="cut texts that are longer than the model reads"
    )

    fill = _command(subparsers, "fill-mask", run_fill_mask, "likely words for a [MASK]")
    fill.add_argument("text", nargs="?", help="a text with [MASK] (standard input if left out)")
    fill.add_argument("--top", type=int, default=5, metavar="N", help="words per mask")

    image = _command(
        subparsers, "classify-image", run_classify_image, "classes or features of images"
    )
    image.add_argument("images", nargs="+", help="image files")
    image.add_argument("--size", type=int, metavar="PIXELS", help="side of the square that is seen")
    image.add_argument("--top", type=int, default=5, metavar="N", help="classes per image")

    speech = _command(subparsers, "transcribe", run_transcribe, "write down speech")
    speech.add_argument("sounds", nargs="+", help="WAV files")

    inspect = subparsers.add_parser(
        "inspect", help="architecture, parameters, memory and FLOPs of a checkpoint"
    )
    checkpoint = inspect.add_mutually_exclusive_group(required=True)
    checkpoint.add_argument("path", nargs="?", help="a file or directory")
    checkpoint.add_argument(
        "--model", metavar="PATH", help="the same, as the other commands say it"
    )
    inspect.add_argument("--arrays", action="store_true", help="list every array")
    inspect.add_argument("--json", action="store_true", help="one JSON object")
    inspect.set_defaults(run=run_inspect)


def _command(subparsers: Any, name: str, run: Any, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(name, help=help)
    parser.add_argument(
        "--model", required=True, metavar="PATH", help="a checkpoint: directory or file"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.set_defaults(run=run)
    return parser


def _add_choice(parser: argparse.ArgumentParser, temperature: float) -> None:
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N")
    parser.add_argument(
        "--temperature",
        type=float,
        default=temperature,
        metavar="X",
        help="0 takes the likeliest token, 1 draws as the model says",
    )
    parser.add_argument("--top-k", type=int, default=0, metavar="N")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, metavar="X")
    parser.add_argument("--seed", type=int, default=0, metavar="N")


def _options(args: argparse.Namespace, end: Iterable[int | None]) -> Any:
    from .generation import GenerationOptions

    if args.seed < 0:
        raise ValueError(f"--seed is {args.seed}; it must be 0 or more")
    return GenerationOptions(
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        repetition_penalty=args.repetition_penalty,
        num_beams=getattr(args, "beams", 1),
        length_penalty=getattr(args, "length_penalty", 1.0),
        eos_token_ids=tuple(sorted({n for n in end if n is not None})),
        seed=args.seed,
    )


def _load(path: str, classes: tuple[str, ...], purpose: str) -> Any:
    from .auto import load_model, model_class
    from .checkpoint import open_checkpoint

    found = model_class(open_checkpoint(path)).__name__
    if found not in classes:
        raise ValueError(f"{path} is a {found}; {purpose} needs {' or '.join(classes)}")
    return load_model(path)


def _load_text(path: str, classes: tuple[str, ...], purpose: str) -> tuple[Any, Any]:
    from .auto import load_tokenizer

    model = _load(path, classes, purpose)
    tokenizer = load_tokenizer(path)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model "
            f"{model.config.vocab_size}; they do not belong together"
        )
    return model, tokenizer


def _read_input() -> str:
    raw = sys.stdin.buffer.read(MAX_INPUT + 1)
    if len(raw) > MAX_INPUT:
        raise ValueError(f"standard input has more than {MAX_INPUT} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8 at byte {error.start}") from None


def _lines() -> Iterator[str]:
    """Lines of standard input as they arrive."""
    total = 0
    while raw := sys.stdin.buffer.readline(MAX_INPUT + 1):
        total += len(raw)
        if total > MAX_INPUT:
            raise ValueError(f"standard input has more than {MAX_INPUT} bytes")
        try:
            yield raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"standard input is not UTF-8 at byte {error.start}") from None


def _write(text: str) -> None:
    """Write text now; in a terminal without the control characters a model may produce."""
    if sys.stdout.isatty():
        text = "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)
    sys.stdout.write(text)
    sys.stdout.flush()


def _write_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def run_generate(args: argparse.Namespace) -> int:
    """Run ``generate``.

    Parameters
    ----------
    args : argparse.Namespace
        The parsed arguments.

    Returns
    -------
    int
        0.

    Raises
    ------
    ValueError
        If the input does not suit the model.
    """
    from .generation import generate, stream_text

    model, tokenizer = _load_text(args.model, ("GPT", "Llama"), "generate")
    prompt = _read_input() if args.prompt in (None, "-") else args.prompt
    options = _options(args, [tokenizer.eos_id])
    if args.beams > 1:
        ids = tokenizer.encode(prompt)
        text = tokenizer.decode(generate(model, [ids], options)[0])
        cuts = [i for i in (text.find(s) for s in args.stop if s) if i >= 0]
        pieces: Iterable[str] = [text[: min(cuts)] if cuts else text]
    else:
        pieces = stream_text(model, tokenizer, prompt, options, stop=args.stop)
    if args.json:
        _write_json({"prompt": prompt, "text": "".join(pieces)})
        return 0
    pieces = iter(pieces)
    first = next(pieces, "")  # bad input shows here, before anything is written
    _write(prompt + first)
    for piece in pieces:
        _write(piece)
    _write("\n")
    return 0


def run_chat(args: argparse.Namespace) -> int:
    """Run ``chat``: every line of standard input is answered.

    Parameters
    ----------
    args : argparse.Namespace
        The parsed arguments.

    Returns
    -------
    int
        0.

    Raises
    ------
    ValueError
        If the model has no chat form, or the conversation outgrows it.
    """
    from .generation import stream_text

    model, tokenizer = _load_text(args.model, ("GPT", "Llama"), "chat")
    messages = [{"role": "system", "content": args.system}] if args.system else []
    tokenizer.chat(messages)  # complains before the first line is read
    ends = [tokenizer.eos_id, tokenizer.token_id("<|im_end|>")]
    talking = sys.stdin.isatty() and not args.json
    if talking:
        _write("> ")
    for line in _lines():
        if line.strip():
            messages.append({"role": "user", "content": line})
            text, reply = tokenizer.chat(messages), ""
            for piece in stream_text(model, tokenizer, text, _options(args, ends)):
                reply += piece
                if not args.json:
                    _write(piece)
            messages.append({"role": "assistant", "content": reply})
            if args.json:
                _write_json({"user": line, "assistant": reply})
            else:
                _write("\n")
        if talking:
            _write("> ")
    return 0


def run_embed(args: argparse.Namespace) -> int:
    """Run ``embed``: the mean of the last states, of length 1.

    Parameters
    ----------
    args : argparse.Namespace
        The parsed arguments.

    Returns
    -------
    int
        0.

    Raises
    ------
    ValueError
        If there is no text, or one is longer than the model reads.
    """
    model, tokenizer = _load_text(args.model, ("Bert",), "embed")
    texts = args.texts or [line for line in _lines() if line.strip()]
    if not texts:
        raise ValueError("no texts to embed; give them as arguments or on standard input")
    if args.truncate:
        tokenizer.backend.enable_truncation(model.positions)
    vectors = embed(model, tokenizer, texts)
    if args.json:
        for text, vector in zip(texts, vectors):
            _write_json({"text": text, "embedding": [float(f"{x:.7g}") for x in vector]})
        return 0
    for number, (text, row) in enumerate(zip(texts, vectors @ vectors.T), 1):
        alike = " ".join(f"{value:7.4f}" for value in row[:16])
        _write(f"{number:3d} {alike}  {text[:60]}\n")
    return 0


def embed(model: Any, tokenizer: Any, texts: list[str], batch_size: int = 32) -> Any:
    """Embed texts: the mean of the encoder's last states over the tokens, scaled to length 1.

    Parameters
    ----------
    model : Bert
        The encoder, in evaluation mode.
    tokenizer : Tokenizer
        Its tokenizer.
    texts : list of str
        The texts.
    batch_size : int
        Texts that are encoded together.

    Returns
    -------
    numpy.ndarray, (len(texts), D) float32
        One row per text.

    Raises
    ------
    ValueError
        If a text is longer than the model reads.
    """
    import numpy as np

    from ..autograd import no_grad
    from ..backend import to_numpy

    rows = []
    for begin in range(0, len(texts), batch_size):
        part = texts[begin : begin + batch_size]
        batch = tokenizer.encode_batch(part, max_length=model.positions)
        with no_grad():
            out = model(batch.ids, batch.attention_mask, batch.token_type_ids)
        states, mask = to_numpy(out.last_hidden_state.array), batch.attention_mask[:, :, None]
        mean = np.where(mask, states, 0).sum(axis=1) / mask.sum(axis=1)  # (B, D)
        length = np.linalg.norm(mean, axis=1, keepdims=True)
        rows.append((mean / np.maximum(length, 1e-12)).astype(np.float32))
    return np.concatenate(rows)


def run_fill_mask(args: argparse.Namespace) -> int:
    """Run ``fill-mask``.

    Parameters
    ----------
    args : argparse.Namespace
        The parsed arguments.

    Returns
    -------
    int
        0.

    Raises
    ------
    ValueError
        If the text has no mask.
    """
    import numpy as np

    from ..autograd import no_grad
    from ..backend import to_numpy

    classes = ("BertForMaskedLM", "BertForPreTraining")
    model, tokenizer = _load_text(args.model, classes, "fill-mask")
    text = _read_input().strip() if args.text in (None, "-") else args.text
    batch = tokenizer.encode_batch([text], max_length=model.positions)
    mask_id = -1 if tokenizer.mask_id is None else tokenizer.mask_id
    places = np.flatnonzero(batch.ids[0] == mask_id)
    if len(places) == 0:
        raise ValueError("the text has no [MASK]; put one where a word is wanted")
    if args.top < 1:
        raise ValueError(f"--top is {args.top}; it must be at least 1")
    with no_grad():
        logits = to_numpy(model(batch.ids, batch.attention_mask).logits.array)[0]
    for place in places:
        scores = logits[place].astype(np.float64)
        probability = np.exp(scores - scores.max())
        probability /= probability.sum()
        best = np.argsort(-probability, kind="stable")[: args.top]
        words = [
            {"token": tokenizer.backend.id_to_token(int(i)), "probability": float(probability[i])}
            for i in best
        ]
        if args.json:
            _write_json({"position": int(place), "words": words})
        else:
            for word in words:
                _write(f"{word['probability']:8.5f}  {word['token']}\n")
    return 0


def run_classify_image(args: argparse.Namespace) -> int:
    """Run ``classify-image``: the classes if the model has a head, its features otherwise.

    Parameters
    ----------
    args : argparse.Namespace
        The parsed arguments.

    Returns
    -------
    int
        0.

    Raises
    ------
    ValueError
        If an image cannot be read.
    """
    import numpy as np

    from ..autograd import no_grad
    from ..backend import to_numpy
    from ..data.image import load_image, prepare

    model = _load(args.model, ("ViT",), "classify-image")
    patch = model.config.patch_size
    size = args.size or max(patch, min(224, model.config.image_size) // patch * patch)
    if size < patch or size % patch or size > 4096:
        raise ValueError(f"--size is {size}; it must be a multiple of {patch}, at most 4096")
    features = []
    for path in args.images:
        pixels = prepare(load_image(path), size)[None]
        with no_grad():
            out = model(pixels)
        vector = to_numpy(out.pooler_output.array)[0]
        features.append(vector / np.linalg.norm(vector))
        if out.logits is not None:
            scores = to_numpy(out.logits.array)[0].astype(np.float64)
            probability = np.exp(scores - scores.max())
            probability /= probability.sum()
            best = np.argsort(-probability, kind="stable")[: max(args.top, 1)]
            found = [{"class": int(i), "probability": float(probability[i])} for i in best]
            if args.json:
                _write_json({"image": path, "classes": found})
            else:
                for item in found:
                    _write(f"{path}: {item['probability']:8.5f}  class {item['class']}\n")
        elif args.json:
            _write_json({"image": path, "features": [float(f"{x:.7g}") for x in vector]})
    if model.config.num_labels == 0 and not args.json:
        alike = np.stack(features) @ np.stack(features).T
        for path, row in zip(args.images, alike):
            shown = " ".join(f"{value:7.4f}" for value in row[:16])
            _write(f"{shown}  {path} ({len(features[0])} features)\n")
    return 0


def run_transcribe(args: argparse.Namespace) -> int:
    """Run ``transcribe``.

    Parameters
    ----------
    args : argparse.Namespace
        The parsed arguments.

    Returns
    -------
    int
        0.

    Raises
    ------
    ValueError
        If a file is no sound.
    """
    from ..data.audio import load_wav
    from .auto import load_tokenizer
    from .checkpoint import read_json
    from .whisper import transcribe

    model = _load(args.model, ("Whisper",), "transcribe")
    tokenizer = load_tokenizer(args.model)
    path = Path(args.model)
    file = (path if path.is_dir() else path.parent) / "config.json"
    settings = read_json(file) if file.is_file() else {}
    for sound in args.sounds:
        samples = load_wav(sound)
        text = " ".join(transcribe(model, tokenizer, samples, settings=settings)).strip()
        if args.json:
            _write_json({"sound": sound, "seconds": round(len(samples) / 16000, 2), "text": text})
        else:
            _write(f"{sound}: {text}\n" if len(args.sounds) > 1 else f"{text}\n")
    return 0


def run_inspect(args: argparse.Namespace) -> int:
    """Run ``inspect``; only the description in the file is read, not the arrays.

    Parameters
    ----------
    args : argparse.Namespace
        The parsed arguments.

    Returns
    -------
    int
        0.

    Raises
    ------
    ValueError
        If the checkpoint is damaged or unknown.
    """
    from .inspection import describe

    report = describe(args.path or args.model, arrays=args.arrays)
    if args.json:
        _write_json(report)
        return 0
    for key, value in report.items():
        if key == "arrays":
            for item in value:
                shape = " x ".join(map(str, item["shape"])) or "scalar"
                _write(f"  {item['name']:60s} {item['stored']:6s} {shape}\n")
        elif isinstance(value, dict):
            _write(f"{key}:\n")
            for name, number in value.items():
                _write(f"  {name.replace('_', ' '):30s} {_shown(number)}\n")
        else:
            _write(f"{key.replace('_', ' '):32s} {_shown(value)}\n")
    return 0


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
