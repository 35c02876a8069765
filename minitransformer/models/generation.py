"""Generating text token by token: greedy, sampling, beam search, streaming.

Everything runs without the tape and, unless asked otherwise, with a key-value cache. A batch may
hold prompts of different lengths; they are padded on the left, and the padding changes nothing.

References
----------
.. [1] Holtzman et al., "The curious case of neural text degeneration", 2020, section 3.1 (top-p).
.. [2] Fan et al., "Hierarchical neural story generation", 2018, section 5.4 (top-k).
.. [3] Keskar et al., "CTRL: a conditional transformer language model for controllable generation",
   2019, section 4.1 (repetition penalty).
.. [4] Wu et al., "Google's neural machine translation system", 2016, section 7 (length penalty).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..autograd import Tensor, no_grad
from ..backend import next_key, single_threaded_blas, to_numpy
from ..data.text import Tokenizer
from .layers import KeyValueCache

Scores = NDArray[Any]


@dataclass(frozen=True)
class GenerationOptions:
    """How the next token is chosen and when to stop.

    Attributes
    ----------
    max_new_tokens : int
        Most tokens that are generated.
    temperature : float
        0 takes the most likely token; otherwise logits are divided by it and one is drawn.
    top_k : int
        Draw among this many most likely tokens only; 0 means all.
    top_p : float
        Draw among the most likely tokens that together have this probability.
    repetition_penalty : float
        Divide positive logits of tokens that were there before by it, multiply negative ones.
    num_beams : int
        Beams of a beam search; 1 means none.
    length_penalty : float
        A finished beam's score is divided by its length to this power.
    early_stopping : bool
        End a beam search as soon as there are as many finished beams as beams.
    eos_token_ids : tuple of int
        Tokens that end a sequence.
    suppress : tuple of int
        Tokens that are never chosen.
    suppress_first : tuple of int
        Tokens that are not chosen first.
    seed : int, optional
        The draws' start; None takes it from `manual_seed`'s sequence.
    use_cache : bool
        Keep keys and values; without, everything is computed anew for every token.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False
    eos_token_ids: tuple[int, ...] = ()
    suppress: tuple[int, ...] = ()
    suppress_first: tuple[int, ...] = ()
    seed: int | None = None
    use_cache: bool = True

    def __post_init__(self) -> None:
        limits = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (0.0 <= self.temperature < float("inf"), "0 or more"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0.0 < self.top_p <= 1.0, "above 0 and at most 1"),
            "repetition_penalty": (0.0 < self.repetition_penalty < float("inf"), "above 0"),
            "num_beams": (self.num_beams >= 1, "at least 1"),
            "length_penalty": (abs(self.length_penalty) < float("inf"), "finite"),
        }
        for name, (fine, rule) in limits.items():
            if not fine:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {rule}")
        if self.num_beams > 1 and self.temperature > 0:
            raise ValueError("beam search does not draw: leave temperature at 0, or num_beams at 1")


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions | None = None,
    *,
    memory: Tensor | None = None,
    memory_mask: Any = None,
) -> list[list[int]]:
    """Continue every prompt.

    Parameters
    ----------
    model : GPT, Llama, Transformer or Whisper
        The model; it is used in evaluation mode and left in the mode it was in.
    prompts : sequence of sequence of int
        Token numbers; the prompts may differ in length. For an encoder-decoder, the decoder's.
    options : GenerationOptions, optional
        How to choose, and when to stop.
    memory : Tensor, (B, S, D), optional
        The encoder's output, for an encoder-decoder.
    memory_mask : array, (B, S), optional
        1 at source tokens, 0 at padding.

    Returns
    -------
    list of list of int
        The new tokens of every prompt, the one that ended it included.

    Raises
    ------
    ValueError
        If a prompt is empty, or together with the new tokens longer than the model can read.

    Examples
    --------
    >>> from minitransformer.models.gpt import GPT, GPTConfig
    >>> model = GPT(GPTConfig(vocab_size=11, n_positions=16, n_embd=8, n_layer=1, n_head=2))
    >>> [len(new) for new in generate(model, [[1, 2, 3], [4]], GenerationOptions(5))]
    [5, 5]
    """
    options = options or GenerationOptions()
    _check(model, prompts, options)
    with _evaluation(model):
        if options.num_beams > 1:
            return [
                _beam_search(
                    model,
                    prompt,
                    options,
                    None if memory is None else Tensor(memory.array[row : row + 1]),
                    None if memory_mask is None else to_numpy(memory_mask)[row : row + 1],
                )
                for row, prompt in enumerate(prompts)
            ]
        results: list[list[int]] = [[] for _ in prompts]
        for tokens, running in _choose(model, prompts, options, memory, memory_mask):
            for row in np.flatnonzero(running):
                results[row].append(int(tokens[row]))
        return results


