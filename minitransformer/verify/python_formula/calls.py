"""Functions of NumPy and PyTorch to the operators that formulas have for them."""

from __future__ import annotations

import re
from fractions import Fraction

from minitransformer.verify.expression import Expr
from minitransformer.verify.python_formula.axes import Axes, numeral, whole
from minitransformer.verify.tokenizer import FUNCTIONS, CannotParse, Span


def _gelu(x: Expr, form: str, span: Span) -> Expr:
    """Return GELU in the form that PyTorch's ``approximate`` names."""
    form = form.strip("'\"")
    if form == "none":
        return Expr("call", (x,), "gelu", span)
    if form != "tanh":
        raise CannotParse(f"gelu with approximate={form}", span)

    def times(*parts: Expr) -> Expr:
        return Expr("mul", parts, None, span)

    ratio = Expr("div", (numeral(2, span), Expr("name", (), "π", span)), None, span)
    root = Expr("sqrt", (ratio,), None, span)
    cube = Expr("pow", (x, numeral(3, span)), None, span)
    inner = Expr("add", (x, times(numeral(Fraction(44715, 10**6), span), cube)), None, span)
    tanh = Expr("call", (times(root, inner),), "tanh", span)
    one_more = Expr("add", (numeral(1, span), tanh), None, span)
    return times(numeral(Fraction(1, 2), span), x, one_more)


