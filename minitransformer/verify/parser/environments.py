r"""``\begin{...}``: matrices, cases, and formulas in several steps."""

from __future__ import annotations

from dataclasses import replace

from minitransformer.verify.expression import Expr
from minitransformer.verify.parser.cursor import joined, split_at
from minitransformer.verify.parser.structures import Structures
from minitransformer.verify.tokenizer import CannotParse, Span, Token

_MATRICES = frozenset(["matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array"])
_CASES = frozenset(["cases", "dcases", "rcases"])
_STEPS = frozenset(
    ["aligned", "align", "align*", "split", "gather", "gather*", "gathered", "multline",
     "multline*", "equation", "equation*", "eqnarray", "eqnarray*", "alignat", "alignat*",
     "displaymath", "math", "alignedat", "flalign", "flalign*"]
)  # fmt: skip
_OTHERWISE = frozenset(["otherwise", "else", "否则"])

Cell = list[Token]


def _rows(tokens: list[Token]) -> list[list[Cell]]:
    r"""Split at ``\\`` and ``&``."""
    rows = [
        [[t for t in cell if t.kind != "quad"] for cell in split_at(row, lambda t: t.kind == "&")]
        for row in split_at(tokens, lambda t: t.kind in ("newline", "semi"))
    ]
    return rows if rows[-1] != [[]] else rows[:-1]


class Environments(Structures):
    """Reads an environment by its name."""

    def environment(self) -> Expr:
        opening = self.take()
        kind = opening.text
        depth, start = 1, self.pos
        while depth:
            token = self.take()
            if token.kind == "end" and not token.text:
                raise CannotParse(f"\\begin{{{kind}}} is not ended", opening.span)
            depth += (token.kind == "begin") - (token.kind == "end")
        closing = self.tokens[self.pos - 1]
        if closing.text != kind:
            raise CannotParse(f"\\begin{{{kind}}} ended by {closing.text}", closing.span)
        inside = list(self.tokens[start : self.pos - 1])
        span = joined(opening.span, closing.span)
        if inside and inside[0].kind == "{" and kind.startswith(("array", "alignat")):
            inside = inside[self.child(inside, span[1]).skip_script(0) :]  # {ccc}, {2}
        if kind in _MATRICES:
            return self._matrix(_rows(inside), span)
        if kind == "vmatrix":
            return Expr("call", (self._matrix(_rows(inside), span),), "det", span)
        if kind in _CASES:
            return self._cases(_rows(inside), span)
        if kind in _STEPS:
            if kind.startswith("aligned") and [t.text for t in inside[:3:2]] == ["[", "]"]:
                inside = inside[3:]  # [t]
            return replace(self.child(inside, span[1]).formula(), span=span)
        raise CannotParse(f"the environment {kind} is not read", opening.span)

    def _matrix(self, rows: list[list[Cell]], span: Span) -> Expr:
        if not rows or len({len(row) for row in rows}) != 1:
            raise CannotParse("a matrix whose rows differ in length", span)
        cells = [cell for row in rows for cell in row]
        if not all(cells):
            raise CannotParse("a matrix with an empty entry", span)
        entries = tuple(self.child(cell, span[1]).whole() for cell in cells)
        return Expr("matrix", entries, (len(rows), len(rows[0])), span)

    def _cases(self, rows: list[list[Cell]], span: Span) -> Expr:
        args: list[Expr] = []
        for row in rows:
            value, condition = self._case([cell for cell in row if cell], span)
            otherwise = False
            while condition and condition[0].kind in ("text", "comma", "quad"):
                otherwise |= condition[0].text.lower().strip(" ,.") in _OTHERWISE
                condition = condition[1:]
            args.append(self.child(value, span[1]).whole())
            if condition:
                args.append(self.child(condition, span[1]).formula())
            elif otherwise:
                args.append(Expr("name", (), "otherwise", span))
            else:
                raise CannotParse("a case without a condition", span)
        if not args:
            raise CannotParse("cases without a case", span)
        return Expr("cases", tuple(args), None, span)

    @staticmethod
    def _case(cells: list[Cell], span: Span) -> tuple[Cell, Cell]:
        """Return a case's value and condition; ``x, if x > 0`` may lack the ``&``."""
        if len(cells) == 1:
            (cell,) = cells
            cut = next((i for i, t in enumerate(cell) if t.kind in ("comma", "text")), None)
            if cut is not None:
                cells = [cell[:cut], cell[cut + (cell[cut].kind == "comma") :]]
        if len(cells) != 2 or not cells[0]:
            raise CannotParse("a case needs a value and a condition", span)
        for cell in cells:
            while cell and cell[-1].kind in ("comma", "semi"):
                cell.pop()
        return cells[0], cells[1]
