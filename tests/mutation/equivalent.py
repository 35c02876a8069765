"""Planted mistakes that change no result, each with the reason."""

ONE_OR_MANY = "one product of many rows and many of few rows hold the same numbers"
HIDES_NOTHING = "builds the causal mask for a block in which it hides nothing"
SIGNS = "dividing by a sign is multiplying by it"

EQUIVALENT: dict[str, str] = {
    "linear.matmul_forward: A.ndim > 2 -> A.ndim <= 2": ONE_OR_MANY,
    "linear.matmul_backward: A.ndim > 2 -> A.ndim <= 2": ONE_OR_MANY,
    "reduction.norm_backward: dout * xp.sign(x) -> dout / xp.sign(x)": SIGNS,
    "elementwise.abs_backward: dout * array_module(x).sign(x) -> dout / array_module(x).sign(x)": (
        "the same away from zero, where no kernel promises a slope"
    ),
    "elementwise._erf_double: 0.46875 -> 1.46875": (
        "a bound of what is computed and then not chosen"
    ),
    "elementwise._erf_double: 6.0 -> 7.0": "erf is 1 to the last place at both",
    "attention.__init__: 0.0 -> 1.0": "with p = 1 nothing is kept, and nothing to scale",
    "attention.scores: tile.queries.start + 1 -> tile.queries.start - 1": HIDES_NOTHING,
    "attention.scores: tile.queries.start + 1 -> tile.queries.start": HIDES_NOTHING,
    "attention.hidden: tile.queries.start + 1 -> tile.queries.start - 1": HIDES_NOTHING,
    "attention.hidden: tile.queries.start + 1 -> tile.queries.start": HIDES_NOTHING,
    "shape.index_backward: len(lists) == len(parts) -> len(lists) != len(parts)": (
        "whole rows at once is the faster of two ways to the same sums"
    ),
}
