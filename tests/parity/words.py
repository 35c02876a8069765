"""Real words to learn from: those of the names of Unicode's characters, in every Python."""

from __future__ import annotations

import functools
import unicodedata

import numpy as np

PAD, BEGIN, END = 0, 1, 2
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
VOCABULARY = 3 + len(LETTERS)
LONGEST = 8


@functools.cache
def words() -> tuple[str, ...]:
    """Words of three to eight letters, in an order that is the same everywhere."""
    names = (unicodedata.name(chr(code), "") for code in range(0x3000))
    found = {word for name in names for word in name.replace("-", " ").split()}
    kept = sorted(w for w in found if w.isascii() and w.isalpha() and 3 <= len(w) <= LONGEST)
    return tuple(kept[i] for i in np.random.default_rng(0).permutation(len(kept)))


def ids_of(word: str) -> list[int]:
    return [3 + LETTERS.index(letter) for letter in word]


def batch(chosen: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Words, and the same words reversed between BEGIN and END, padded."""
    source = np.full((len(chosen), LONGEST), PAD)
    target = np.full((len(chosen), LONGEST + 2), PAD)
    for i, word in enumerate(chosen):
        ids = ids_of(word)
        source[i, : len(ids)] = ids
        target[i, : len(ids) + 2] = [BEGIN, *reversed(ids), END]
    return source, target
