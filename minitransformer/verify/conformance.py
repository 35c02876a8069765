"""A kit of checks that any attention function has to pass, for use in a test suite.

>>> import numpy as np
>>> def attend(Q, K, V):
...     S = Q @ np.swapaxes(K, -1, -2) / np.sqrt(Q.shape[-1])
...     P = np.exp(S - S.max(-1, keepdims=True))
...     return P / P.sum(-1, keepdims=True) @ V
>>> assert_conforms(attend, "attention").passed
('value', 'rows sum to one', 'keys permute', 'linear in V', 'large scores', 'repeats', 'cached')

The function is called in this process with NumPy, CuPy or torch arrays of two,
three and four dimensions, whichever it takes. A check that needs a mask is skipped
for a function that takes none.
"""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MASKS = ("attn_mask", "attention_mask", "mask")
CAUSAL = ("is_causal", "causal")
MEANINGS = ("attend", "block", "add")
L, S, E, EV = 5, 7, 3, 4  # all different, so that no two axes can be confused
LEADING = {2: (), 3: (2,), 4: (2, 3)}
SKIPPED = "the function takes no mask"


class NotConforming(AssertionError):
    """The checks that an attention function failed."""


@dataclass(frozen=True)
class Check:
    """One check: ``None`` for ``ok`` where it does not apply."""

    name: str
    ok: bool | None
    message: str = ""


@dataclass(frozen=True, repr=False)
class Conformance:
    """The outcome of all checks of one function."""

    function: str
    arrays: str
    ranks: tuple[int, ...]
    checks: tuple[Check, ...] = field(default=())

    @property
    def passed(self) -> tuple[str, ...]:
        """Names of the checks that passed."""
        return tuple(c.name for c in self.checks if c.ok)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(c.name for c in self.checks if c.ok is False)

    def __repr__(self) -> str:
        ranks = " and ".join(f"{r}-d" for r in self.ranks)
        head = f"{self.function} on {ranks} {self.arrays} arrays"
        signs = {True: "✓", False: "✗", None: "-"}
        lines = [f"  {signs[c.ok]} {c.name:<18}{c.message}".rstrip() for c in self.checks]
        return "\n".join([head, *lines])


def assert_conforms(
    function: Callable[..., Any],
    card: str = "attention",
    *,
    mask_means: str = "attend",
    skip: tuple[str, ...] = (),
    seed: int = 0,
) -> Conformance:
    """Check an attention function; raise `NotConforming` where it fails.

    Parameters
    ----------
    function : callable
        ``function(Q, K, V)``, perhaps with a mask (``attn_mask``, ``attention_mask``
        or ``mask``) and a flag ``is_causal`` or ``causal``, on NumPy, CuPy or torch
        arrays ``(..., length, size)``. Of several results the first is taken.
    card : str, default "attention"
        The card to conform to.
    mask_means : {"attend", "block", "add"}, default "attend"
        Whether True in a mask lets a query see a key, forbids it, or the mask is a
        float that is added to the scores.
    skip : tuple of str
        Names of checks to leave out. PyTorch's own attention needs
        ``skip=("masked NaN",)``: it multiplies masked values by zero.
    seed : int, default 0
        Seed of the inputs.

    Returns
    -------
    Conformance
        The checks, with a readable ``repr``.

    Raises
    ------
    NotConforming
        With a line per failed check, and the known mistake that the failure resembles.
    ValueError
        If there is no kit for the card, or an argument is unknown.
    """
    if card != "attention":
        raise ValueError(f"no conformance kit for {card!r}; there is one for 'attention'")
    if mask_means not in MEANINGS:
        raise ValueError(f"mask_means is {mask_means!r}; it must be one of {MEANINGS}")
    unknown = set(skip) - set(CHECKS)
    if unknown:
        raise ValueError(f"skip names {sorted(unknown)}; checks are {list(CHECKS)}")
    subject = _Subject(function, mask_means, seed)
    checks = []
    for name, check in CHECKS.items():
        if name not in skip:
            checks.append(_at_every_rank(name, check, subject))
    result = Conformance(subject.name, subject.arrays, subject.ranks, tuple(checks))
    if result.failed:
        raise NotConforming(f"does not conform to {card!r}: {result!r}")
    return result


