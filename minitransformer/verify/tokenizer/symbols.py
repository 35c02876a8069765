r"""LaTeX's commands and Unicode's characters, and the one token that each of them is.

`COMMANDS` and `CHARACTERS` give kind and text; what needs more than a look-up (groups,
fonts, delimiters, scripts) is in `commands` and `characters`.
"""

from __future__ import annotations


def listed(names: str) -> list[str]:
    """Split a table of names written as one text."""
    return names.split()


_GREEK_NAMES = listed("""
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma
    tau upsilon phi chi psi omega
""")
GREEK = dict(zip(_GREEK_NAMES, "αβγδεζηθικλμνξοπρστυφχψω"))
# Greek letters whose names people type in plain text; xi and omicron are too often products.
SPELLED_GREEK = {n: g for n, g in GREEK.items() if n not in ("xi", "omicron")} | {"eps": "ε"}
GREEK |= {k.capitalize(): v.upper() for k, v in list(GREEK.items())}
LETTERS = GREEK | {
    "varepsilon": "ε", "varphi": "φ", "vartheta": "θ", "varsigma": "σ", "varrho": "ρ",
    "varpi": "π", "ell": "ℓ", "infty": "∞", "top": "⊤", "intercal": "⊤", "dagger": "†",
    "hbar": "ℏ", "imath": "ı", "jmath": "ȷ", "emptyset": "∅", "varnothing": "∅", "Re": "ℜ",
    "Im": "ℑ", "aleph": "ℵ", "prime": "′", "partial": "∂", "nabla": "∇", "checkmark": "✓",
    "perp": "⊥", "bot": "⊥",
}  # fmt: skip
_OPERATORS = {
    "cdot": "·", "cdotp": "·", "bullet": "·", "times": "×", "odot": "⊙", "circ": "∘",
    "otimes": "⊗", "oplus": "⊕", "ast": "*", "star": "*", "div": "/", "setminus": "∖",
    "pm": "±", "mp": "∓", "%": "%",
}  # fmt: skip
RELATIONS = {
    "leq": "≤", "le": "≤", "leqslant": "≤", "geq": "≥", "ge": "≥", "geqslant": "≥", "lt": "<",
    "gt": ">", "neq": "≠", "ne": "≠", "approx": "≈", "sim": "∼", "simeq": "≃", "cong": "≅",
    "equiv": "≡", "propto": "∝", "in": "∈", "notin": "∉", "ni": "∋", "subset": "⊂",
    "subseteq": "⊆", "to": "→", "rightarrow": "→", "longrightarrow": "→", "mapsto": "↦",
    "leftarrow": "←", "gets": "←", "Rightarrow": "⇒", "Longrightarrow": "⇒", "implies": "⇒",
    "iff": "⇔", "Leftrightarrow": "⇔", "ll": "≪", "gg": "≫", "triangleq": "≜", "coloneqq": "≔",
    "doteq": "≐", "lesssim": "≲", "gtrsim": "≳", "asymp": "≍",
}  # fmt: skip
NEGATED = {"=": "≠", "\\in": "∉"}  # what \not may stand before
_ELLIPSES = listed("ldots cdots dots vdots ddots dotsc dotsb dotsm hdots")
_OPEN = {"lbrace": "{", "{": "{", "langle": "⟨", "lfloor": "⌊", "lceil": "⌈", "lVert": "‖",
         "lvert": "|", "lbrack": "[", "lparen": "("}  # fmt: skip
_CLOSE = {"rbrace": "}", "}": "}", "rangle": "⟩", "rfloor": "⌋", "rceil": "⌉", "rVert": "‖",
          "rvert": "|", "rbrack": "]", "rparen": ")"}  # fmt: skip
_BARS = {"|": "‖", "Vert": "‖", "parallel": "‖", "vert": "|", "mid": "|"}
BAR_KINDS = {"|": "bar", "‖": "dbar"}
# What may stand after \left, \right and \middle, by its command.
DELIMITERS = {**_OPEN, **_CLOSE, "|": "‖", "Vert": "‖", "vert": "|"}
DELIMITER_CHARACTERS = frozenset("()[]{}⟨⟩⌊⌋⌈⌉|‖.<>/")
ACCENTS = {
    "hat": "\u0302", "widehat": "\u0302", "tilde": "\u0303", "widetilde": "\u0303",
    "bar": "\u0304", "overline": "\u0304", "dot": "\u0307", "ddot": "\u0308",
    "check": "\u030c", "breve": "\u0306", "acute": "\u0301", "grave": "\u0300",
    "underline": "\u0332",
}  # fmt: skip
COMMAND_FUNCTIONS = {
    name: name
    for name in listed("""
    exp log sin cos tan sinh cosh tanh arctan arcsin arccos det dim ker max min sup inf arg argmax
    argmin Pr gcd softmax Var Cov diag sigmoid
""")
} | {"ln": "log", "tr": "trace", "Tr": "trace", "sgn": "sign", "ReLU": "relu"}
_STRUCTURES = listed("""
    frac dfrac tfrac cfrac sqrt binom underbrace overbrace boxed overset underset stackrel bmod
    over
""")
UNREAD = frozenset(["lg", "lim", "int", "iint", "oint", "limsup", "liminf"])


