r"""Formula text to tokens: LaTeX and Unicode, with the span of every token.

Three stages: characters and control sequences; the user's macros, expanded within a
budget; mathematical tokens, in which `\frac`, ``½``-like characters, fonts and
delimiters have one spelling each. Nothing is dropped but spacing and labels, and a
control sequence that is not in the tables is an error, never a guess.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace

MAX_LENGTH = 20_000  # characters of one formula
MAX_TOKENS = 6_000
MAX_EXPANSIONS = 2_000  # tokens that macros may add

Span = tuple[int, int]


class CannotParse(ValueError):
    """A formula, or a part of one, that no reading covers.

    Parameters
    ----------
    message : str
        What was found and what was expected.
    span : (int, int)
        Where it stands in the text.
    """

    def __init__(self, message: str, span: Span = (0, 0)) -> None:
        super().__init__(message)
        self.message = message
        self.span = span


class Choices:
    """The decisions that the text leaves open, and which way each one goes.

    Tokenizer and parser ask `pick` wherever two readings exist; a second run with
    another answer gives the other reading.
    """

    def __init__(self, forced: Mapping[str, int] | None = None) -> None:
        self.forced = dict(forced or {})
        self.seen: dict[str, tuple[str, ...]] = {}

    def pick(self, key: str, *notes: str) -> int:
        """Return which of the readings described by `notes` to take."""
        self.seen.setdefault(key, notes)
        return self.forced.get(key, 0)


@dataclass(frozen=True)
class Macro:
    r"""A user's ``\newcommand``: its number of arguments, default and body."""

    arguments: int
    body: str
    default: str | None = None


@dataclass(frozen=True)
class Token:
    """One mathematical token.

    ``kind`` is one of number, letter, word, text, func, big, cmd, accent, begin, end, op,
    rel, open, close, bar, dbar, ``{``, ``}``, ``^``, ``_``, ``'``, transpose, comma, semi,
    colon, ``&``, newline, quad, ellipsis, root.
    """

    kind: str
    text: str
    span: Span
    spaced: bool = False
    font: str = ""


_GREEK_NAMES = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "omicron",
    "pi",
    "rho",
    "sigma",
    "tau",
    "upsilon",
    "phi",
    "chi",
    "psi",
    "omega",
]
_GREEK_LETTERS = "αβγδεζηθικλμνξοπρστυφχψω"
GREEK = dict(zip(_GREEK_NAMES, _GREEK_LETTERS))
GREEK |= {k.capitalize(): v.upper() for k, v in list(GREEK.items())}
LETTERS = GREEK | {
    "varepsilon": "ε",
    "varphi": "φ",
    "vartheta": "θ",
    "varsigma": "σ",
    "varrho": "ρ",
    "varpi": "π",
    "ell": "ℓ",
    "infty": "∞",
    "top": "⊤",
    "intercal": "⊤",
    "dagger": "†",
    "hbar": "ℏ",
    "imath": "ı",
    "jmath": "ȷ",
    "emptyset": "∅",
    "varnothing": "∅",
    "Re": "ℜ",
    "Im": "ℑ",
    "aleph": "ℵ",
    "prime": "′",
    "partial": "∂",
    "nabla": "∇",
    "checkmark": "✓",
    "perp": "⊥",
    "bot": "⊥",
}
_OPERATORS = {
    "cdot": "·",
    "cdotp": "·",
    "bullet": "·",
    "times": "×",
    "odot": "⊙",
    "circ": "∘",
    "otimes": "⊗",
    "oplus": "⊕",
    "ast": "*",
    "star": "*",
    "div": "/",
    "setminus": "∖",
    "pm": "±",
    "mp": "∓",
}
RELATIONS = {
    "leq": "≤",
    "le": "≤",
    "leqslant": "≤",
    "geq": "≥",
    "ge": "≥",
    "geqslant": "≥",
    "lt": "<",
    "gt": ">",
    "neq": "≠",
    "ne": "≠",
    "approx": "≈",
    "sim": "∼",
    "simeq": "≃",
    "cong": "≅",
    "equiv": "≡",
    "propto": "∝",
    "in": "∈",
    "notin": "∉",
    "ni": "∋",
    "subset": "⊂",
    "subseteq": "⊆",
    "to": "→",
    "rightarrow": "→",
    "longrightarrow": "→",
    "mapsto": "↦",
    "leftarrow": "←",
    "gets": "←",
    "Rightarrow": "⇒",
    "Longrightarrow": "⇒",
    "implies": "⇒",
    "iff": "⇔",
    "Leftrightarrow": "⇔",
    "ll": "≪",
    "gg": "≫",
    "triangleq": "≜",
    "coloneqq": "≔",
    "doteq": "≐",
    "lesssim": "≲",
    "gtrsim": "≳",
    "asymp": "≍",
    "mid": "|",
}
_RELATION_CHARACTERS = set(RELATIONS.values()) - {"|"} | set("=<>")
_ELLIPSES = {"ldots", "cdots", "dots", "vdots", "ddots", "dotsc", "dotsb", "dotsm", "hdots"}
_OPEN = {
    "lbrace": "{",
    "{": "{",
    "langle": "⟨",
    "lfloor": "⌊",
    "lceil": "⌈",
    "lVert": "‖",
    "lvert": "|",
    "lbrack": "[",
    "lparen": "(",
}
_CLOSE = {
    "rbrace": "}",
    "}": "}",
    "rangle": "⟩",
    "rfloor": "⌋",
    "rceil": "⌉",
    "rVert": "‖",
    "rvert": "|",
    "rbrack": "]",
    "rparen": ")",
}
_SPACING = set(",;:! ") | {
    "displaystyle",
    "textstyle",
    "scriptstyle",
    "limits",
    "nolimits",
    "nonumber",
    "notag",
    "hfill",
    "thinspace",
    "medspace",
    "enspace",
    "negthinspace",
    "allowbreak",
    "nobreak",
    "/",
    "strut",
    "mathstrut",
    "centering",
    "bf",
    "rm",
    "it",
    "hline",
    "smallskip",
    "medskip",
    "noindent",
}
_SIZES = re.compile(r"[bB]ig{1,2}([lrm]?)$")
_UPRIGHT = {
    "mathrm",
    "operatorname",
    "operatorname*",
    "text",
    "textrm",
    "textnormal",
    "mathsf",
    "mathtt",
    "texttt",
    "textsf",
    "textbf",
    "textit",
    "mathit",
    "mbox",
    "hbox",
    "mathop",
    "textsc",
    "emph",
}
_FONTS = {
    "mathbf": "bold",
    "boldsymbol": "bold",
    "bm": "bold",
    "pmb": "bold",
    "bold": "bold",
    "vec": "bold",
    "mathbfit": "bold",
    "mathcal": "script",
    "mathscr": "script",
    "mathbb": "double",
    "mathds": "double",
    "mathbbm": "double",
    "mathfrak": "fraktur",
    "mathnormal": "",
    "mathord": "",
    "mathbin": "",
    "mathrel": "",
    "ensuremath": "",
}
ACCENTS = {
    "hat": "\u0302",
    "widehat": "\u0302",
    "tilde": "\u0303",
    "widetilde": "\u0303",
    "bar": "\u0304",
    "overline": "\u0304",
    "dot": "\u0307",
    "ddot": "\u0308",
    "check": "\u030c",
    "breve": "\u0306",
    "acute": "\u0301",
    "grave": "\u0300",
    "underline": "\u0332",
}
COMMAND_FUNCTIONS = {
    "exp": "exp",
    "log": "log",
    "ln": "log",
    "sin": "sin",
    "cos": "cos",
    "tan": "tan",
    "sinh": "sinh",
    "cosh": "cosh",
    "tanh": "tanh",
    "arctan": "arctan",
    "arcsin": "arcsin",
    "arccos": "arccos",
    "det": "det",
    "dim": "dim",
    "ker": "ker",
    "max": "max",
    "min": "min",
    "sup": "sup",
    "inf": "inf",
    "arg": "arg",
    "argmax": "argmax",
    "argmin": "argmin",
    "Pr": "Pr",
    "gcd": "gcd",
    "tr": "trace",
    "Tr": "trace",
    "softmax": "softmax",
    "Var": "Var",
    "Cov": "Cov",
    "diag": "diag",
    "sgn": "sign",
    "sigmoid": "sigmoid",
    "ReLU": "relu",
}
_BIG = {"sum": "sum", "prod": "prod", "Sigma": "sum"}
_COMMANDS = {
    "frac",
    "dfrac",
    "tfrac",
    "cfrac",
    "sqrt",
    "binom",
    "underbrace",
    "overbrace",
    "boxed",
    "overset",
    "underset",
    "stackrel",
    "bmod",
    "mathbb1",
    "over",
}
_DROP_ARGUMENT = {"label", "tag", "tag*", "hspace", "vspace", "phantom", "hphantom", "vphantom"}
_DROP_ARGUMENT |= {"color", "footnote", "hspace*"}