def reference(Q: Array, K: Array, V: Array, allowed: Array | None = None) -> Array:
    """Return softmax(QKᵀ/√E)V in float64; rows that may see nothing give zeros."""
    scores = Q @ np.swapaxes(K, -1, -2) / np.sqrt(Q.shape[-1])
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    top = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    total = weights.sum(-1, keepdims=True)
    out: Array = np.divide(weights, total, where=total > 0, out=np.zeros_like(weights)) @ V
    return out


class _Subject:
    """The function, called with NumPy arrays whatever it takes."""

    def __init__(self, function: Callable[..., Any], mask_means: str, seed: int) -> None:
        self.function, self.mask_means = function, mask_means
        self.name = getattr(function, "__name__", type(function).__name__)
        self.random = np.random.default_rng(seed)
        self.arrays, self.ranks = self._find_kind()
        self.mask = self._find_option(MASKS, self.as_mask(np.ones((L, S), dtype=bool)))
        self.causal = self._find_option(CAUSAL, True)

    def draw(self, rank: int, *, length: int = L, size: int = E) -> tuple[Array, Array, Array]:
        lead, draw = LEADING[rank], self.random.normal
        return (
            draw(size=(*lead, length, size)),
            draw(size=(*lead, S, size)),
            draw(size=(*lead, S, EV)),
        )

    def __call__(self, *inputs: Array, allowed: Array | None = None, causal: bool = False) -> Array:
        options: dict[str, Any] = {}
        if causal and self.causal:
            options[self.causal] = True
        elif causal:
            allowed = np.tril(np.ones((inputs[0].shape[-2], inputs[1].shape[-2]), dtype=bool))
        if allowed is not None:
            options[str(self.mask)] = self.as_mask(allowed)
        return self._call(inputs, options, self.arrays)

    def as_mask(self, allowed: Array) -> Array:
        if self.mask_means == "attend":
            return allowed
        return ~allowed if self.mask_means == "block" else np.where(allowed, 0.0, -np.inf)

    def can_mask(self) -> bool:
        return self.mask is not None

    def can_hide_the_future(self) -> bool:
        return self.causal is not None or self.mask is not None

    def tensors(self, *inputs: Array) -> list[Any]:
        """Return leaves of the tape for a function on torch or our own tensors."""
        return [self._convert(x, self.arrays).requires_grad_(True) for x in inputs]

    def _find_kind(self) -> tuple[str, tuple[int, ...]]:
        """Find the arrays and the numbers of dimensions that the function takes."""
        home = str(getattr(self.function, "__module__", "") or "")
        names = getattr(self.function, "__globals__", {}).values()
        loaded = [n for n in ("torch", "cupy", "minitransformer") if n in sys.modules]
        first = [
            n
            for n in loaded
            if home.split(".")[0] == n
            or any(getattr(v, "__name__", "").split(".")[0] == n for v in names if v is not None)
        ]
        kinds = [n for n in first if n != "minitransformer"] + ["numpy", *loaded]
        errors: list[Exception] = []
        for kind in dict.fromkeys(kinds):
            ranks = []
            for rank in LEADING:
                inputs = self.draw(rank)
                try:
                    out = self._call(inputs, {}, kind)
                except NotConforming:
                    raise
                except Exception as error:
                    errors.append(error)
                    continue
                if out.shape == (*LEADING[rank], L, EV):
                    ranks.append(rank)
                else:
                    errors.append(
                        ValueError(
                            f"result has shape {out.shape} for Q {inputs[0].shape}, "
                            f"K {inputs[1].shape}, V {inputs[2].shape}; "
                            f"expected {(*LEADING[rank], L, EV)}"
                        )
                    )
            if ranks:
                return kind, tuple(ranks)
        raise NotConforming(
            f"{self.name} takes no Q (..., {L}, {E}), K (..., {S}, {E}), V (..., {S}, {EV}); "
            f"with two dimensions it says {type(errors[0]).__name__}: "
            + " ".join(str(errors[0]).split())[:200]
        )

    def _find_option(self, candidates: tuple[str, ...], value: Any) -> str | None:
        try:
            parameters = inspect.signature(self.function).parameters
        except (TypeError, ValueError):
            parameters = None
        for candidate in candidates:
            if parameters is not None and candidate not in parameters:
                continue
            try:
                self._call(self.draw(self.ranks[0]), {candidate: value}, self.arrays)
            except (TypeError, AttributeError):
                if parameters is None:
                    continue
            except Exception:
                # It has the option; how it behaves is for the checks to say.
                return candidate
            return candidate
        return None

    def _call(self, inputs: tuple[Array, ...], options: dict[str, Any], kind: str) -> Array:
        given = [self._convert(x, kind) for x in inputs]
        chosen = {
            k: self._convert(v, kind) if isinstance(v, np.ndarray) else v
            for k, v in options.items()
        }
        with np.errstate(all="ignore"):
            result = self.function(*given, **chosen)
        if isinstance(result, (tuple, list)):
            result = result[0]
        if kind == "cupy":
            result = result.get()
        elif hasattr(result, "detach"):
            result = result.detach()
            result = result.cpu() if hasattr(result, "cpu") else result
            result = result.numpy()
        if not isinstance(result, (np.ndarray, np.generic)):
            raise TypeError(f"returned {type(result).__name__}, not an array")
        for before, after in zip(inputs, given, strict=True):
            now = after.get() if kind == "cupy" else after
            now = now.detach().numpy() if hasattr(now, "detach") else now
            if not np.array_equal(before, now, equal_nan=True):
                raise NotConforming(f"{self.name} writes to its inputs")
        return np.asarray(result)

    def _convert(self, x: Array, kind: str) -> Any:
        if kind == "numpy":
            return x.copy()
        if kind == "torch":
            return sys.modules["torch"].from_numpy(x.copy())
        if kind == "cupy":
            return sys.modules["cupy"].asarray(x)
        return sys.modules["minitransformer"].tensor(x.copy())