def _commands() -> dict[str, tuple[str, str]]:
    """Join the tables above: command without its backslash to kind and text."""
    table = {name: ("letter", text) for name, text in LETTERS.items()}
    table |= {name: ("op", text) for name, text in _OPERATORS.items()}
    table |= {name: ("rel", text) for name, text in RELATIONS.items()}
    table |= dict.fromkeys(_ELLIPSES, ("ellipsis", "…"))
    table |= {name: ("open", text) for name, text in _OPEN.items()}
    table |= {name: ("close", text) for name, text in _CLOSE.items()}
    table |= {name: (BAR_KINDS[text], text) for name, text in _BARS.items()}
    table |= {name: ("func", text) for name, text in COMMAND_FUNCTIONS.items()}
    table |= {name: ("accent", text) for name, text in ACCENTS.items()}
    table |= {n: ("cmd", "frac" if n.endswith("frac") else n) for n in _STRUCTURES}
    return table | {"sum": ("big", "sum"), "prod": ("big", "prod"), "forall": ("text", "for all"),
                    "_": ("word", "_")}  # fmt: skip


COMMANDS = _commands()

# -- commands that are no token themselves ------------------------------------------------
SPACING = frozenset(",;:! /") | frozenset(
    listed("""
    displaystyle textstyle scriptstyle limits nolimits nonumber notag hfill thinspace medspace
    enspace negthinspace allowbreak nobreak strut mathstrut centering bf rm it hline smallskip
    medskip noindent
""")
)
DROP_ARGUMENT = frozenset(
    listed("""
    label tag tag* hspace hspace* vspace phantom hphantom vphantom color textcolor footnote
""")
)
UPRIGHT = frozenset(
    listed("""
    mathrm operatorname operatorname* text textrm textnormal mathsf mathtt texttt textsf textbf
    textit mathit mbox hbox mathop textsc emph
""")
)

# -- characters ---------------------------------------------------------------------------
SUBSCRIPTS = dict(
    zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ", "0123456789+-=()aehijklmnoprstuvxβγρφχ")
)
SUPERSCRIPTS = dict(
    zip(
        "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂꟴ",
        "0123456789+-=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVWQ",
    )
)
# Characters that look alike, and the one that is meant.
LOOKALIKES = {
    "−": "-", "–": "-", "⋅": "·", "∙": "·", "•": "·", "∗": "*", "＊": "*", "⁎": "*", "÷": "/",
    "∕": "/", "⁄": "/", "○": "∘", "⨀": "⊙", "⟵": "←", "⟶": "→", "≝": "≜", "~": "∼", "∣": "|",
    "∥": "‖", "〈": "⟨", "〉": "⟩", "⟪": "⟨", "⟫": "⟩", "’": "'", "′": "'", "ϵ": "ε", "ϕ": "φ",
    "ϑ": "θ", "ɛ": "ε", "Ω": "Ω", "µ": "μ", "，": ",", "（": "(", "）": ")", "；": ";", "：": ":",
    "＝": "=", "＋": "+", "［": "[", "］": "]", "｜": "|", "、": ",",
}  # fmt: skip
# Relations of two characters; the second column of the keyboard's mathematics.
PAIRS = {":=": "≔", "==": "=", "<=": "≤", ">=": "≥", "!=": "≠", "->": "→", "=>": "⇒", "<-": "←"}
SPECIAL_LETTERS = frozenset("∂∇∞∀∅†⊥ℏ")
INVISIBLE = frozenset("\u200b\u2061\u2062\u2063\ufeff")


def _characters() -> dict[str, tuple[str, str]]:
    """Return the characters that are always the same token, with its kind and text."""
    table = {c: ("rel", c) for c in {*RELATIONS.values(), "="}}
    table |= {c: ("op", c) for c in "+-/·×⊙∘⊗⊕±∓@%∖!"}
    table |= {c: ("open", c) for c in "([⟨⌊⌈"}
    table |= {c: ("close", c) for c in ")]⟩⌋⌉"}
    table |= {c: (c, c) for c in "^_&'"}
    table |= dict.fromkeys("…⋯⋮⋱", ("ellipsis", "…"))
    return table | {"‖": ("dbar", "‖"), ",": ("comma", ","), ";": ("semi", ";"),
                    ":": ("colon", ":"), "√": ("root", "√"), "∑": ("big", "sum"),
                    "∏": ("big", "prod")}  # fmt: skip


CHARACTERS = _characters()
