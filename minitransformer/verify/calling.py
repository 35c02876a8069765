"""Functions as a card calls them: masks filled in, batches around, inputs kept safe."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitransformer.verify import sandbox
from minitransformer.verify.cards import Card
from minitransformer.verify.number_systems import FLOATS
from minitransformer.verify.verdict import Finding, Place


def judge_function(function: Any, card: Card, place: Place) -> Finding:
    """Decide a function, then make sure that it has no memory."""
    from minitransformer.verify import decide

    finding = decide.decide_function(_as_called(function, card), card)
    # An error inside the decision was taken for an undefined point: it is not one.
    if function.failure is not None:
        raise function.failure
    function.replay()
    return replace(finding, place=place)


def _as_called(function: Any, card: Card) -> Any:
    """Adapt a function that wants a mask too, or arrays with more axes than the card's."""
    inputs = card.point(1).inputs
    arrays = [FLOATS.array(inputs[item.name]) for item in card.inputs]
    args = [a if a.ndim else a.item() for a in arrays]
    keywords = _keyword_inputs(function, card)
    fill = (None,) * _optional_inputs(function, len(args) - len(keywords))
    ranks = {np.ndim(a) for a in args}
    if ranks not in ({2}, {0}):
        return Adapted(function, (), fill, keywords) if fill or keywords else function
    first: sandbox.SandboxError | None = None
    # A function on matrices may want batches and heads; one on numbers, an array of them.
    for lead in ((), (2,), (2, 3)) if ranks == {2} else ((), (3,)):
        adapted = Adapted(function, lead, fill, keywords)
        try:
            fits = np.ndim(adapted(*args)) in ranks or not lead
        except sandbox.SandboxError as error:
            if error.kind != "raised":
                raise
            first = first or error
            continue
        if not fits:
            continue
        if lead:
            axes = len(lead) + ranks.pop()
            function.notes.append(f"is given arrays with {axes} ax{'i' if axes == 1 else 'e'}s")
        return adapted if lead or fill or keywords else function
    raise first or sandbox.SandboxError("raised", "takes no matrices")


def _optional_inputs(function: Any, given: int) -> int:
    """Count the required parameters after the card's inputs that None may stand for."""
    required = [
        p.name
        for p in function.__signature__.parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    more = required[given:]
    return len(more) if all("mask" in name.lower() or "dropout" in name for name in more) else 0


def _keyword_inputs(function: Any, card: Card) -> dict[int, str]:
    """Find the card's inputs that a function takes by keyword alone, such as ``eps``."""
    from minitransformer.verify.functions import greek

    places = {item.name: place for place, item in enumerate(card.inputs)}
    found: dict[int, str] = {}
    for p in function.__signature__.parameters.values():  # keyword-only ones come last
        item = card.bind(p.name) or card.bind(greek(p.name))
        if item is None or item.name not in places:
            continue
        place = places.pop(item.name)
        if p.kind is p.KEYWORD_ONLY:
            found[place] = p.name
    return found


class Adapted:
    """A function seen as one on the card's own inputs.

    They stand in one corner of a batch whose other entries are different, so
    that a function that mixes the entries gives a wrong result; masks are None.
    """

    def __init__(
        self, function: Any, lead: tuple[int, ...], fill: tuple[None, ...], keywords: dict[int, str]
    ) -> None:
        self.function, self.lead, self.fill, self.keywords = function, lead, fill, keywords
        self.__name__ = function.__name__
        self.__signature__ = function.__signature__

    def __call__(self, *args: Any) -> NDArray[Any]:
        """Return the corner of the result that belongs to the given matrices."""
        plain = [self._lift(a) for i, a in enumerate(args) if i not in self.keywords]
        named = {name: self._lift(args[i]) for i, name in self.keywords.items()}
        result = self.function(*plain, *self.fill, **named)
        fits = result.shape[: len(self.lead)] == self.lead
        corner: NDArray[Any] = result[(0,) * len(self.lead)] if fits else result
        return corner

    def _lift(self, value: Any) -> Any:
        rank = np.ndim(value)
        if not self.lead or rank not in (0, 2):
            return value
        factors = 1 + np.arange(int(np.prod(self.lead))).reshape(*self.lead, *(1,) * rank)
        exact = sandbox.is_exact(value)
        return value * (factors.astype(object) if exact else factors.astype(np.float64))


class LiveFunction:
    """A function object of this process, called as the sandbox calls one.

    Inputs are copies, tensors where the function wants them; a function that writes
    to its inputs or answers differently to the same ones is refused.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.framework = _framework_of(function)
        self.failure: sandbox.SandboxError | None = None
        self.notes: list[str] = []
        self._first: tuple[tuple[Any, ...], dict[str, Any], bytes] | None = None
        try:
            self.__signature__ = inspect.signature(function)
        except (TypeError, ValueError):
            self.__signature__ = inspect.Signature()

    def __call__(self, *args: Any, **kwargs: Any) -> NDArray[Any]:
        """Return the result as a NumPy array."""
        if self.failure is not None:
            raise self.failure
        exact = any(map(sandbox.is_exact, args))
        first = self._once(args, kwargs, exact)
        if not exact and self._once(args, kwargs).tobytes() != first.tobytes():
            self.failure = sandbox.SandboxError(
                "unsteady", "gives different results for the same inputs"
            )
            raise self.failure
        if self._first is None and not exact:
            self._first = (args, kwargs, first.tobytes())
        return first

    def replay(self) -> None:
        """Repeat the first call; a function with a memory answers differently now."""
        if self._first is not None:
            args, kwargs, before = self._first
            if self._once(args, kwargs).tobytes() != before:
                raise sandbox.SandboxError("unsteady", "remembers earlier calls")

    def _once(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], exact: bool = False
    ) -> NDArray[Any]:
        from minitransformer.verify import sandbox_child as child

        given = [child.to_framework(a, self.framework) for a in args]
        named = {k: child.to_framework(v, self.framework) for k, v in kwargs.items()}
        try:
            with np.errstate(all="ignore"):
                result, _ = child.to_numpy(self.function(*given, **named))
        except child.WrongReturn as error:
            if exact:
                raise TypeError(str(error)) from None
            raise sandbox.SandboxError("type", str(error)) from None
        except Exception as error:
            if exact:
                raise TypeError(str(error)) from None
            text = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            raise sandbox.SandboxError("raised", text) from None
        for before, after in zip([*args, *kwargs.values()], [*given, *named.values()], strict=True):
            if child.was_changed(before, after):
                self.failure = sandbox.SandboxError("mutation", "writes to its inputs")
                raise self.failure
        array: NDArray[Any] = result
        return array


def _framework_of(function: Callable[..., Any]) -> str:
    from minitransformer.verify import sandbox_child as child

    module = inspect.getmodule(function)
    return "numpy" if module is None else child.framework_of(function, module)
