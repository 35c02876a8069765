"""The formulas in a document's Python code, judged like those in its text.

A function or a script of assignments is read as one expression (`straight_line`), never run.
It is called wrong only where the code itself says what it should be, by a name that means one
formula or by a mistake that the card knows, and balls certify the difference; it is called
right wherever it equals a card. What is named like a card and cannot be decided is listed as
not checked, with the reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction

from minitransformer.verify.cards import Card, UnknownCard, find
from minitransformer.verify.code_claims import PYTHON, read_code
from minitransformer.verify.expression import Expr, number
from minitransformer.verify.extraction import Code, Document
from minitransformer.verify.parser import CannotParse, Reading
from minitransformer.verify.python_formula import library_of, parse_python
from minitransformer.verify.straight_line import (
    SMALL,
    Made,
    Reader,
    Scope,
    Unreadable,
    returned,
    stored_names,
)
from minitransformer.verify.verdict import Finding, Place, Verdict

# Names that mean one formula, by card; others (loss, norm, feed_forward) mean several.
_ONE_MEANING = frozenset(
    ["attention", "softmax", "log-softmax", "sigmoid", "tanh", "relu", "gelu", "silu",
     "layer-norm", "rms-norm"]
)  # fmt: skip
_OTHER_FORMS = {
    "gelu": ("gelu-tanh", "gelu-sigmoid"),
    "layer-norm": ("layer-norm-no-eps",),
    "rms-norm": ("rms-norm-no-eps",),
}
_GAIN_AND_SHIFT = {
    "layer-norm": ("γ", "β"), "layer-norm-no-eps": ("γ", "β"), "rms-norm": ("γ",),
    "rms-norm-no-eps": ("γ",),
}  # fmt: skip
_PREFIXES = ("my_", "naive_", "simple_", "numpy_", "torch_", "np_")
_SUFFIXES = ("_numpy", "_np", "_torch", "_naive", "_forward", "_function", "_fn", "_reference")
_METHODS = ("forward", "__call__", "call")
_KEEPS_MEANING = frozenset(
    ["staticmethod", "torch.no_grad", "torch.jit.script", "torch.compile", "jax.jit", "jit"]
)
_MAKES_INPUTS = frozenset(
    ["randn", "rand", "random", "randint", "normal", "uniform", "array", "tensor", "ones", "zeros",
     "arange", "linspace", "randn_like", "full", "eye", "default_rng", "standard_normal", "empty"]
)  # fmt: skip
_REDUCES = frozenset(
    ["softmax", "log_softmax", "sum", "mean", "prod", "var", "std", "logsumexp", "amax", "amin",
     "max", "min"]
)  # fmt: skip
_SHOWS = frozenset(["print", "plt", "display", "pprint", "sns"])
_OWNERS = frozenset(["np", "torch", "F", "nn", "jnp", "math", "numpy", "tf"])
_LONGEST = 1_200  # characters of an expression
_CONSTANTS = frozenset(["e", "E", "pi", "inf", "i", "j"])
_TWO_AXES = "arrays of two axes"
_ONE_VECTOR = "one vector, for no axis is named"
_SCALED = re.compile(r"scaled|dot.?product|sdpa", re.I)
_NUMBER = re.compile(r" = -?\d")  # a parameter's default that is a quantity
_KNOWN_MISTAKE = "A known mistake"


def formula_findings(document: Document) -> Iterator[Finding]:
    """Yield what the formulas in the document's Python code are.

    Parameters
    ----------
    document : Document
        Its code blocks, in order; its ``unread`` gets the lines that could not be decided.

    Yields
    ------
    Finding
        At the line of the function, or of the assignment.
    """
    scope = Scope()
    for code in document.codes:
        module = read_code(code.text) if code.language in PYTHON else None
        if module is None:
            continue
        scope.add(module.tree, module.imports)
        judge = _Judge(document, code, scope)
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef):
                yield from judge.function(node, node.name)
            elif isinstance(node, ast.ClassDef):
                yield from judge.made_class(node)
        yield from judge.script(module.tree)


def named_card(name: str) -> Card | None:
    """Return the card that a function's name means, where it can mean no other.

    Examples
    --------
    >>> named_card("my_layer_norm").id, named_card("loss")
    ('layer-norm', None)
    """
    bare = name.strip("_")
    for prefix in _PREFIXES:
        bare = bare.removeprefix(prefix)
    for suffix in _SUFFIXES:
        bare = bare.removesuffix(suffix)
    try:
        card = find(bare)
    except UnknownCard:
        return None
    return card if card.id in _ONE_MEANING else None


def _library(text: str, scope: Scope) -> str | None:
    """Return whose functions a text calls: what it names itself comes before the imports."""
    torch, numpy = (re.search(names, text) for names in (r"\b(?:torch|F|nn)\.", r"\b(?:np|jnp)\."))
    if torch or numpy:
        return None if torch and numpy else "torch" if torch else "numpy"
    spelled, imported = library_of(text), scope.library()  # axis= or dim= is a hint, no proof
    return imported if spelled in ("", imported) else None


class _Judge:
    def __init__(self, document: Document, code: Code, scope: Scope) -> None:
        self.document = document
        self.code = code
        self.scope = scope

    # -- what is judged -------------------------------------------------------------------
    def function(
        self, node: ast.FunctionDef, name: str, made: Mapping[str, Made] | None = None
    ) -> Iterator[Finding]:
        """Judge what a function returns."""
        try:
            for decorator in node.decorator_list:
                kind = decorator.func if isinstance(decorator, ast.Call) else decorator
                if ast.unparse(kind) not in _KEEPS_MEANING:
                    raise Unreadable(f"the decorator {ast.unparse(kind)}")
            expression, conditions = returned(node, self.scope, made)
        except Unreadable as error:
            self.unread(node, name, str(error))
            return
        yield from self.judged(node, name, expression, conditions)

    def made_class(self, node: ast.ClassDef) -> Iterator[Finding]:
        """Judge the call of a module, with what its constructor made."""
        methods = {m.name: m for m in node.body if isinstance(m, ast.FunctionDef)}
        made: dict[str, Made] = {name: m for name, m in methods.items() if name[:2] != "__"}
        for statement in ast.walk(methods["__init__"]) if "__init__" in methods else ():
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
                for target in statement.targets:
                    if isinstance(target, ast.Attribute):
                        made[target.attr] = statement.value
        for name, method in methods.items():
            if name in _METHODS:
                yield from self.function(method, node.name, made)
            elif named_card(name) is not None:
                yield from self.function(method, name, made)

    def script(self, tree: ast.Module) -> Iterator[Finding]:
        """Judge the assignments of a script whose values no later assignment uses."""
        reader = Reader(self.scope, {}, {})
        made: dict[str, ast.stmt] = {}
        unknown: set[str] = set()
        defined: set[str] = set()
        for statement in tree.body:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
                continue
            stored = stored_names([statement])
            if isinstance(statement, ast.Expr):
                stored &= defined  # what a call may change; np and plt are no values
            defined |= stored
            loaded = {
                n.id for n in ast.walk(statement)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
            }  # fmt: skip
            if _only_shows(statement):
                continue
            for name in loaded:
                made.pop(name, None)
            for name in stored:
                reader.values.pop(name, None)
                made.pop(name, None)
            if _makes_inputs(statement):
                unknown -= stored
                continue
            try:
                if loaded & unknown:
                    raise Unreadable("a name of unknown value")
                reader.step(statement)
            except Unreadable:
                unknown |= stored
                continue
            unknown -= stored
            made.update((name, statement) for name in stored)
        for name, statement in made.items():
            if name in reader.values:
                conditions = tuple(reader.conditions)
                yield from self.judged(statement, name, reader.values[name], conditions)

    # -- how ------------------------------------------------------------------------------
    def judged(
        self, node: ast.stmt, name: str, expression: ast.expr, conditions: tuple[str, ...]
    ) -> Iterator[Finding]:
        """Judge one expression under a name."""
        for part in ast.walk(expression):  # Python's bare e is a variable
            if isinstance(part, ast.Name) and part.id in _CONSTANTS:
                part.id += "_value"
        try:
            conditions += _axis_conditions(expression)
        except Unreadable as error:
            self.unread(node, name, str(error))
            return
        text = ast.unparse(ast.fix_missing_locations(expression))
        claim = f"{name} = {text}"
        if len(claim) > _LONGEST:
            self.unread(node, name, "too long")
            return
        try:
            tree = parse_python(claim, _library(text, self.scope))
        except CannotParse as error:
            self.unread(node, name, error.message)
            return
        if tree is None or tree.op != "relation" or _is_trivial(tree.args[1]):
            return
        said = f"{name} {_docstring(node)}"
        finding = self.decided(node, name, said, _over_x(tree, named_card(name)))
        if finding is None:
            return
        chosen = [c for c in conditions if _NUMBER.search(c) or c == _TWO_AXES]
        if finding.verdict is Verdict.DIFFERENT_CERTIFIED and chosen:
            self.unread(node, name, f"judged for {chosen[0]} alone it would be wrong")
            return
        if any(len(item.dims) > 1 for item in find(finding.card or "").inputs):
            conditions = tuple(c for c in conditions if c != _ONE_VECTOR)
        told = f"Judged for {', '.join(dict.fromkeys(conditions))}." if conditions else ""
        yield replace(
            finding,
            place=self.place(node, claim),
            explanation=f"{finding.explanation} {told}".strip(),
        )

    def decided(self, node: ast.stmt, name: str, said: str, tree: Expr) -> Finding | None:
        """Decide a tree ``name = body`` against the cards that it equals or says it is."""
        from minitransformer.verify.decide import EQUALS, decide
        from minitransformer.verify.matching import match

        claimed = named_card(name)
        # A name that is no card's says nothing: output = softmax(QKᵀ/√d_k)V is attention.
        shown = tree.map(_plain_size)
        matched = match([Reading(shown)], said) or match([Reading(shown.args[1])], said)
        cards = [*matched[:1], *_forms(claimed)]
        if not cards:
            return None
        findings = [decide([Reading(completed(tree, card))], card) for card in cards]
        equal = next((f for f in findings if f.verdict in EQUALS), None)
        if equal is not None:
            return equal
        first = findings[0] if claimed is None else findings[len(matched[:1])]
        if claimed is not None and any(f.verdict is Verdict.APPROXIMATES for f in findings):
            return next(f for f in findings if f.verdict is Verdict.APPROXIMATES)
        known = cards[0].id in _ONE_MEANING and _KNOWN_MISTAKE in first.explanation
        sure = first.verdict is Verdict.DIFFERENT_CERTIFIED and not first.witnesses.get("cases")
        if first.card == "attention" and not _SCALED.search(said):
            # There are other attentions; this one only where it is that but for a factor.
            sure = sure and (known or bool(first.equals_instead))
        if not (sure and (claimed or known)):
            if claimed is not None:
                self.unread(node, name, f"{first.verdict.value}: {first.explanation}")
            return None
        if first.equals_instead == "attention with scale 1" and not _SCALED.search(said):
            words = "It is dot-product attention without a scale; scaled dot-product attention " \
                "divides the scores by √d_k."  # fmt: skip
            return (
                replace(first, verdict=Verdict.CONDITIONAL, explanation=words) if claimed else None
            )
        for gain in _symbols(tree)[1:] if first.card in _GAIN_AND_SHIFT else ():
            from_zero = _less_one(tree, gain)
            if any(decide([Reading(completed(from_zero, c))], c).verdict in EQUALS for c in cards):
                words = f"It is {cards[0].name} with {gain} counted from one."
                return replace(first, verdict=Verdict.CONDITIONAL, explanation=words)
        guards = [n for n in tree.walk() if n.op == "number" and 0 < n.value <= SMALL]
        if guards:
            bare = tree.map(lambda n: replace(n, value=Fraction(0)) if n in guards else n)
            if any(decide([Reading(completed(bare, c))], c).verdict in EQUALS for c in cards):
                words = f"It is {cards[0].name} but for the small constant in it."
                return replace(first, verdict=Verdict.CONDITIONAL, explanation=words)
        return first

    def unread(self, node: ast.stmt, name: str, why: str) -> None:
        """Note why code that is named like a card was not decided."""
        if named_card(name) is not None:
            line = self.code.line + node.lineno - 1
            self.document.unread[line] = f"{name}: {why.rstrip('.')}"

    def place(self, node: ast.stmt, text: str) -> Place:
        first, last = node.lineno, node.end_lineno or node.lineno
        start = self.code.line - 1
        return Place(self.document.name, start + first, text, start + last)


def _forms(card: Card | None) -> list[Card]:
    """Return a card and its other forms: without ε, approximated."""
    if card is None:
        return []
    return [card, *(find(other) for other in _OTHER_FORMS.get(card.id, ()))]


def _symbols(tree: Expr) -> list[str]:
    """Return the symbols of a tree's right-hand side that are no ε, as they come."""
    names = (str(n.value) for n in tree.args[1].walk() if n.op == "name")
    constants = ("π", "e", "∞", "None", "True", "False", "otherwise")
    return [n for n in dict.fromkeys(names) if n not in constants and "ε" not in n]