_SUBSCRIPTS = dict(
    zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ", "0123456789+-=()aehijklmnoprstuvxβγρφχ")
)
_SUPERSCRIPTS = dict(
    zip(
        "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂꟴ",
        "0123456789+-=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVWQ",
    )
)
_CHARACTERS = {
    "−": "-",
    "–": "-",
    "⋅": "·",
    "∙": "·",
    "•": "·",
    "∗": "*",
    "＊": "*",
    "⁎": "*",
    "÷": "/",
    "∕": "/",
    "⁄": "/",
    "○": "∘",
    "⨀": "⊙",
    "⟵": "←",
    "⟶": "→",
    "≝": "≜",
    "~": "∼",
    "∣": "|",
    "∥": "‖",
    "〈": "⟨",
    "〉": "⟩",
    "⟪": "⟨",
    "⟫": "⟩",
    "’": "'",
    "ϵ": "ε",
    "ϕ": "φ",
    "ϑ": "θ",
    "ɛ": "ε",
    "Ω": "Ω",
    "µ": "μ",
    "，": ",",
    "（": "(",
    "）": ")",
    "；": ";",
    "：": ":",
    "＝": "=",
    "＋": "+",
    "［": "[",
    "］": "]",
    "｜": "|",
    "、": ",",
}

# Words that people type without \mathrm; a run of letters equal to one of these is one symbol.
FUNCTIONS = {
    "softmax": "softmax",
    "logsoftmax": "log_softmax",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "gelu": "gelu",
    "silu": "silu",
    "swish": "swish",
    "tanh": "tanh",
    "exp": "exp",
    "log": "log",
    "ln": "log",
    "sqrt": "sqrt",
    "sin": "sin",
    "cos": "cos",
    "tan": "tan",
    "erf": "erf",
    "max": "max",
    "min": "min",
    "argmax": "argmax",
    "argmin": "argmin",
    "mean": "mean",
    "sum": "sum",
    "var": "Var",
    "std": "std",
    "softplus": "softplus",
    "concat": "concat",
    "cat": "concat",
    "concatenate": "concat",
    "diag": "diag",
    "rowsum": "rowsum",
    "trace": "trace",
    "tr": "trace",
    "sign": "sign",
    "abs": "abs",
    "norm": "norm",
    "transpose": "transpose",
    "rank": "rank",
    "det": "det",
    "logsumexp": "logsumexp",
    "clip": "clip",
    "floor": "floor",
    "ceil": "ceil",
    "sinh": "sinh",
    "cosh": "cosh",
    "cov": "Cov",
    "inv": "inv",
    "tril": "tril",
    "triu": "triu",
}
# Names that differ from a function by their capitals: layer normalisation is no logarithm.
_NOT_FUNCTIONS = {"LN", "Norm", "Ln"}
_WORDS = {
    "Attention", "attention", "attn", "Attn", "MultiHead", "MultiHeadAttention", "SelfAttention",
    "FFN", "MLP", "MHA", "MHSA", "MSA", "SDPA", "LayerNorm", "layernorm", "RMSNorm", "BatchNorm",
    "Norm", "Sublayer", "sublayer", "Softmax", "SoftMax", "ReLU", "GELU", "GeLU", "SiLU", "SwiGLU",
    "GLU", "GEGLU", "Concat", "scale", "mask", "Mask", "pos", "head", "heads", "model", "loss",
    "Loss", "Dropout", "dropout", "Linear", "Embedding", "output", "input", "hidden", "query",
    "key", "value", "score", "scores", "weights", "lrate", "step", "warmup", "MSE", "KL", "RMS",
    "batch", "seq", "dim", "PE", "LN", "TP", "TN", "FP", "FN", "BP", "GeGLU", "RoPE", "BERT", "CE",
    "BLEU", "PPL", "axis", "std", "eps", "True", "False", "None", "otherwise", "if",
}  # fmt: skip
SUBSCRIPT_WORDS = {
    "model", "head", "heads", "ff", "ffn", "max", "min", "in", "out", "hidden", "embed", "emb",
    "vocab", "seq", "key", "query", "value", "batch", "input", "output", "total", "train", "test",
    "ref", "step", "steps", "warmup", "num", "inner", "true", "pred", "layer", "layers",
}  # fmt: skip
_SPELLED_GREEK = {name: GREEK[name] for name in _GREEK_NAMES if name not in ("xi", "omicron")}
_SPELLED_GREEK |= {"eps": "ε"}
_SIZES_RUN_TOGETHER = {"dk", "dv", "dq", "dmodel", "dff"}
_INDEX_LETTERS = set("ijklmnpqrstuvwxyzabcdh")