def stream(
    model: Any,
    prompt: Sequence[int],
    options: GenerationOptions | None = None,
    *,
    memory: Tensor | None = None,
) -> Iterator[int]:
    """Continue one prompt and give out every token as soon as it is chosen.

    Parameters
    ----------
    model : GPT, Llama, Transformer or Whisper
        The model, in evaluation mode.
    prompt : sequence of int
        Token numbers.
    options : GenerationOptions, optional
        How to choose, and when to stop; without beams.
    memory : Tensor, (1, S, D), optional
        The encoder's output, for an encoder-decoder.

    Yields
    ------
    int
        A new token, the one that ends the sequence included.

    Raises
    ------
    ValueError
        As :func:`generate`, or if beams are asked for.
    """
    options = options or GenerationOptions()
    if options.num_beams > 1:
        raise ValueError("beam search knows its tokens only at the end; stream with num_beams 1")
    _check(model, [prompt], options)
    for tokens, _ in _choose(model, [prompt], options, memory, None):
        yield int(tokens[0])


def stream_text(
    model: Any,
    tokenizer: Tokenizer,
    text: str | Sequence[int],
    options: GenerationOptions | None = None,
    *,
    stop: Sequence[str] = (),
) -> Iterator[str]:
    """Continue a text and give out the continuation in pieces.

    Parameters
    ----------
    model : GPT or Llama
        The model, in evaluation mode.
    tokenizer : Tokenizer
        Its tokenizer.
    text : str or sequence of int
        The prompt, or its token numbers.
    options : GenerationOptions, optional
        How to choose; the tokenizer's end token is added where none is named.
    stop : sequence of str
        End before the first of these that appears; it is not given out.

    Yields
    ------
    str
        A piece of the continuation.

    Raises
    ------
    ValueError
        As :func:`generate`, or if a stop sequence is empty.
    """
    options = options or GenerationOptions()
    if any(not sequence for sequence in stop):
        raise ValueError("a stop sequence is empty")
    if not options.eos_token_ids and tokenizer.eos_id is not None:
        from dataclasses import replace

        options = replace(options, eos_token_ids=(tokenizer.eos_id,))
    prompt = tokenizer.encode(text) if isinstance(text, str) else list(text)
    if not prompt:
        start = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
        if start is None:
            raise ValueError("the prompt is empty and the tokenizer has no token to start with")
        prompt = [start]
    held = ""
    for piece in tokenizer.stream(stream(model, prompt, options)):
        held += piece
        found = min((i for i in (held.find(s) for s in stop) if i >= 0), default=None)
        if found is not None:
            if found:
                yield held[:found]
            return
        # keep back what may be the beginning of a stop sequence
        keep = max((_overlap(held, sequence) for sequence in stop), default=0)
        if len(held) > keep:
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    if held:
        yield held


def _overlap(text: str, sequence: str) -> int:
    """Length of the longest end of `text` that begins `sequence`."""
    longest = min(len(text), len(sequence) - 1)
    return next((n for n in range(longest, 0, -1) if sequence.startswith(text[-n:])), 0)