def _over_x(tree: Expr, card: Card | None) -> Expr:
    """Call the one symbol of a function x, where its card is about x."""
    symbols = _symbols(tree)
    if card is None or len(symbols) != 1 or card.inputs[0].name != "x":
        return tree
    (symbol,) = symbols
    body = tree.args[1].map(
        lambda n: replace(n, value="x") if n.op == "name" and n.value == symbol else n
    )
    return replace(tree, args=(tree.args[0], body))


def completed(tree: Expr, card: Card) -> Expr:
    """Give a normalisation the gain and shift that it lacks: libraries make them optional."""
    wanted = _GAIN_AND_SHIFT.get(card.id, ())
    missing = wanted[max(0, len(_symbols(tree)) - 1) :]
    left, body = tree.args
    for symbol in missing:
        op = "add" if symbol == "β" else "hadamard"
        body = Expr(op, (body, Expr("name", (), symbol)), None, body.span)
    return replace(tree, args=(left, body))


def _less_one(tree: Expr, symbol: str) -> Expr:
    """Put ``symbol − 1`` in a symbol's place, as where a gain is written 1 + w."""
    minus = Expr("neg", (number(1),))

    def change(node: Expr) -> Expr:
        if node.op == "name" and node.value == symbol:
            return Expr("add", (node, minus), None, node.span)
        return node

    return replace(tree, args=(tree.args[0], tree.args[1].map(change)))