_CJK = re.compile(r"[\u3400-\u9fff\u3040-\u30ff\uac00-\ud7af]+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+")
_SCIENTIFIC = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)[eE][+-]?\d+(?![A-Za-z])")


@dataclass(frozen=True)
class _Raw:
    text: str
    span: Span


def _lex(text: str, latex: bool, span: Span | None = None) -> list[_Raw]:
    """Split into control sequences and characters; a comment goes, a space stays."""
    out: list[_Raw] = []
    pos = 0
    while pos < len(text):
        char = text[pos]
        end = pos + 1
        if char == "\\":
            match = re.compile(r"\\(?:[A-Za-z]+\*?|.|$)", re.S).match(text, pos)
            assert match is not None
            end = match.end()
            token = match.group()
        elif char == "%" and latex:
            newline = text.find("\n", pos)
            pos = len(text) if newline < 0 else newline + 1
            continue
        elif char.isspace():
            while end < len(text) and text[end].isspace():
                end += 1
            token = " "
        else:
            token = char
        out.append(_Raw(token, span or (pos, end)))
        pos = end
    return out


_OLD_FONTS = {"\\rm": "\\mathrm", "\\bf": "\\mathbf", "\\it": "\\mathit", "\\sf": "\\mathsf",
              "\\tt": "\\mathtt", "\\cal": "\\mathcal", "\\sl": "\\mathit"}  # fmt: skip


def _modern(raw: list[_Raw]) -> list[_Raw]:
    r"""Write ``{\rm x}`` and ``\rm{x}`` as ``\mathrm{x}``."""
    out: list[_Raw] = []
    for index, token in enumerate(raw):
        font = _OLD_FONTS.get(token.text)
        after = raw[index + 1].text if index + 1 < len(raw) else ""
        if font is None:
            out.append(token)
        elif after == "{":
            out.append(_Raw(font, token.span))
        elif out and out[-1].text == "{":
            out[-1:] = [_Raw(font, token.span), out[-1]]
        else:
            out.append(token)
    return out


def _take_group(stack: list[_Raw], owner: _Raw) -> list[_Raw]:
    """Pop one macro argument from the reversed list of raw tokens."""
    while stack and stack[-1].text == " ":
        stack.pop()
    if not stack:
        raise CannotParse(f"{owner.text} lacks an argument", owner.span)
    first = stack.pop()
    if first.text != "{":
        return [first]
    depth = 1
    group: list[_Raw] = []
    while stack:
        token = stack.pop()
        depth += (token.text == "{") - (token.text == "}")
        if not depth:
            return group
        group.append(token)
    raise CannotParse(f"the argument of {owner.text} is not closed", first.span)


def _expand(raw: list[_Raw], macros: Mapping[str, Macro]) -> list[_Raw]:
    """Replace the user's macros; what they add keeps the span of the call."""
    out: list[_Raw] = []
    stack = raw[::-1]
    budget = MAX_EXPANSIONS
    while stack:
        token = stack.pop()
        macro = macros.get(token.text[1:]) if token.text[0] == "\\" else None
        if macro is None:
            out.append(token)
            continue
        arguments: list[list[_Raw]] = []
        if macro.default is not None:
            if stack and stack[-1].text == "[":
                stack.pop()
                given = []
                while stack and stack[-1].text != "]":
                    given.append(stack.pop())
                if stack:
                    stack.pop()
                arguments.append(given)
            else:
                arguments.append(_lex(macro.default, True, token.span))
        while len(arguments) < macro.arguments:
            arguments.append(_take_group(stack, token))
        body = _lex(macro.body, True, token.span)
        replacement: list[_Raw] = []
        position = 0
        while position < len(body):
            digit = body[position + 1].text if position + 1 < len(body) else ""
            if body[position].text == "#" and digit.isdigit():
                if not 1 <= int(digit) <= len(arguments):
                    raise CannotParse(f"{token.text} uses #{digit}, not an argument", token.span)
                replacement += arguments[int(digit) - 1]
                position += 2
            else:
                replacement.append(body[position])
                position += 1
        budget -= len(replacement) + 1
        if budget < 0:
            raise CannotParse(f"the macro {token.text} expands without end", token.span)
        stack += replacement[::-1]
    return out


