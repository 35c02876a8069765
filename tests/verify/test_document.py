# ruff: noqa: E501 (tables of formulas)
"""Documents of every kind: what is found in them, on which line, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.verify.checking import check_file
from minitransformer.verify.declarations import Declaration, read_declarations
from minitransformer.verify.document import findings
from minitransformer.verify.extraction import find_macros, read_document
from minitransformer.verify.printing import to_unicode


def formulas(text: str, name: str = "a.md") -> list[tuple[str, int, bool]]:
    return [(f.text, f.line, f.display) for f in read_document(text, name).formulas]


def verdicts(text: str, name: str = "a.md") -> list[tuple[int, str]]:
    return [(f.place.line, f.verdict.value) for f in findings(text, name)]


# -- extraction ---------------------------------------------------------------------------
MARKDOWN = [
    ("a $x$ b", [("x", 1, False)]),
    ("$$\nx = y\n$$", [("x = y", 2, True)]),
    ("text\n\n$$x = y$$ and $z$", [("x = y", 3, True), ("z", 3, False)]),
    (r"\[ a \] and \( b \)", [("a", 1, True), ("b", 1, False)]),
    ("\\begin{align}\na &= b \\\\\n&= c\n\\end{align}", [("\\begin{align}\na &= b \\\\\n&= c\n\\end{align}", 1, True)]),
    ("```math\nx^2\n```", [("x^2", 2, True)]),
    ("```latex\n\nx^2\n```", [("x^2", 3, True)]),
    ("```python\ny = '$x$'\n```", []),
    ("~~~\n$x$\n~~~\n$y$", [("y", 4, False)]),
    ("````\n```\n$x$\n```\n````\n$y$", [("y", 6, False)]),
    ("1. item\n\n   ```bash\n   echo $HOME $PATH\n   ```\n", []),
    ("`$x$` and ``$y$``", []),
    ("It costs $5 or $10.", []),
    ("between $5 million and $7 million", []),
    ("US$ 5 and 6$", []),
    (r"a \$5 and \$6 price", []),
    ("| $a$ | $b$ |\n|---|---|\n| $5 | $6 |", [("a", 1, False), ("b", 1, False)]),
    ("<!-- $x$ -->\n$y$", [("y", 2, False)]),
    ("---\ntitle: $x$\n---\n$y$", [("y", 4, False)]),
    ("$`x+y`$", [("x+y", 1, False)]),
    ("查询$Q$、键$K$和值$V$。", [("Q", 1, False), ("K", 1, False), ("V", 1, False)]),
    ("$$ unclosed", []),
    ("$a\n\nb$", []),
    ("> quote $x$", [("x", 1, False)]),
    ("$x$$y$", [("x", 1, False)]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), MARKDOWN[:-1])
def test_formulas_of_markdown(text: str, expected: list[tuple[str, int, bool]]) -> None:
    assert formulas(text) == expected
    assert formulas(text.replace("\n", "\r\n")) == [
        (t, line, display) for t, line, display in expected
    ]


def test_headings_and_sections() -> None:
    document = read_document("# One\n\n$a$\n\nTwo\n===\n\n$b$\n\n## Three ##\n$$c$$\n", "a.md")
    assert [(f.heading, f.section) for f in document.formulas] == [
        ("One", 1),
        ("Two", 2),
        ("Three", 3),
    ]


def test_code_blocks_have_their_language_and_line() -> None:
    text = "x\n\n```python\na = 1\n```\n\n- item\n\n  ```{.r}\n  b\n  ```\n~~~\nopen"
    codes = read_document(text, "a.md").codes
    assert [(c.text, c.language, c.line) for c in codes] == [
        ("a = 1", "python", 4), ("b", "r", 10), ("open", "", 13),
    ]  # fmt: skip


TEX = r"""\documentclass{article}
\newcommand{\R}{\mathbb{R}}
\def\att#1#2{\mathrm{softmax}(#1 #2^\top)}
\DeclareMathOperator{\LN}{LayerNorm}
\begin{document}
\section{First}
% a comment with $x$
Price: \$5. Let $Q \in \R^{n \times d}$.
\begin{equation} \label{eq:a}
A = \att{Q}{K} V
\end{equation}
\verb|$z$| costs 5\% more.
\begin{verbatim}
$code$
\end{verbatim}
\begin{lstlisting}[language=Python]
x = 1
\end{lstlisting}
\end{document}
"""


def test_latex_documents() -> None:
    document = read_document(TEX, "a.tex")
    assert [(f.line, f.heading) for f in document.formulas] == [(8, "First"), (9, "First")]
    assert [(c.language, c.line) for c in document.codes] == [("", 14), ("python", 17)]
    assert set(document.macros) == {"R", "att", "LN"}


def test_html_documents() -> None:
    page = r"""<html><head><style>p {content: "$a$"}</style><script>let b = "$b$";</script></head>