CheckFunction = Callable[[_Subject, int], str | None]


class _Skip(Exception):
    """The check does not apply, and why."""


def _at_every_rank(name: str, check: CheckFunction, subject: _Subject) -> Check:
    for rank in subject.ranks:
        try:
            problem = check(subject, rank)
        except _Skip as reason:
            return Check(name, None, str(reason))
        except NotConforming as error:
            problem = str(error)
        except Exception as error:
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if problem:
            where = f" ({rank}-d arrays)" if len(subject.ranks) > 1 else ""
            return Check(name, False, problem + where)
    return Check(name, True)


def _off(got: Array, wanted: Array) -> float | None:
    """Return by how much two arrays differ, None for no more than rounding."""
    if got.shape != wanted.shape:
        return float("inf")
    kind = got.dtype if got.dtype.kind == "f" else np.dtype(np.float64)
    scale = max(1.0, float(np.max(np.abs(wanted), initial=0.0)))
    worst = float(np.max(np.abs(got.astype(np.float64) - wanted), initial=0.0))
    bound = 256 * float(np.finfo(kind).eps) * scale
    return None if worst <= bound else worst  # NaN compares false and is returned


def _value(subject: _Subject, rank: int) -> str | None:
    # Two sizes, or a constant that happens to be √E would pass.
    for size in (E, 8):
        Q, K, V = subject.draw(rank, size=size)
        off = _off(subject(Q, K, V), reference(Q, K, V))
        if off is not None:
            like = resembles(subject, rank)
            return f"differs from softmax(QKᵀ/√E)V by {off:.3g} at E = {size}{like}"
    return None


def _rows(subject: _Subject, rank: int) -> str | None:
    Q, K, V = subject.draw(rank)
    out = subject(Q, K, np.ones_like(V))
    if _off(out, np.ones_like(out, dtype=np.float64)) is None:
        return None
    return f"the weights of a query sum to {out.min():.4g} ... {out.max():.4g}" + resembles(
        subject, rank
    )


def _permutes(subject: _Subject, rank: int) -> str | None:
    Q, K, V = subject.draw(rank)
    order = subject.random.permutation(S)
    off = _off(subject(Q, K[..., order, :], V[..., order, :]), subject(Q, K, V))
    return None if off is None else f"reordering keys with their values changes it by {off:.3g}"


def _linear(subject: _Subject, rank: int) -> str | None:
    Q, K, V = subject.draw(rank)
    W = subject.random.normal(size=V.shape)
    off = _off(subject(Q, K, 2 * V - 3 * W), 2 * subject(Q, K, V) - 3 * subject(Q, K, W))
    return None if off is None else f"f(2V − 3W) differs from 2f(V) − 3f(W) by {off:.3g}"


def _large(subject: _Subject, rank: int) -> str | None:
    Q, K, V = subject.draw(rank)
    out = subject(100 * Q, 100 * K, V)
    if np.isfinite(out).all():
        return None
    return (
        "scores of a few thousand overflow; subtract each row's maximum before exp "
        f"(float16 overflows at 11.09, float32 at 88.7){_seen('naive softmax')}"
    )