def styled(letter: str, font: str) -> str:
    """Return the Unicode mathematical letter of a font.

    Examples
    --------
    >>> styled("R", "double"), styled("L", "script")
    ('ℝ', 'ℒ')
    """
    kinds = {"script": "SCRIPT", "double": "DOUBLE-STRUCK", "fraktur": "FRAKTUR", "bold": "BOLD"}
    if font not in kinds or len(letter) != 1:
        return letter
    if letter.isdigit():
        case = f"DIGIT {unicodedata.name(letter).split()[-1]}"
    elif letter.isascii() and letter.isalpha():
        case = f"{'CAPITAL' if letter.isupper() else 'SMALL'} {letter.upper()}"
    elif font == "bold" and unicodedata.name(letter, "").startswith("GREEK"):
        words = unicodedata.name(letter).split()
        case = f"{words[1]} {words[-1]}"
    else:
        return letter
    for form in (f"MATHEMATICAL {kinds[font]} {case}", f"{kinds[font]} {case}"):
        try:
            return unicodedata.lookup(form)
        except KeyError:
            continue
    return letter


def unstyled(letter: str) -> tuple[str, str]:
    """Return the plain letter and the font of a mathematical letter."""
    title = unicodedata.name(letter, "")
    if ord(letter) < 0x2100 or not (letter.isalpha() or letter.isdigit()):
        return letter, ""
    for word, font in (
        ("DOUBLE-STRUCK", "double"),
        ("SCRIPT", "script"),
        ("FRAKTUR", "fraktur"),
        ("BLACK-LETTER", "fraktur"),
        ("BOLD", "bold"),
        ("MATHEMATICAL", ""),
    ):
        if word in title and letter not in "ℓ":
            return unicodedata.normalize("NFKC", letter), font
    return letter, ""