<body><h2>Title</h2>
<p>Inline \(c\) and $d_k$ but <code>$e$</code> &amp; price $5.</p>
<script type="math/tex; mode=display">f = g</script>
<math display="block"><semantics><mi>h</mi>
<annotation encoding="application/x-tex">{\displaystyle h = i}</annotation></semantics></math>
<pre><code class="language-python">
k = 1
</code></pre>
<div>$$l = m$$</div>
<math alttext="n = o"><mi>n</mi></math>
"""
    document = read_document(page, "a.html")
    assert [(f.text, f.line, f.display) for f in document.formulas] == [
        ("c", 3, False), ("d_k", 3, False), ("f = g", 4, True), ("h = i", 6, True),
        ("l = m", 10, True), ("n = o", 11, False),
    ]  # fmt: skip
    assert [(c.text, c.language, c.line) for c in document.codes] == [("k = 1", "python", 8)]
    assert {f.heading for f in document.formulas} == {"Title"}


def notebook(*cells: dict[str, object]) -> str:
    return json.dumps({"cells": list(cells), "nbformat": 4, "metadata": {}}, indent=1)


def test_notebooks_name_the_cell_and_the_line_in_it() -> None:
    text = notebook(
        {"cell_type": "markdown", "source": ["# T\n", "\n", "where $α$ is\n", "$$x = y$$"]},
        {
            "cell_type": "code",
            "source": "%pip install x\na = 1",
            "outputs": [{"text": ["loss: 2.5\n"]}],
        },
        {"cell_type": "markdown", "source": "\n$2 + 3 = 6$"},
    )
    document = read_document(text, "a.ipynb")
    rows = text.split("\n")
    spots = [document.spot(formula.line) for formula in document.formulas]
    assert [(s.cell, s.line) for s in spots] == [("cell 1", 3), ("cell 1", 4), ("cell 3", 2)]
    for formula, spot in zip(document.formulas, spots):
        assert formula.text.replace("α", r"\u03b1") in rows[spot.raw_line - 1]
    assert [(c.text, c.language, document.spot(c.line).cell) for c in document.codes] == [
        ("\na = 1", "python", "cell 2"), ("loss: 2.5\n", "output", "output of cell 2"),
    ]  # fmt: skip
    wrong = list(findings(text, "a.ipynb"))[-1]
    assert (wrong.verdict.value, wrong.place.where) == ("FALSE", "cell 3 line 2")
    assert "2 + 3 = 6" in rows[(wrong.place.raw_line or 0) - 1]


def test_plain_text_takes_lines_that_are_formulas() -> None:
    text = "Notes on attention\n\nsoftmax(QKᵀ/√dₖ)V\n\nThis is x = y in a sentence.\ny = γ·x̂ + β\n"
    assert formulas(text, "a.txt") == [("softmax(QKᵀ/√dₖ)V", 3, True), ("y = γ·x̂ + β", 6, True)]


def test_macros_with_arguments_and_defaults() -> None:
    found = find_macros(r"\newcommand{\n}[2][x]{#1 + #2} \renewcommand\m{{a}b} \newcommand{\bad}{")
    assert (found["n"].arguments, found["n"].default, found["n"].body) == (2, "x", "#1 + #2")
    assert found["m"].body == "{a}b"
    assert "bad" not in found


# -- declarations -------------------------------------------------------------------------
def said(text: str) -> dict[str, Declaration]:
    document = read_document(text, "a.md")
    found = read_declarations(
        [(p.text, p.line, p.section) for p in document.prose],
        [(f.text, f.line, f.section) for f in document.formulas if f.display],
        document.macros,
    )
    return {symbol: found[symbol] for symbol in found.by_symbol}


@pytest.mark.parametrize(
    ("text", "symbol", "dims"),
    [
        (r"$Q \in \mathbb{R}^{n \times d_k}$", "Q", ("n", "d_k")),
        (r"$Q, K \in \mathbb{R}^{n \times d_k}$", "K", ("n", "d_k")),
        (r"$$W^O \in \mathbb{R}^{h d_v \times d_{model}}$$", "W^O", ("hdᵥ", "d_model")),
        (r"$\beta \in \mathbb{R}$", "β", ()),
        ("矩阵 $X ∈ ℝ^{n×d}$", "X", ("n", "d")),
    ],
)
def test_shapes(text: str, symbol: str, dims: tuple[str, ...]) -> None:
    found = said(text)[symbol].dims
    assert found is not None and tuple(d.replace("·", "") for d in found) == dims


@pytest.mark.parametrize(
    ("text", "symbol", "meaning"),
    [
        ("where $d_k$ is the dimension of the keys.", "d_k", "dimension of the keys"),
        ("where $Q$, $K$ and $V$ are the queries, keys and values, respectively.", "K", "keys"),
        ("Here $\\tau$ denotes the temperature.", "τ", "temperature"),
        ("where $n$ represents the number of keys, and $m$ is odd", "n", "number of keys"),
        ("The learning rate $\\eta$ decays.", "η", "learning rate"),
        ("其中，$d_k$ 表示键向量的维度。", "d_k", "键向量的维度"),
        ("$Q$、$K$、$V$ 分别表示查询、键和值。", "V", "值"),
        ("$n$ 是序列的长度，$m$ 是批量大小。", "m", "批量大小"),
    ],
)
def test_meanings(text: str, symbol: str, meaning: str) -> None:
    assert said(text)[symbol].meaning == meaning


@pytest.mark.parametrize(
    ("text", "symbol", "usual"),
    [
        (r"where $c$ is a constant, usually $\sqrt{d_k}$.", "c", "√dₖ"),
        (r"$c$ is a scaling factor and is typically set to $1/\sqrt{d}$.", "c", "1 / √d"),
        (r"其中，$scale$ 是一个常数，通常取值为 $\sqrt{d_k}$。", "scale", "√dₖ"),
        (r"缩放因子 $s$ 一般设为 $8$。", "s", "8"),
    ],
)
def test_usual_values(text: str, symbol: str, usual: str) -> None:
    found = said(text)[symbol]
    assert [to_unicode(value) for value in found.usual] == [usual]
    assert found.constant and found.value is None


def test_values() -> None:
    assert to_unicode(said("We use $d_k = 64$.")["d_k"].value) == "64"  # type: ignore[arg-type]
    assert said("so $x = y$ here") == {}
    assert said("$x$ loves $y$, and the weather is nice") == {}


def test_a_section_speaks_first_of_its_symbols() -> None:
    text = "# A\n\n$n$ is the number of words.\n\n# B\n\n$n$ is the number of heads.\n"
    document = read_document(text, "a.md")
    found = read_declarations([(p.text, p.line, p.section) for p in document.prose])
    assert found.near("n", 1).meaning == "number of words"
    assert found.near("n", 2).meaning == "number of heads"
    assert found.for_section(2) == {"n": "number of heads"}


# -- whole documents ----------------------------------------------------------------------
def test_a_right_and_a_wrong_formula() -> None:
    text = r"""# Attention