def _repeats(subject: _Subject, rank: int) -> str | None:
    Q, K, V = subject.draw(rank)
    first, second = subject(Q, K, V), subject(Q, K, V)
    return None if first.tobytes() == second.tobytes() else "two calls give different results"


def _mask_sense(subject: _Subject, rank: int) -> str | None:
    if not subject.can_mask():
        raise _Skip(SKIPPED)
    Q, K, V = subject.draw(rank)
    allowed = subject.random.random((L, S)) < 0.6
    allowed[np.arange(L), np.arange(L)] = True
    allowed[np.arange(L), np.arange(L) + 1] = False
    out = subject(Q, K, V, allowed=allowed)
    if _off(out, reference(Q, K, V, allowed)) is None:
        return None
    if _off(out, reference(Q, K, V, ~allowed)) is None:
        other = "block" if subject.mask_means == "attend" else "attend"
        return (
            f"the mask has the opposite sense{_seen('inverted mask')}; if that is documented, "
            f"say mask_means={other!r}"
        )
    if _off(out, reference(Q, K, V)) is None:
        return "the mask has no effect"
    zeroed = _weights(subject, Q, K) * allowed
    if _off(out, zeroed @ V) is None:
        return (
            f"weights are masked after the softmax, rows no longer sum to one{_seen('late mask')}"
        )
    return "the masked result differs from the reference"


def _no_look_ahead(subject: _Subject, rank: int) -> str | None:
    if not subject.can_hide_the_future():
        raise _Skip(SKIPPED)
    Q, K, V = subject.draw(rank, length=S)
    before = subject(Q, K, V, causal=True)
    for t in range(S - 1):
        K2, V2 = K.copy(), V.copy()
        K2[..., t + 1 :, :] += 1
        V2[..., t + 1 :, :] -= 1
        after = subject(Q, K2, V2, causal=True)
        if _off(after[..., : t + 1, :], before[..., : t + 1, :]) is not None:
            return f"changing keys after position {t} changes the outputs up to it"
    return None


def _zero_gradient(subject: _Subject, rank: int) -> str | None:
    if subject.arrays not in ("torch", "minitransformer"):
        raise _Skip("needs a function on torch tensors")
    if not subject.can_hide_the_future():
        raise _Skip(SKIPPED)
    inputs = subject.draw(rank, length=S)
    for t in range(S - 1):
        Q, K, V = subject.tensors(*inputs)
        options: dict[str, Any] = {}
        if subject.causal:
            options[subject.causal] = True
        else:
            past = np.tril(np.ones((S, S), dtype=bool))
            options[str(subject.mask)] = subject._convert(subject.as_mask(past), subject.arrays)
        out = subject.function(Q, K, V, **options)
        out = out[0] if isinstance(out, (tuple, list)) else out
        out[..., t, :].sum().backward()
        for name, leaf in (("K", K), ("V", V)):
            gradient = np.asarray(leaf.grad)[..., t + 1 :, :]
            if np.any(gradient != 0):
                worst = float(np.max(np.abs(gradient)))
                return f"output {t} has gradient {worst:.3g} to later rows of {name}"
    return None


def _no_leak(subject: _Subject, rank: int) -> str | None:
    if not subject.can_mask():
        raise _Skip(SKIPPED)
    Q, K, V = subject.draw(rank)
    allowed = np.ones((L, S), dtype=bool)
    allowed[:, -2:] = False
    clean = subject(Q, K, V, allowed=allowed)
    for name, poisoned in (("K", K.copy()), ("V", V.copy())):
        poisoned[..., -2:, :] = np.nan
        given = (Q, poisoned, V) if name == "K" else (Q, K, poisoned)
        off = _off(subject(*given, allowed=allowed), clean)
        if off is not None:
            return f"a NaN in a masked row of {name} reaches the output{_seen('0 times NaN')}"
    return None


def _fully_masked(subject: _Subject, rank: int) -> str | None:
    if not subject.can_mask():
        raise _Skip(SKIPPED)
    Q, K, V = subject.draw(rank)
    allowed = np.ones((L, S), dtype=bool)
    allowed[1] = False
    out = subject(Q, K, V, allowed=allowed)
    if np.isfinite(out).all():
        return None
    return (
        f"a query that may see no key gives {out[..., 1, :].ravel()[0]}{_seen('-inf minus -inf')}"
    )


