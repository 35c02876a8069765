"""Planted mistakes that change no result, each with the reason."""

ONE_OR_MANY = "one product of many rows and many of few rows hold the same numbers"
SIGNS = "dividing by a sign is multiplying by it"

EQUIVALENT: dict[str, str] = {
    "linear.matmul_forward: A.ndim > 2 -> A.ndim <= 2": ONE_OR_MANY,
    "linear.matmul_backward: A.ndim > 2 -> A.ndim <= 2": ONE_OR_MANY,
    "reduction.norm_backward: dout * xp.sign(x) -> dout / xp.sign(x)": SIGNS,
    "shape.index_backward: len(lists) == len(parts) -> len(lists) != len(parts)": (
        "whole rows at once is the faster of two ways to the same sums"
    ),
}