def _docstring(node: ast.stmt) -> str:
    return (ast.get_docstring(node) or "") if isinstance(node, ast.FunctionDef) else ""


def _plain_size(node: Expr) -> Expr:
    """Write the size of a key as formulas do, to see what a tree resembles."""
    if node.op == "call" and node.value == "size" and node.args[0].op == "name":
        return Expr("name", (), "d_k", node.span)
    return node


def _is_trivial(expr: Expr) -> bool:
    """Whether an expression computes nothing: a name, a number, a shape."""
    return expr.op in ("name", "number", "tuple", "matrix", "index", "neg") or (
        expr.op == "call" and expr.value == "size"
    )


def _axis_conditions(expression: ast.expr) -> tuple[str, ...]:
    """Say which axes the code leaves open; refuse one whose meaning the number of axes decides."""
    conditions = []
    for node in ast.walk(expression):
        if _counts_from_first(node):
            conditions.append(_TWO_AXES)
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).rpartition(".")[2].lower()
        if name in ("clip", "clamp"):
            raise Unreadable(f"a {name}, whose bounds inputs may never reach")
        if name not in _REDUCES:
            continue
        given = [k.value for k in node.keywords if k.arg in ("dim", "axis")]
        owner = ast.unparse(node.func).partition(".")[0]
        method = isinstance(node.func, ast.Attribute) and owner not in _OWNERS  # x.sum(1)
        given += node.args[0 if method else 1 :][:1]
        if not given and name not in ("softmax", "log_softmax"):
            conditions.append(_ONE_VECTOR)
        for axis in given:
            if _is_count(axis):
                which = f"axis {ast.unparse(axis)}"
                raise Unreadable(f"{which} is the last only of so many axes, and none are counted")
    return tuple(conditions)


def _is_count(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and node.value >= 0


def _counts_from_first(node: ast.AST) -> bool:
    """Whether a size is taken of an axis counted from the first: ``x.shape[1]``."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute):
        return node.value.attr == "shape" and _is_count(node.slice)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr == "size" and len(node.args) == 1 and _is_count(node.args[0])
    return False


def _only_shows(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Call)
        and ast.unparse(statement.value.func).partition(".")[0] in _SHOWS
    )


def _makes_inputs(statement: ast.stmt) -> bool:
    """Whether a statement assigns numbers, literal or random, that stand for any input."""
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
        return False
    value: ast.expr = statement.value
    return all(map(_is_input, value.elts if isinstance(value, ast.Tuple) else [value]))


def _is_input(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in _MAKES_INPUTS
    return isinstance(value, ast.Constant)