class Calls(Axes):
    """Reads a call whose arguments are read."""

    def named_call(
        self,
        name: str,
        args: tuple[Expr, ...],
        keywords: tuple[Expr, ...],
        span: Span,
        method: bool,
    ) -> Expr:
        one = len(args) == 1 and not keywords
        words = {str(k.value): k.args[0] for k in keywords}
        if name == "size" and method and len(args) == 2 and not keywords:
            axis = whole(args[1])
            if axis is not None:
                return self.size(args[0], axis, span)
        if name in ("clamp", "clip"):
            return self.clamp(args, words, span)
        if name in ("clamp_min", "clamp_max") and len(args) == 2 and not keywords:
            return Expr("call", args, name[-3:], span)
        if name == "gelu" and set(words) == {"approximate"} and len(args) == 1:
            return _gelu(args[0], str(words["approximate"].value), span)
        if name == "where" and len(args) == 3 and not keywords:
            otherwise = Expr("name", (), "otherwise", span)
            return Expr("cases", (args[1], args[0], args[2], otherwise), None, span)
        if name in ("tensor", "zeros_like") and len(args) == 1 and not keywords:
            if name == "zeros_like":
                return numeral(0, span)
            if args[0].op in ("number", "neg"):
                return args[0]
        if name == "einsum":
            return self.einsum(args, span)
        if name == "scaled_dot_product_attention":
            return self.sdpa(args, words, span)
        if name == "layer_norm":
            return self.layer_norm(args, words, span)
        if name == "sqrt" and one:
            return Expr("sqrt", args, None, span)
        if name in ("abs", "fabs", "absolute") and one:
            return Expr("abs", args, None, span)
        if name in ("inv", "inverse") and one:
            return Expr("inverse", args, None, span)
        if name in ("matmul", "mm", "bmm", "dot") and len(args) == 2 and not keywords:
            return Expr("matmul", args, None, span)
        if name in ("multiply", "mul") and len(args) == 2:
            return Expr("hadamard", args, None, span)
        if name in ("add", "subtract", "sub") and len(args) == 2:
            right = args[1] if name == "add" else Expr("neg", (args[1],), None, args[1].span)
            return Expr("add", (args[0], right), None, span)
        if name in ("divide", "div", "true_divide") and len(args) == 2:
            return Expr("div", args, None, span)
        if name in ("power", "pow") and len(args) == 2:
            return Expr("pow", args, None, span)
        if name == "square" and one:
            return Expr("pow", (args[0], numeral(2, span)), None, span)
        if name == "reciprocal" and one:
            return Expr("div", (numeral(1, span), args[0]), None, span)
        if name == "rsqrt" and one:
            root = Expr("sqrt", args, None, span)
            return Expr("div", (numeral(1, span), root), None, span)
        if name in ("transpose", "swapaxes", "swapdims", "permute", "t"):
            return self.transposed(name, args, span)
        if name == "norm" and one:
            return Expr("norm", args, "", span)
        if name in ("concatenate", "concat", "cat", "hstack") and args and args[0].op in (
            "matrix", "tuple", "concat"
        ):  # fmt: skip
            return Expr("concat", (*args[0].args, *args[1:], *keywords), None, span)
        canonical = FUNCTIONS.get(name.lower(), name) if name.lower() in FUNCTIONS else name
        canonical = {"Var": "Var", "negative": "negative"}.get(canonical, canonical)
        if canonical == "negative" and one:
            return Expr("neg", args, None, span)
        return Expr("call", (*args, *keywords), canonical, span)

    def clamp(self, args: tuple[Expr, ...], words: dict[str, Expr], span: Span) -> Expr:
        """Read a clamp as the smaller and the larger of two."""
        bounds = dict(zip(("min", "max"), args[1:]))
        for word, value in words.items():
            bounds[{"a_min": "min", "a_max": "max"}.get(word, word)] = value
        bounds = {k: v for k, v in bounds.items() if not (v.op == "name" and v.value == "None")}
        if not args or len(args) > 3 or not bounds or not set(bounds) <= {"min", "max"}:
            raise CannotParse("a clamp with other arguments than x, min and max", span)
        out = args[0]
        if "min" in bounds:
            out = Expr("call", (out, bounds["min"]), "max", span)
        if "max" in bounds:
            out = Expr("call", (out, bounds["max"]), "min", span)
        return out

    def einsum(self, args: tuple[Expr, ...], span: Span) -> Expr:
        """Read an einsum of two operands that is a matrix product, batched or not."""
        spec = str(args[0].value).strip("'\"").replace(" ", "") if args else ""
        found = re.fullmatch(
            r"(\.\.\.|)([a-zA-Z]*),(\.\.\.|)([a-zA-Z]*)->(\.\.\.|)([a-zA-Z]*)", spec
        )
        if len(args) != 3 or not found or not found[1] == found[3] == found[5]:
            raise CannotParse("an einsum other than of two named operands", span)
        left, right, out = found[2], found[4], found[6]
        batch = [c for c in left if c in right and c in out]
        a, b, c = ("".join(x for x in part if x not in batch) for part in (left, right, out))
        shared = [x for x in a if x in b]
        if (
            len(a) != 2
            or len(b) != 2
            or len(c) != 2
            or len(shared) != 1
            or set(c) != set(a) ^ set(b)
        ):
            raise CannotParse(f"the einsum {spec} is no matrix product", span)
        (k,) = shared
        first, second = args[1], args[2]
        if a[0] == k:
            first = Expr("transpose", (first,), None, span)
        if b[1] == k:
            second = Expr("transpose", (second,), None, span)
        product = Expr("matmul", (first, second), None, span)
        straight = c[0] in a
        return product if straight else Expr("transpose", (product,), None, span)

    def sdpa(self, args: tuple[Expr, ...], words: dict[str, Expr], span: Span) -> Expr:
        """Write ``F.scaled_dot_product_attention`` out; a mask is added inside the softmax."""
        values = dict(zip(("query", "key", "value", "attn_mask"), args)) | words
        named = {"query", "key", "value"}
        off = {k for k, v in values.items() if v.op == "name" and v.value in ("None", "False")}
        off |= {
            k for k, v in values.items() if k == "dropout_p" and v.op == "number" and not v.value
        }
        extra = set(values) - off - named - {"scale"}
        if not named <= set(values) or extra:
            told = ", ".join(sorted(extra)) or "fewer than three arguments"
            raise CannotParse(f"scaled_dot_product_attention with {told}", span)
        q, k, v = (values[n] for n in ("query", "key", "value"))
        scores = Expr("matmul", (q, Expr("transpose", (k,), None, span)), None, span)
        if "scale" in values and "scale" not in off:
            scaled = Expr("hadamard", (scores, values["scale"]), None, span)
        else:
            root = Expr("sqrt", (self.size(q, -1, span),), None, span)
            scaled = Expr("div", (scores, root), None, span)
        last = numeral(-1, span)
        weights = (scaled, Expr("keyword", (last,), "dim", span))
        return Expr("matmul", (Expr("call", weights, "softmax", span), v), None, span)

    def layer_norm(self, args: tuple[Expr, ...], words: dict[str, Expr], span: Span) -> Expr:
        """Write ``F.layer_norm`` over the last axis out."""
        values = dict(zip(("input", "normalized_shape", "weight", "bias", "eps"), args)) | words
        unknown = set(values) - {"input", "normalized_shape", "weight", "bias", "eps"}
        if unknown or not {"input", "normalized_shape"} <= set(values):
            raise CannotParse("layer_norm with other arguments", span)
        values = {k: v for k, v in values.items() if not (v.op == "name" and v.value == "None")}
        shape = values["normalized_shape"]
        if shape.op in ("tuple", "matrix") and len(shape.args) != 1:
            raise CannotParse("layer_norm over more than the last axis", span)
        x = values["input"]
        last = numeral(-1, span)
        over = Expr("keyword", (last,), "dim", span)
        mean, var = (Expr("call", (x, over), f, span) for f in ("mean", "Var"))
        eps = values.get("eps", numeral(Fraction(1, 100_000), span))
        gap = Expr("add", (x, Expr("neg", (mean,), None, span)), None, span)
        root = Expr("sqrt", (Expr("add", (var, eps), None, span),), None, span)
        out = Expr("div", (gap, root), None, span)
        if "weight" in values:
            out = Expr("hadamard", (out, values["weight"]), None, span)
        return Expr("add", (out, values["bias"]), None, span) if "bias" in values else out