def _cached(subject: _Subject, rank: int) -> str | None:
    Q, K, V = subject.draw(rank, length=S)
    full = subject(Q, K, V, causal=True) if subject.can_hide_the_future() else None
    for t in range(S):
        seen = K[..., : t + 1, :], V[..., : t + 1, :]
        step = subject(Q[..., t : t + 1, :], *seen)
        wanted = full if full is not None else subject(Q, *seen)
        off = _off(step, wanted[..., t : t + 1, :].astype(np.float64))
        if off is not None:
            return f"query {t} alone on the keys so far differs by {off:.3g} from the full pass"
    return None


CHECKS: dict[str, CheckFunction] = {
    "value": _value,
    "rows sum to one": _rows,
    "keys permute": _permutes,
    "linear in V": _linear,
    "large scores": _large,
    "repeats": _repeats,
    "mask": _mask_sense,
    "no look-ahead": _no_look_ahead,
    "zero gradient": _zero_gradient,
    "masked NaN": _no_leak,
    "fully masked row": _fully_masked,
    "cached": _cached,
}

# What a failure resembles, with a place where it was met.
SEEN = {
    "1/E": ("the score is divided by E and not by √E", "delzac/cntkx#10"),
    "1": ("the scores are not scaled at all", "mlc-ai/mlc-llm#3426"),
    "√E": ("the scores are multiplied by √E", "AI-Hypercomputer/maxtext#1370"),
    "E": ("the scores are multiplied by E", ""),
    "1/√S": ("the scores are divided by √(number of keys)", ""),
    "1/√L": ("the scores are divided by √(number of queries)", ""),
    "1/√Ev": (
        "the scores are divided by the root of the values' size",
        "juho-lee/set_transformer#18",
    ),
    "after": (
        "the factor stands after the softmax",
        "FrancescoSaverioZuppichini/ViT#6",
    ),
    "queries": (
        "the softmax runs over the queries and not over the keys",
        "nerminnuraydogan/vision-transformer#1",
    ),
    "none": ("there is no softmax", "flexflow/flexflow-train#467"),
    "inverted mask": ("", "rasbt/LLMs-from-scratch#1062"),
    "late mask": ("", ""),
    "naive softmax": ("", ""),
    "0 times NaN": (": select with the mask, 0 · NaN is NaN", ""),
    "-inf minus -inf": (": −∞ − (−∞) is NaN, so choose a value for such rows", ""),
}


def _seen(key: str) -> str:
    words, place = SEEN[key]
    return words + (f" (as in {place})" if place else "")


def _weights(subject: _Subject, Q: Array, K: Array) -> Array:
    """Read the weights off: with V the identity the output is P itself."""
    eye = np.broadcast_to(np.eye(K.shape[-2]), (*K.shape[:-2], K.shape[-2], K.shape[-2]))
    return subject(Q, K, eye.copy()).astype(np.float64)


def resembles(subject: _Subject, rank: int) -> str:
    """Say which known mistake the function's weights look like, if any."""
    Q, K, _ = subject.draw(rank)
    try:
        P = _weights(subject, Q, K)
    except Exception:
        return ""
    scores = Q @ np.swapaxes(K, -1, -2)
    scales = {"1": 1.0, "1/√E": E**-0.5, "1/E": 1 / E, "√E": E**0.5, "E": float(E)}
    scales |= {"1/√S": S**-0.5, "1/√L": L**-0.5}
    for (name, scale), axis in itertools.product(scales.items(), (-1, -2)):
        weights = np.exp(scale * scores)
        weights /= weights.sum(axis, keepdims=True)
        for after, factor in {"": 1.0, **scales}.items():
            if _off(P, factor * weights) is None:
                return _name_mistake(name, axis, after)
    for name, scale in scales.items():
        if _off(P, scale * scores) is None:
            return f"; {_seen('none')}, only {name} · QKᵀ"
    return ""


def _name_mistake(scale: str, axis: int, after: str) -> str:
    parts = []
    if axis == -2:
        parts.append(_seen("queries"))
    if after not in ("", "1"):
        parts.append(f"{_seen('after')}: {after} · softmax({scale} · QKᵀ)")
    elif scale != "1/√E":
        parts.append(_seen(scale))
    return "; " + "; ".join(parts) if parts else ""
