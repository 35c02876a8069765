"""What stands above and below: spellings, labels, indices, powers, transposes."""

from __future__ import annotations

from minitransformer.verify.expression import Expr
from minitransformer.verify.parser.cursor import Cursor, Script, joined, make
from minitransformer.verify.tokenizer import CannotParse, Span, Token, styled

_LABEL_CAPITALS = frozenset("QKVO")
_TRANSPOSES = (["⊤"], ["T"])
_INVERSE_TRANSPOSES = (["-", "T"], ["-", "⊤"])
_IN_LABELS = frozenset(
    ["letter", "number", "comma", "op", "word", "open", "close", "{", "}", "text", "_", "^", "'",
     "transpose", "cmd"]
)  # fmt: skip


class Scripts(Cursor):
    """Reads what a script says, once its tokens are taken."""

    def spelled(self, token: Token) -> str:
        """Return the canonical spelling of a letter or a word."""
        if token.kind != "letter":
            return token.text
        if token.font not in ("double", "script", "fraktur", "bold"):
            self.found.fonts.setdefault(token.text, set()).add("")
            return token.text
        self.found.fonts.setdefault(token.text, set()).add(token.font)
        if token.font == "bold" and "" not in self.facts.fonts.get(token.text, ()):
            return token.text  # all bold: no other letter to tell it from
        return styled(token.text[0], token.font) + token.text[1:]

    def accented(self) -> tuple[str, Span]:
        r"""Read ``\hat{y}``, ``\bar{\hat{y}}``."""
        accent = self.take()
        script = self.script()
        tokens, span = script
        if len(tokens) == 1 and tokens[0].kind in ("letter", "word"):
            text = self.spelled(tokens[0])
        elif tokens and tokens[0].kind == "accent":
            text, _ = self.inside(script).accented()
        else:
            raise CannotParse("an accent over an expression", joined(accent.span, span))
        return text + accent.text, joined(accent.span, span)

    # -- superscripts ---------------------------------------------------------------------
    def label(self, base: str, script: Script, indexed: bool) -> tuple[str, bool] | None:
        """Return the label in a superscript and whether a transpose follows it.

        ``W^Q`` and ``x^*`` are names; ``x^2`` and ``K^T`` are none, and give ``None``.
        """
        tokens, texts = script.tokens, script.texts
        if not tokens:
            raise CannotParse("an empty superscript", self.peek().span)
        kinds = {t.kind for t in tokens}
        if texts == ["-", "1"] or texts in _TRANSPOSES or texts in _INVERSE_TRANSPOSES:
            return None
        if kinds == {"'"}:
            return ("′" * len(tokens), False)
        if len(tokens) == 1:
            return (texts[0], False) if self._is_label(base, tokens[0], indexed) else None
        if texts[0] + texts[-1] in ("()", "[]") and len(texts) == 3:  # a layer: x^{(l)}, W^{[l]}
            if texts[0] == "[":
                return ("".join(texts), False)
            if tokens[1].kind in ("letter", "word", "number"):
                if texts[1] in self.facts.index_letters:
                    return None
                self.found.bare.discard(texts[1])
                return ("".join(texts), False)
        counted = {"number", "op", "letter"} <= kinds
        if texts[0] + texts[-1] == "()" and counted and len(texts) == 5:  # h^{(l+1)}
            return ("".join(texts), False)
        transposed = texts[-1] in ("⊤", "T")
        body = texts[:-1] if transposed else texts
        capitals = all(len(t) == 1 and t.isascii() and t.isupper() for t in body)
        if kinds != {"letter"} or not base[0].isupper() or not capitals:
            return None
        if len(body) == 1 and body[0] not in _LABEL_CAPITALS:
            return None
        return ("".join(body), transposed)

    @staticmethod
    def _is_label(base: str, token: Token, indexed: bool) -> bool:
        """Whether one raised token makes a name, and is neither a power nor a transpose."""
        if token.kind in ("word", "text", "func") or token.text in ("*", "′", "+", "-", "†"):
            return True
        if token.kind != "letter":
            return False
        if token.font == "upright" and token.text != "i":
            return True
        capital = token.text in _LABEL_CAPITALS and base[0].isupper()
        return capital or (indexed and token.text in "QKV")  # a_{ij}^K

    def raise_to(self, node: Expr, script: Script) -> Expr:
        """Apply a superscript that is no label: a power, a transpose, an inverse."""
        tokens, where = script
        texts = script.texts
        span = joined(node.span, where)
        if not tokens:
            raise CannotParse("an empty superscript", where)
        if texts == ["⊤"] or (texts == ["T"] and tokens[0].font != "bold"):
            notes = ("^T transposes", "^T is the power T")
            if texts == ["T"] and "T" in self.facts.bare and self.choices.pick("power T", *notes):
                return make("pow", (node, Expr("name", (), "T", where)), None, span)
            return make("transpose", (node,), None, span)
        if texts == ["†"]:
            return make("transpose", (node,), None, span)
        if texts == ["-", "1"]:
            return make("inverse", (node,), None, span)
        if texts in _INVERSE_TRANSPOSES:
            return make("transpose", (make("inverse", (node,), None, span),), None, span)
        if node.op == "name" and len(texts) == 3 and texts[0] + texts[2] == "()" and (
            texts[1] in self.facts.index_letters
        ):  # fmt: skip
            index = Expr("name", (), texts[1], tokens[1].span)
            return make("index", (node, index), None, span)
        if any(t.kind == "'" for t in tokens) or texts in (["*"], ["+"], ["-"]):
            raise CannotParse("a mark raised over an expression", where)
        return make("pow", (node, self.inside(script).whole()), None, span)

    # -- subscripts -----------------------------------------------------------------------
    def subscript_text(self, tokens: list[Token]) -> tuple[str, tuple[str, ...], bool, bool]:
        """Return a subscript's spelling, its letters, whether it computes, and if it is a label."""
        text = "".join(self.spelled(t) for t in tokens if t.kind not in ("{", "}"))
        text = text.replace("⊤", "T")
        upright = [t for t in tokens if t.kind == "letter" and t.font == "upright"]
        letters = tuple(t.text for t in tokens if t.kind == "letter" and t.font != "upright")
        kinds = {t.kind for t in tokens}
        words = bool(upright) or bool(kinds & {"word", "text", "func"})
        if words and "op" not in kinds and not letters:
            return text, (), False, True
        if kinds - _IN_LABELS or any(t.text == "∖" for t in tokens):
            return text, letters, False, True
        arithmetic = any(t.kind == "op" and t.text in "+-*/·×" for t in tokens)
        computes = bool(letters) and (
            (arithmetic and len(tokens) > 1)
            or (tokens[0].kind == "number" and "comma" not in kinds)
            or (tokens[0].text == "(" and "comma" in kinds)
        )
        return text, letters, computes, False

    def indices(self) -> list[Expr]:
        """Parse the content of a subscript as indices."""
        if self.at("open", "(") and self.matching(self.pos) == len(self.tokens) - 1:
            return self.child(self.tokens[1:-1], self.end).indices()
        if all(t.kind == "letter" for t in self.tokens):
            lower = {t.text for t in self.tokens if t.text.islower()}
            self.found.forced_letters |= lower & self.facts.index_letters
            return [Expr("name", (), self.spelled(t), t.span) for t in self.tokens]
        out = [self.addition()]
        while self.at("comma"):
            self.take()
            out.append(self.addition())
        if self.peek().kind != "end":
            raise self.fail("an index should end here")
        return out

    def force_indices(self, letters: tuple[str, ...]) -> None:
        """Note letters that nothing but an index can be."""
        self.found.forced_letters |= {x for x in letters if x.islower() and len(x) == 1}