class _Tokenizer:
    def __init__(self, raw: list[_Raw], latex: bool, choices: Choices) -> None:
        self.raw = raw
        self.latex = latex
        self.choices = choices
        self.pos = 0
        self.out: list[Token] = []
        self.font: list[str] = [""]
        self.braces: list[tuple[bool, bool]] = []  # (inside a subscript, pushed a font)
        self.depth = 0  # of delimiters, for \quad

    # -- helpers ----------------------------------------------------------------------
    def emit(self, kind: str, text: str, span: Span, spaced: bool = False) -> None:
        if len(self.out) >= MAX_TOKENS:
            raise CannotParse(f"more than {MAX_TOKENS} tokens in one formula", span)
        self.out.append(Token(kind, text, span, spaced, self.font[-1]))

    def skip_spaces(self) -> None:
        while self.pos < len(self.raw) and self.raw[self.pos].text == " ":
            self.pos += 1

    def group(self, owner: _Raw) -> list[_Raw]:
        """Read the raw tokens of the next braced group, or the next token alone."""
        self.skip_spaces()
        stack = self.raw[self.pos :][:MAX_TOKENS][::-1]
        before = len(stack)
        taken = _take_group(stack, owner)
        self.pos += before - len(stack)
        return taken

    def in_subscript(self) -> bool:
        if self.out and self.out[-1].kind == "_":
            return True
        return bool(self.braces) and self.braces[-1][0]

    # -- the loop ---------------------------------------------------------------------
    def run(self) -> list[Token]:
        spaced = False
        while self.pos < len(self.raw):
            token = self.raw[self.pos]
            self.pos += 1
            if token.text == " ":
                spaced = True
                continue
            if token.text[0] == "\\":
                self.command(token, spaced)
            else:
                self.character(token, spaced)
            spaced = False
        return self.out

    def command(self, token: _Raw, spaced: bool) -> None:
        name, span = token.text[1:], token.span
        size = _SIZES.match(name)
        if name == "\\":
            self.skip_spaces()
            if self.pos < len(self.raw) and self.raw[self.pos].text == "[":  # \\[2pt]
                close = next(
                    (i for i in range(self.pos, min(self.pos + 12, len(self.raw)))
                     if self.raw[i].text == "]"), None)  # fmt: skip
                inside = "".join(r.text for r in self.raw[self.pos + 1 : close or self.pos])
                if close and re.fullmatch(r"-?[\d.]+\s*(pt|em|ex|mm|cm)", inside):
                    self.pos = close + 1
            self.emit("newline", "\\\\", span, spaced)
        elif name in ("quad", "qquad"):
            if self.depth == 0 and not self.braces:
                self.emit("quad", "\\quad", span)
        elif name in _SPACING or name == "":
            if name == "" and self.pos >= len(self.raw):
                raise CannotParse("a lone backslash at the end", span)
        elif name in _DROP_ARGUMENT or name == "textcolor":
            self.group(token)
        elif name in ("left", "right", "middle") or (size and size.group(1)):
            side = name if name in ("left", "right", "middle") else ""
            side = side or {"l": "left", "r": "right", "m": "middle"}[size.group(1)]  # type: ignore[union-attr]
            self.delimiter(side, token, spaced)
        elif size:
            pass
        elif name in _UPRIGHT:
            self.upright(token, spaced)
        elif name in _FONTS:
            self.fonted(_FONTS[name], token, spaced)
        elif name in LETTERS:
            if name == "prime" and self.out and self.out[-1].kind != "^":
                self.emit("'", "'", span, spaced)
            else:
                self.emit("letter", LETTERS[name], span, spaced)
        elif name == "forall":
            self.emit("text", "for all", span, spaced)
        elif name in _OPERATORS:
            self.emit("op", _OPERATORS[name], span, spaced)
        elif name == "mid":
            self.emit("bar", "|", span, spaced)
        elif name in RELATIONS:
            self.emit("rel", RELATIONS[name], span, spaced)
        elif name in ("not",):
            self.skip_spaces()
            after = self.raw[self.pos].text if self.pos < len(self.raw) else ""
            negated = {"=": "≠", "\\in": "∉"}.get(after)
            if negated is None:
                raise CannotParse(f"\\not before {after or 'nothing'}", span)
            self.pos += 1
            self.emit("rel", negated, span, spaced)
        elif name in _ELLIPSES:
            self.emit("ellipsis", "…", span, spaced)
        elif name in _OPEN:
            self.depth += 1
            self.emit("open", _OPEN[name], span, spaced)
        elif name in _CLOSE:
            self.depth -= 1
            self.emit("close", _CLOSE[name], span, spaced)
        elif name in ("|", "Vert", "parallel"):
            self.emit("dbar", "‖", span, spaced)
        elif name == "vert":
            self.emit("bar", "|", span, spaced)
        elif name in COMMAND_FUNCTIONS:
            self.emit("func", COMMAND_FUNCTIONS[name], span, spaced)
        elif name in _BIG:
            self.emit("big", _BIG[name], span, spaced)
        elif name in ACCENTS:
            self.emit("accent", ACCENTS[name], span, spaced)
        elif name in ("begin", "end"):
            env = "".join(r.text for r in self.group(token))
            self.depth += (1 if name == "begin" else -1) * ("matrix" in env or env == "cases")
            self.emit(name, env, span, spaced)
        elif name in _COMMANDS:
            self.emit("cmd", "frac" if name.endswith("frac") else name, span, spaced)
        elif name == "%":
            self.emit("op", "%", span, spaced)
        elif name == "_":
            self.emit("word", "_", span, spaced)
        elif name in ("#", "$", "&"):
            raise CannotParse(f"a literal {name} in a formula", span)
        elif name in ("lg", "lim", "int", "iint", "oint", "limsup", "liminf"):
            raise CannotParse(f"\\{name} is not read by this parser", span)
        else:
            raise CannotParse(f"unknown command {token.text}", span)

    def delimiter(self, side: str, owner: _Raw, spaced: bool) -> None:
        self.skip_spaces()
        if self.pos >= len(self.raw):
            raise CannotParse(f"{owner.text} without a delimiter", owner.span)
        raw = self.raw[self.pos]
        self.pos += 1
        table = _OPEN | _CLOSE | {"|": "‖", "Vert": "‖", "vert": "|"}
        text = table.get(raw.text[1:], "") if raw.text[0] == "\\" else raw.text
        text = _CHARACTERS.get(text, text)
        if text not in ("(", ")", "[", "]", "{", "}", "⟨", "⟩", "⌊", "⌋", "⌈", "⌉", "|", "‖", ".", "<", ">", "/"):  # fmt: skip  # noqa: E501
            raise CannotParse(f"{owner.text} before {raw.text}, not a delimiter", raw.span)
        text = {"<": "⟨", ">": "⟩"}.get(text, text)
        span = (owner.span[0], max(raw.span[1], owner.span[1]))
        if side == "middle" or text == "/":
            self.emit({"|": "bar", "‖": "dbar", "/": "op"}.get(text, "bar"), text, span, spaced)
            return
        self.depth += 1 if side == "left" else -1
        self.emit("open" if side == "left" else "close", text, span, spaced)

    def upright(self, owner: _Raw, spaced: bool) -> None:
        r"""Read ``\mathrm{word}``: letters make one symbol, anything else is mathematics."""
        start = self.pos
        group = self.group(owner)
        plain = "".join({"\\,": " ", "\\ ": " ", "\\_": "_", "\\-": "-", "~": " ", "\\;": " "}
                        .get(r.text, r.text) for r in group)  # fmt: skip
        end = max([owner.span[1]] + [r.span[1] for r in group])
        if self.pos > start and self.raw[self.pos - 1].text == "}":
            end = max(end, self.raw[self.pos - 1].span[1])
        span = (owner.span[0], end)
        function = owner.text.startswith("\\operatorname")
        if function:
            plain = re.sub(r"\s+", "", plain.replace("\\!", ""))
            if plain in ("\\argmax", "\\arg\\max"):
                plain = "argmax"
            if plain in ("\\argmin", "\\arg\\min"):
                plain = "argmin"
        if not re.search(r"[\\{}$^&%#]", plain) and (
            "_" not in plain or re.fullmatch(r"[A-Za-z]\w*", plain)
        ):
            self.word(plain, owner, span, spaced, function)
            return
        # mathematics inside: read it as a group
        self.raw[self.pos : self.pos] = [_Raw("{", owner.span), *group, _Raw("}", owner.span)]

    def word(self, plain: str, owner: _Raw, span: Span, spaced: bool, function: bool) -> None:
        stripped = plain.strip()
        if not stripped:
            return
        if re.fullmatch(r"\d+(\.\d+)?", stripped):
            self.emit("number", stripped, span, spaced)
        elif stripped in ("+", "-", "/", "*"):
            self.emit("op", stripped, span, spaced)
        elif stripped in ("=", "<", ">"):
            self.emit("rel", stripped, span, spaced)
        elif set(stripped) <= set(",;.:"):
            if stripped in (",", ";"):
                self.emit("comma", ",", span, spaced)
        elif function:
            self.emit("func", canonical_function(stripped), span, spaced)
        elif owner.text == "\\mathop" and stripped in COMMAND_FUNCTIONS:
            self.emit("func", COMMAND_FUNCTIONS[stripped], span, spaced)
        elif len(stripped) == 1:
            kind = "letter"
            self.out.append(Token(kind, stripped, span, spaced, "upright"))
        elif re.fullmatch(r"[^\W\d_](?:[\w\-’']*)", stripped) and not is_connector(stripped):
            self.emit("word", stripped, span, spaced)
        else:
            self.emit("text", re.sub(r"\s+", " ", stripped), span, spaced)

    def fonted(self, font: str, owner: _Raw, spaced: bool) -> None:
        self.skip_spaces()
        if self.pos >= len(self.raw):
            raise CannotParse(f"{owner.text} lacks an argument", owner.span)
        if self.raw[self.pos].text != "{":
            first = self.raw[self.pos]
            self.pos += 1
            self.font.append(font)
            if first.text[0] == "\\":
                self.command(first, spaced)
            else:
                self.one(first.text, (owner.span[0], first.span[1]), spaced)
            self.font.pop()
            return
        group = self.group(owner)
        letters = [r for r in group if r.text != " "]
        span = (owner.span[0], self.raw[self.pos - 1].span[1])
        joined = "".join(r.text for r in letters)
        if len(letters) == 1 and letters[0].text[0] != "\\":
            self.font.append(font)
            self.one(joined, span, spaced)
            self.font.pop()
        elif len(letters) == 1 and letters[0].text[1:] in LETTERS:
            self.font.append(font)
            self.emit("letter", LETTERS[letters[0].text[1:]], span, spaced)
            self.font.pop()
        elif font == "bold" and joined.isalpha() and len(joined) > 2:
            self.emit("word", joined, span, spaced)
        else:
            self.font.append(font)
            self.raw[self.pos : self.pos] = [
                _Raw("{", (span[0], span[0])),
                *group,
                _Raw("\0", span),  # the font ends here
                _Raw("}", (span[1], span[1])),
            ]

    def one(self, char: str, span: Span, spaced: bool) -> None:
        if char.isdigit() and self.font[-1] in ("double", "bold") and char in "01":
            self.emit("letter" if self.font[-1] == "double" else "number", char, span, spaced)
        elif char.isdigit():
            self.emit("number", char, span, spaced)
        elif char.isalpha():
            self.emit("letter", char, span, spaced)
        else:
            self.character(_Raw(char, span), spaced)

    def character(self, token: _Raw, spaced: bool) -> None:
        char, span = token.text, token.span
        if char == "\0":
            if len(self.font) > 1:
                self.font.pop()
                return
            raise CannotParse("a NUL character", span)
        if char == "~" and self.latex:
            return
        char = _CHARACTERS.get(char, char)
        if char in _SUBSCRIPTS or char in _SUPERSCRIPTS:
            self.raised(char, span, spaced)
            return
        if char == "{":
            inside = (bool(self.out) and self.out[-1].kind == "_") or self.in_subscript()
            self.braces.append((inside, False))
            self.emit("{", "{", span, spaced)
        elif char == "}":
            if not self.braces:
                raise CannotParse("a } closes nothing", span)
            self.braces.pop()
            self.emit("}", "}", span, spaced)
        elif char in "([⟨⌊⌈":
            self.depth += 1
            self.emit("open", char, span, spaced)
        elif char in ")]⟩⌋⌉":
            self.depth -= 1
            self.emit("close", char, span, spaced)
        elif char in "^_&":
            self.emit(char, char, span, spaced)
        elif char == "'" or char == "′":
            self.emit("'", "'", span, spaced)
        elif char == "|":
            following = self.raw[self.pos].text if self.pos < len(self.raw) else ""
            if following == "|" and self.raw[self.pos].span != span:
                self.pos += 1
                self.emit("dbar", "‖", (span[0], span[1] + 1), spaced)
            else:
                self.emit("bar", "|", span, spaced)
        elif char == "‖":
            self.emit("dbar", "‖", span, spaced)
        elif char in ",;":
            self.emit("comma" if char == "," else "semi", char, span, spaced)
        elif char == "…" or char == "⋯" or char == "⋮" or char == "⋱":
            self.emit("ellipsis", "…", span, spaced)
        elif char == "√":
            self.emit("root", "√", span, spaced)
        elif char in ("∑", "Σ") and (char == "∑" or self._followed_by_script() or self._sums()):
            self.emit("big", "sum", span, spaced)
        elif char in ("∏", "Π") and (char == "∏" or self._followed_by_script()):
            self.emit("big", "prod", span, spaced)
        elif char == "⊤":
            kind = "letter" if self.out and self.out[-1].kind in ("^", "{", "op") else "transpose"
            self.emit(kind, "⊤", span, spaced)
        elif char in ":=<>!-":
            self.compound(char, span, spaced)
        elif char in _RELATION_CHARACTERS:
            self.emit("rel", char, span, spaced)
        elif char in "+-*/·×⊙∘⊗⊕±∓@%∖":
            if char == "*" and self.pos < len(self.raw) and self.raw[self.pos].text == "*":
                self.pos += 1
                self.emit("^", "^", (span[0], span[1] + 1), spaced)
            else:
                self.emit("op", char, span, spaced)
        elif char.isdigit() or char == ".":
            self.number(token, spaced)
        elif _CJK.match(char):
            self.run_of(lambda c: bool(_CJK.match(c)), token, spaced, "word")
        elif char.isascii() and char.isalpha():
            self.letters(token, spaced)
        elif char in "∂∇∞∀∅†⊥ℏ" or char.isalpha():
            plain, font = unstyled(char)
            if char in "∂∇∞∀∅†⊥ℏ":
                plain, font = char, ""
            self.font.append(font or self.font[-1])
            self.emit("letter", plain, span, spaced)
            self.font.pop()
        elif unicodedata.combining(char) and self.out and self.out[-1].kind == "letter":
            self.out[-1] = replace(self.out[-1], text=self.out[-1].text + char)
        elif char in "\u200b\u2061\u2062\u2063\ufeff":  # invisible separators
            pass
        elif unicodedata.normalize("NFKC", char) != char:
            for piece in unicodedata.normalize("NFKC", char):
                if piece != char and piece.isascii() and piece.isprintable():
                    self.character(_Raw(piece, span), spaced)
                elif not piece.isspace():
                    raise CannotParse(f"the character {char!r} has no meaning here", span)
        else:
            raise CannotParse(f"the character {char!r} has no meaning here", span)

    def _sums(self) -> bool:
        """Whether a capital sigma in plain text is the sum of what stands after it."""
        following = self.raw[self.pos].text if self.pos < len(self.raw) else ""
        after = self.raw[self.pos + 1].text if self.pos + 1 < len(self.raw) else ""
        if self.latex or not (following.isalpha() or (following == " " and after.isalpha())):
            return False
        return self.choices.pick("capital sigma", "Σ is a sum", "Σ is a matrix") == 0

    def _followed_by_script(self) -> bool:
        following = self.raw[self.pos].text if self.pos < len(self.raw) else ""
        return following == "_" or following in _SUBSCRIPTS

    def compound(self, char: str, span: Span, spaced: bool) -> None:
        """Read ``:= == <= >= != -> <-`` and their first characters alone."""
        following = self.raw[self.pos].text if self.pos < len(self.raw) else ""
        pair = {":=": "≔", "==": "=", "<=": "≤", ">=": "≥", "!=": "≠", "->": "→", "=>": "⇒"}.get(
            char + following
        )
        if char + following == "<-" and not self.latex:
            pair = "←"
        if pair:
            self.pos += 1
            self.emit("rel", pair, (span[0], span[1] + 1), spaced)
        elif char in "=<>":
            self.emit("rel", char, span, spaced)
        elif char == ":":
            self.emit("colon", ":", span, spaced)
        else:
            self.emit("op", char, span, spaced)

    def number(self, token: _Raw, spaced: bool) -> None:
        start = self.pos - 1
        text = ""
        index = start
        while (
            index < len(self.raw)
            and len(self.raw[index].text) == 1
            and (self.raw[index].text in "0123456789." or (self.raw[index].text in "eE+-"))
        ):
            text += self.raw[index].text
            index += 1
        scientific = _SCIENTIFIC.match(text)
        if scientific is not None and self.latex:  # 1e-5 typed in LaTeX
            notes = (f"{scientific.group()} is one number", "e is Euler's number")
            if self.choices.pick(f"number {scientific.group()}", *notes) == 1:
                scientific = None
        match = scientific or _NUMBER.match(text)
        if text.startswith("..."):
            self.pos = start + 3
            self.emit("ellipsis", "…", (token.span[0], self.raw[start + 2].span[1]), spaced)
            return
        if match is None:
            if token.text == "." and all(r.text in " }," for r in self.raw[self.pos :]):
                return  # the full stop of the sentence
            raise CannotParse(f"{token.text!r} is not a number", token.span)
        value = match.group()
        if len(value) > 60:
            raise CannotParse("a number of more than 60 digits", token.span)
        self.pos = start + len(value)
        while self._thousands():
            value += "".join(r.text for r in self.raw[self.pos + 3 : self.pos + 6])
            self.pos += 6
        if len(value) > 1 and value.isdigit() and self._after_frac():  # \\frac12 is a half
            value = value[0]
            self.pos = start + 1
        one_digit = self.latex and self.out and self.out[-1].kind in ("^", "_") and value.isdigit()
        if one_digit and len(value) > 1:  # x^10 is x^1 0 for TeX, and rarely meant
            key = f"digits:{value}"
            notes = (f"{value} is one number", f"as TeX typesets it, only {value[0]} is raised")
            if self.choices.pick(key, *notes) == 1:
                value = value[0]
                self.pos = start + 1
        self.emit("number", value, (token.span[0], self.raw[self.pos - 1].span[1]), spaced)

    def _after_frac(self) -> bool:
        r"""Whether a bare argument of ``\frac`` starts here."""
        last = [t.text if t.kind == "cmd" else t.kind for t in self.out[-2:]]
        return bool(last) and (last[-1] == "frac" or last == ["frac", "number"])

    def _thousands(self) -> bool:
        """Whether ``{,}ddd`` follows, TeX's thousands separator."""
        ahead = "".join(r.text for r in self.raw[self.pos : self.pos + 7])
        return bool(re.match(r"\{,\}\d{3}(?!\d)", ahead))

    def run_of(self, belongs: object, token: _Raw, spaced: bool, kind: str) -> None:
        end = self.pos
        while end < len(self.raw) and _CJK.match(self.raw[end].text):
            end += 1
        text = token.text + "".join(r.text for r in self.raw[self.pos : end])
        span = (token.span[0], self.raw[end - 1].span[1] if end > self.pos else token.span[1])
        self.pos = end
        self.emit("text" if is_connector(text) else kind, text, span, spaced)

    def raised(self, char: str, span: Span, spaced: bool) -> None:
        """Read a run of Unicode sub- or superscripts as one script."""
        table, mark = (_SUBSCRIPTS, "_") if char in _SUBSCRIPTS else (_SUPERSCRIPTS, "^")
        text, spans = table[char], [span]
        while self.pos < len(self.raw) and self.raw[self.pos].text in table:
            text += table[self.raw[self.pos].text]
            spans.append(self.raw[self.pos].span)
            self.pos += 1
        whole = (spans[0][0], spans[-1][1])
        if text == "T" and mark == "^":
            self.emit("transpose", "⊤", whole, spaced)
            return
        self.emit(mark, mark, whole, spaced)
        pieces = [_Raw(c, s) for c, s in zip(text, spans)]
        self.raw[self.pos : self.pos] = [_Raw("{", whole), *pieces, _Raw("}", whole)]

    def letters(self, token: _Raw, spaced: bool) -> None:
        """Split a run of Latin letters into words and single symbols."""
        end = self.pos
        limit = min(len(self.raw), self.pos + 80)
        while (
            end < limit
            and len(self.raw[end].text) == 1
            and self.raw[end].text.isascii()
            and (self.raw[end].text.isalpha())
        ):
            end += 1
        raws = [token, *self.raw[self.pos : end]]
        while end + 1 < limit and self.raw[end].text == r"\_" and self.raw[end + 1].text.isalnum():
            end += 1  # step\_num is one identifier
            while end < limit and len(self.raw[end].text) == 1 and self.raw[end].text.isalnum():
                end += 1
        if r"\_" in {r.text for r in self.raw[self.pos : end]}:
            whole = token.text + "".join(r.text.lstrip("\\") for r in self.raw[self.pos : end])
            self.pos = end
            self.emit("word", whole, (token.span[0], self.raw[end - 1].span[1]), spaced)
            return
        run = "".join(r.text for r in raws)
        following = next((r.text for r in self.raw[end : end + 2] if r.text != " "), "")
        paren = following in ("(", "\\left", "（") or following.startswith("\\big")
        script = self.out[-1].kind if self.out and self.out[-1].kind in "^_" else ""
        greek = _SPELLED_GREEK.get(run)
        if greek and script != "^" and (len(run) > 2 or not self.latex):
            self.pos += len(run) - 1
            self.emit("letter", greek, (token.span[0], raws[-1].span[1]), spaced)
            return
        if run in _SIZES_RUN_TOGETHER and not script and not self.in_subscript():
            notes = (f"{run} is d_{run[1:]}", f"{run} is a product of letters")
            if self.choices.pick(f"size {run}", *notes) == 0:
                span = (token.span[0], raws[-1].span[1])
                self.pos += len(run) - 1
                self.emit("letter", "d", span, spaced)
                self.emit("_", "_", span)
                self.emit("{", "{", span)
                self.emit("letter" if len(run) == 2 else "word", run[1:], span)
                self.emit("}", "}", span)
                return
        pieces = self.split(run, paren, script)
        offset = 0
        for index, piece in enumerate(pieces):
            part = raws[offset : offset + len(piece)]
            span = (part[0].span[0], part[-1].span[1])
            kind = "letter" if len(piece) == 1 else "word"
            if kind == "word" and is_connector(piece) and not self.in_subscript():
                kind = "text"
            self.emit(kind, piece, span, spaced and index == 0)
            offset += len(piece)
        self.pos += len(run) - 1

    def split(self, run: str, paren: bool, script: str) -> list[str]:
        if len(run) == 1 or self.font[-1] in ("double", "script", "fraktur"):
            return list(run)
        if script == "_":
            return self.split_script(run)
        if script == "^":  # TeX raises one letter; so does plain text for ^T and ^n
            if run.lower() in FUNCTIONS or run in _WORDS:
                return [run]
            return list(run[:1]) + (self.split(run[1:], paren, "") if len(run) > 1 else [])
        if self.in_subscript():
            label = run in SUBSCRIPT_WORDS and len(run) > 2
            short = len(run) <= 3 and set(run) <= _INDEX_LETTERS and not label
            return list(run) if short or len(run) == 2 else [run]
        if run in _WORDS or (run.lower() in FUNCTIONS and (paren or len(run) > 2)):
            return [run]
        if is_connector(run):
            return [run]
        if paren:
            for size in range(len(run) - 1, 1, -1):
                tail = run[-size:]
                if tail in _WORDS or (tail in FUNCTIONS and size > 2):
                    return [*self.split(run[:-size], False, ""), tail]
        if run.isupper() and len(run) <= 3 and not paren:
            return list(run)
        if len(run) == 2:
            return list(run)
        if not re.fullmatch(r"[A-Z]?[a-z]+|[A-Z]{4,}", run) and len(run) < 5 and not paren:
            return list(run)  # BAx
        product, one = f"{run} is a product of letters", f"{run} is one symbol"
        if len(run) > 3 or paren:
            return [list(run), [run]][1 - self.choices.pick(f"word:{run}", one, product)]
        return [list(run), [run]][self.choices.pick(f"word:{run}", product, one)]

    def split_script(self, run: str) -> list[str]:
        """Split the letters right after ``_``: the first piece is the subscript."""
        if not self.latex:
            prefix = re.match(r"[a-z]+|[A-Z]", run)
            assert prefix is not None
            first, rest = prefix.group(), run[prefix.end() :]
            return [first, *(self.split(rest, False, "") if rest else [])]
        word = next((w for w in sorted(SUBSCRIPT_WORDS, key=len)[::-1]
                     if len(w) > 2 and run.startswith(w)), None)  # fmt: skip
        if word:
            notes = (f"_{word} is one subscript", f"as TeX typesets it, only {run[0]} is lowered")
            if self.choices.pick(f"sub:{word}", *notes) == 0:
                rest = run[len(word) :]
                return [word, *(self.split(rest, False, "") if rest else [])]
        return [run[0], *self.split(run[1:], False, "")]