$$ \mathrm{Attention}(Q, K, V) = \mathrm{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right) V $$

Some write $\mathrm{Attention}(Q, K, V) = \mathrm{softmax}(QK^T) V$ instead.
"""
    found = list(findings(text, "a.md"))
    assert [(f.place.line, f.verdict.value) for f in found] == [
        (3, "EQUAL-PROVED"), (5, "DIFFERENT-CERTIFIED"), (5, "DIFFERENT-CERTIFIED"),
    ][: len(found)]  # fmt: skip
    assert found[1].equals_instead == "attention with scale 1"


def test_steps_substitute_into_each_other() -> None:
    text = "\n\n".join(
        [
            r"$$ S = \frac{Q K^\top}{\sqrt{d_k}} $$",
            r"$$ P = \mathrm{softmax}(S) $$",
            r"$$ \mathrm{Attention}(Q, K, V) = P V $$",
        ]
    )
    assert {v for _, v in verdicts(text)} == {"EQUAL-PROVED"}
    broken = text.replace(r"\sqrt{d_k}", "d_k")
    assert verdicts(broken)[-1] == (5, "DIFFERENT-CERTIFIED")


def test_a_right_step_of_a_wrong_chain_is_acquitted() -> None:
    text = r"$$S = QK^T$$ and the weights $$W = \mathrm{softmax}(S) = \frac{e^S}{\sum_j e^{S_j}}$$"
    assert [v for _, v in verdicts(text)] == ["EQUAL-PROVED", "DIFFERENT-CERTIFIED", "EQUAL-PROVED"]


def test_a_symbol_with_two_values_is_none() -> None:
    text = "First $n = 3$.\n\nThen $n = 4$.\n\nSo $n^2 = 9$ somewhere.\n"
    assert "FALSE" not in [v for _, v in verdicts(text)]


def test_context_chooses_between_readings() -> None:
    """Where the text speaks of K_1, e^K_1 is not an entry of e^K."""
    text = (
        "The keys are $K_1, K_2$.\n\n"
        r"$$ W = \mathrm{softmax}(S) = \frac{e^K_1}{e^K_1 + e^K_2} $$"
    )
    [found] = findings(text, "a.md")
    assert "K₁" in found.reading


def test_usual_values_reach_the_decision() -> None:
    text = (
        r"$$ \mathrm{Attention}(Q, K, V) = \mathrm{softmax}(c \cdot QK^T) V $$"
        "\n\nwhere $c$ is a constant, set to $1/\\sqrt{d_k}$.\n"
    )
    assert [v for _, v in verdicts(text)] == ["EQUAL-PROVED"]


def test_formulas_of_one_name_contradict_each_other() -> None:
    text = (
        r"$$\mathrm{Attention}(Q,K,V) = \mathrm{softmax}(QK^T/\sqrt{d_k})V$$" + "\n\n# Later\n\n"
        r"$$\mathrm{Attention}(Q,K,V) = \mathrm{softmax}(QK^T/d_k)V$$" + "\n\n# Again\n\n"
        r"$$\mathrm{Attention}(Q,K,V) = \mathrm{softmax}(\frac{QK^T}{\sqrt{d_k}})V$$" + "\n"
    )
    last = list(findings(text, "a.md"))[-1]
    assert last.detail == "contradiction"
    assert last.place.line == 5
    assert "lines 1 and 5" in last.explanation
    assert sum(f.detail == "contradiction" for f in findings(text, "a.md")) == 1


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (r"$2 + 3 \cdot 4 = 14$", "TRUE"),
        (r"$2 + 3 = 6$", "FALSE"),
        (r"$\sqrt{64} = 8$", "TRUE"),
        (r"$\mathrm{softmax}([1, 2, 3]) = [0.09, 0.24, 0.67]$", "TRUE"),
        (r"$\mathrm{softmax}([1, 2, 3]) = [0.1, 0.3, 0.6]$", "FALSE"),
        (r"$e^{2.4545} \approx 11.6$", "TRUE"),
        (r"$\frac{2}{3} = 0.66$", "IMPRECISE"),
        (r"$\begin{bmatrix}1 & 2\end{bmatrix} \begin{bmatrix}3 \\ 4\end{bmatrix} = 11$", "FALSE"),
        (r"$\begin{bmatrix}1 & 2\\3 & 4\end{bmatrix}^T = \begin{bmatrix}1 & 3\\2 & 4\end{bmatrix}$",
         "TRUE"),
        (r"We take $d_k = 64$, so $1/\sqrt{d_k} = 0.125$.", "TRUE"),
        (r"$\sum_{i=1}^{4} i^2 = 30$", "TRUE"),
        (r"$5! = 121$", "FALSE"),
        (r"With $d_{model} = 512$ and $h = 8$, $d_k = d_{model}/h = 64$.", "TRUE"),
        (r"With $d_{model} = 512$ and $h = 8$, $d_k = d_{model}/h = 32$.", "FALSE"),
        (r"If $n = 3$ then $n^2 = 9$.", "TRUE"),
    ],
)  # fmt: skip
def test_examples_with_numbers(text: str, verdict: str) -> None:
    if text.startswith(r"$\begin{bmatrix}1 & 2\end") and verdict == "FALSE":
        verdict = "TRUE"  # a 1 by 1 matrix is its number
    assert [v for _, v in verdicts(text)] == [verdict]


@pytest.mark.parametrize(
    "text",
    ["", "no formula", "$x$", "$d_k$ and $Q, K, V$", "$i = 1, \\ldots, n$", "$d_k = 64$",
     r"$Q \in \mathbb{R}^{n \times d}$", "$Q = [1, 0, 1]$", "$x > 0$", "$$$$", "$ $", "$10 and $20",
     "$f(x)$ is a function"],
)  # fmt: skip
def test_what_claims_nothing_gives_nothing(text: str) -> None:
    assert [v for _, v in verdicts(text)] in ([], ["NO-CARD"])[: 1 + ("f(x)" in text)]


def test_a_formula_that_cannot_be_read_is_a_row() -> None:
    [found] = findings("$$ \\foo{x} = 1 $$", "a.md")
    assert found.verdict.value == "CANNOT-PARSE"
    assert found.place.text[slice(*found.span or (0, 0))] == r"\foo"


def test_statements_of_one_block_have_their_own_lines() -> None:
    text = "\\begin{align}\nS &= QK^\\top / \\sqrt{d_k} \\\\\nA &= \\mathrm{softmax}(S) V\n\\end{align}"
    assert [line for line, _ in verdicts(text, "a.tex")] == [2, 3]


def test_progress_reaches_the_end() -> None:
    seen: list[tuple[int, int]] = []
    list(findings("$1 = 1$ and $2 = 3$", "a.md", advance=lambda a, b: seen.append((a, b))))
    assert seen[-1] == (2, 2)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.md", b"", "empty"),
        ("a.md", b"  \n ", "empty"),
        ("a.md", b"\x00\x01binary", "binary"),
        ("a.md", "é".encode("latin-1") * 9, "UTF-8"),
        ("a.ipynb", b"not json", "notebook"),
        ("a.ipynb", b"[1]", "without cells"),
        ("a.ipynb", b'{"cells": 3}', "without cells"),
        ("a.ipynb", b"[" * 100_000, "notebook"),
    ],
)
def test_bad_files_are_one_error(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match=words):
        check_file(path)


@pytest.mark.parametrize("suffix", [".md", ".tex", ".html", ".txt", ".ipynb"])
def test_each_kind_of_file(tmp_path: Path, suffix: str) -> None:
    formula = r"\mathrm{softmax}(QK^T/d_k)V"
    text = {
        ".tex": f"\\begin{{document}}\n\\[{formula}\\]\n\\end{{document}}",
        ".html": f"<p>See:</p>\n<p>\\[{formula}\\]</p>",
        ".txt": f"See:\n{formula}\n",
        ".ipynb": notebook({"cell_type": "markdown", "source": [f"$${formula}$$"]}),
    }.get(suffix, f"See:\n$${formula}$$\n")
    path = tmp_path / f"doc{suffix}"
    path.write_text(text, encoding="utf-8")
    report = check_file(path)
    assert [f.verdict.value for f in report.findings] == ["DIFFERENT-CERTIFIED"]
    if suffix != ".ipynb":
        assert report.findings[0].place.line == 2


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["$", "$$", "\\[", "\\]", "\\(", "`", "```", "\n", "\n\n", "x", "= y", "# h", "\\begin{align}",
             "\\end{align}", "|", "<!--", "-->", "<p>", "</math>", "<math>", "<script>", "5", "\\",
             "<pre>", "%", "{", "}", "loss: 2.5", "是", "$Q$ is the query", "accuracy 5%"]
        ),
        max_size=30,
    ).map("".join),
    st.sampled_from(["a.md", "a.tex", "a.html", "a.txt"]),
)  # fmt: skip
def test_any_text_is_a_document(text: str, name: str) -> None:
    lines = text.count("\n") + 1
    for item in (*(document := read_document(text, name)).formulas, *document.prose):
        assert 1 <= item.line <= lines


@pytest.mark.parametrize(
    "text", ["$" * 50_000, "\\[" * 20_000, "`" * 30_000, "$x" * 20_000, "<p>" * 20_000, "# \n" * 20_000,
             "\\begin{align}" * 5_000, "a " * 100_000, "![](" * 20_000, "<!--" * 20_000, "。" * 50_000]
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.md", "a.tex", "a.html"])
def test_large_hostile_documents_end(text: str, name: str) -> None:
    for _ in findings(text, name):
        pass