@contextlib.contextmanager
def _evaluation(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _check(model: Any, prompts: Sequence[Sequence[int]], options: GenerationOptions) -> None:
    for row, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise ValueError(f"prompt {row} is empty")
    longest = max((len(prompt) for prompt in prompts), default=0)
    if prompts and longest + options.max_new_tokens > model.positions + 1:
        room = model.positions + 1 - longest
        advice = f"ask for at most {room} new tokens" if room > 0 else "shorten the prompt"
        raise ValueError(
            f"a prompt of {longest} tokens and {options.max_new_tokens} new ones are more than "
            f"the model's {model.positions} positions; {advice}"
        )


class _Reader:
    """Feeds tokens to a model and gives the scores (B, V) of what comes next."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        options: GenerationOptions,
        memory: Tensor | None,
        memory_mask: Any,
    ) -> None:
        self.model, self.memory, self.memory_mask = model, memory, memory_mask
        longest = max(map(len, prompts))
        room = longest + options.max_new_tokens
        self.cache = KeyValueCache(room) if options.use_cache else None
        self.ids = np.zeros((len(prompts), room), dtype=np.int64)
        self.mask = np.ones((len(prompts), room), dtype=np.bool_)
        self.length, self.read = longest, 0
        for row, prompt in enumerate(prompts):
            self.ids[row, longest - len(prompt) : longest] = prompt
            self.mask[row, : longest - len(prompt)] = False
        self.padded = not self.mask.all()

    def scores(self) -> Scores:
        """Read what has not been read and score the next token."""
        start = self.read if self.cache is not None else 0
        ids = self.ids[:, start : self.length]
        mask = self.mask[:, : self.length] if self.padded else None
        self.read = self.length
        # not around a `yield`: the mode would leak into the caller's code
        with no_grad(), single_threaded_blas():  # once, and not around every product
            if self.memory is None:
                out = self.model(ids, mask, cache=self.cache, logits_to_keep=1)
            else:
                out = self.model.decode(
                    ids, self.memory, self.memory_mask, mask, cache=self.cache, logits_to_keep=1
                )
        scores: Scores = to_numpy(out.logits.array)[:, -1].astype(np.float32)
        return scores

    def add(self, tokens: Any) -> None:
        """Append one token to every row."""
        self.ids[:, self.length] = tokens
        self.length += 1

    def select(self, rows: Any) -> None:
        """Continue with these rows."""
        self.ids, self.mask = self.ids[rows], self.mask[rows]
        if self.cache is not None:
            self.cache.select(rows)

    def seen(self, row: int) -> Any:
        """The tokens of a row so far, without padding."""
        return self.ids[row, : self.length][self.mask[row, : self.length]]


def _choose(
    model: Any,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions,
    memory: Tensor | None,
    memory_mask: Any,
) -> Iterator[tuple[Any, Any]]:
    """Yield the next token of every row, and which rows had not ended before it."""
    if not prompts:
        return
    reader = _Reader(model, prompts, options, memory, memory_mask)
    draws = _streams(options, len(prompts))
    running = np.ones(len(prompts), dtype=np.bool_)
    for step in range(options.max_new_tokens):
        scores = reader.scores()
        _process(scores, reader, options, first=step == 0)
        if options.temperature == 0:
            tokens = scores.argmax(axis=1)
        else:
            chosen = [_draw(row, options, draw) for row, draw in zip(scores, draws)]
            tokens = np.array(chosen, dtype=np.int64)
        yield tokens, running.copy()
        running &= ~np.isin(tokens, options.eos_token_ids)
        if not running.any():
            return
        reader.add(tokens)


def _streams(options: GenerationOptions, rows: int) -> list[np.random.Generator]:
    """One generator of random numbers per row, so that a row does not depend on its batch."""
    if options.temperature == 0:
        return []
    seed = options.seed
    if seed is None:
        key = next_key()
        return [np.random.default_rng([*_numbers(key), row]) for row in range(rows)]
    return [np.random.default_rng([seed, row]) for row in range(rows)]


def _numbers(key: Any) -> list[int]:
    return [int(number) & 0xFFFFFFFFFFFFFFFF for number in key]


def _process(scores: Scores, reader: _Reader, options: GenerationOptions, first: bool) -> None:
    """Apply the repetition penalty and suppression, in place."""
    if options.repetition_penalty != 1.0:
        for row, values in enumerate(scores):
            seen = np.unique(reader.seen(row))
            old = values[seen]
            penalty = np.float32(options.repetition_penalty)
            values[seen] = np.where(old < 0, old * penalty, old / penalty)
    if options.suppress:
        scores[:, list(options.suppress)] = -np.inf
    if first and options.suppress_first:
        scores[:, list(options.suppress_first)] = -np.inf


def keep_likely(scores: Scores, top_k: int, top_p: float) -> Scores:
    """Set the scores of unlikely tokens to minus infinity.

    Parameters
    ----------
    scores : numpy.ndarray, (V,) float
        Logits.
    top_k : int
        Keep this many, and what ties with the last of them; 0 keeps all.
    top_p : float
        Of those, keep the fewest that have this probability, at least one.

    Returns
    -------
    numpy.ndarray, (V,) float
        The logits, the unlikely ones minus infinity.

    Examples
    --------
    >>> keep_likely(np.log(np.array([0.5, 0.3, 0.2])), 0, 0.6)
    array([-0.69314718, -1.2039728 ,        -inf])
    """
    scores = scores.copy()
    if 0 < top_k < len(scores):
        scores[scores < np.partition(scores, -top_k)[-top_k]] = -np.inf
    if top_p < 1.0:
        order = np.argsort(scores, kind="stable")  # least likely first
        tail = np.cumsum(_softmax(scores[order])) <= 1.0 - top_p
        tail[-1] = False
        scores[order[tail]] = -np.inf
    return scores


def _softmax(scores: Scores) -> Scores:
    weights = np.exp(scores.astype(np.float64) - scores.max())
    total: Scores = weights / weights.sum()
    return total


def _draw(scores: Scores, options: GenerationOptions, random: np.random.Generator) -> int:
    scaled = scores / np.float32(options.temperature)
    cumulated = np.cumsum(_softmax(keep_likely(scaled, options.top_k, options.top_p)))
    chosen = np.searchsorted(cumulated, random.random() * cumulated[-1], side="right")
    return int(min(chosen, len(scores) - 1))


def _beam_search(
    model: Any,
    prompt: Sequence[int],
    options: GenerationOptions,
    memory: Tensor | None,
    memory_mask: Any,
) -> list[int]:
    """The best of the finished beams.

    A step looks at twice as many continuations as there are beams (more with several end tokens),
    so that as many unfinished ones as beams remain. A finished one counts only if it is among the
    best `num_beams` of them. The search ends when the best running beam, at its present length,
    cannot beat the worst finished one.
    """
    beams = options.num_beams
    if memory is not None:
        memory = Tensor(memory.array.repeat(beams, axis=0))
        if memory_mask is not None:
            memory_mask = to_numpy(memory_mask).repeat(beams, axis=0)
    reader = _Reader(model, [prompt] * beams, options, memory, memory_mask)
    running = np.full(beams, -1e9)
    running[0] = 0.0  # all beams are the same at first: continue only one of them
    sequences: list[list[int]] = [[] for _ in range(beams)]
    finished: list[tuple[float, list[int]]] = []
    looked_at = max(2, 1 + len(options.eos_token_ids)) * beams
    for step in range(options.max_new_tokens):
        scores = _log_softmax(reader.scores())
        _process(scores, reader, options, first=step == 0)
        total = (scores.astype(np.float64) + running[:, None]).reshape(-1)
        vocabulary = scores.shape[1]
        best = _largest(total, min(looked_at, total.size))
        beam, token = best // vocabulary, best % vocabulary
        last = step + 1 == options.max_new_tokens
        ended = np.isin(token, options.eos_token_ids) | last
        length = float(step + 1) ** options.length_penalty
        for rank in np.flatnonzero(ended[:beams]):
            sequence = [*sequences[beam[rank]], int(token[rank])]
            finished.append((float(total[best[rank]]) / length, sequence))
        finished = sorted(finished, key=lambda item: -item[0])[:beams]
        if last or (options.early_stopping and len(finished) == beams):
            break
        open_ones = np.flatnonzero(~ended)[:beams]
        rows, tokens = beam[open_ones], token[open_ones]
        running = total[best[open_ones]]
        if len(finished) == beams and running[0] / length <= finished[-1][0]:
            break
        sequences = [[*sequences[row], int(new)] for row, new in zip(rows, tokens)]
        reader.select(rows)
        reader.add(tokens)
    return finished[0][1]


def _largest(values: Scores, count: int) -> Any:
    """Indices of the largest values, the largest first."""
    some = np.argpartition(values, -count)[-count:]
    return some[np.lexsort((some, -values[some]))]


def _log_softmax(scores: Scores) -> Scores:
    shifted = scores - scores.max(axis=1, keepdims=True)
    out: Scores = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return out