_CONNECTORS = {
    "where", "with", "if", "for", "and", "when", "otherwise", "else", "or", "so", "then", "as",
    "such that", "s.t.", "subject to", "for all", "for each", "hence", "therefore", "thus",
    "其中", "当", "否则", "且", "如果", "对于", "和", "即", "若",
}  # fmt: skip


def is_connector(text: str) -> bool:
    """Whether an upright text joins two statements (``where``, ``if``, ...)."""
    return text.strip(" ,.:;，。").lower() in _CONNECTORS


def canonical_function(name: str) -> str:
    """Return the one spelling of a function's name.

    Examples
    --------
    >>> canonical_function("SoftMax"), canonical_function("LayerNorm")
    ('softmax', 'LayerNorm')
    """
    if name in _NOT_FUNCTIONS:
        return name
    return FUNCTIONS.get(name.lower(), COMMAND_FUNCTIONS.get(name, name))


def tokenize(
    text: str, choices: Choices | None = None, macros: Mapping[str, Macro] | None = None
) -> list[Token]:
    r"""Split a formula into tokens.

    Parameters
    ----------
    text : str
        LaTeX or Unicode, at most 20,000 characters.
    choices : Choices, optional
        Where the text can be split in two ways, the way to take.
    macros : mapping of str to Macro, optional
        The user's commands, by name without the backslash.

    Returns
    -------
    list of Token

    Raises
    ------
    CannotParse
        At a command or a character that no table knows.

    Examples
    --------
    >>> [t.text for t in tokenize(r"QK^T / \sqrt{d_k}")]
    ['Q', 'K', '^', 'T', '/', 'sqrt', '{', 'd', '_', 'k', '}']
    """
    if len(text) > MAX_LENGTH:
        raise CannotParse(f"a formula of {len(text)} characters; the limit is {MAX_LENGTH}")
    latex = "\\" in text or "{" in text
    raw = _modern(_lex(text, latex)) if latex else _lex(text, latex)
    if macros:
        raw = _expand(raw, macros)
    return _Tokenizer(raw, latex, choices or Choices()).run()
