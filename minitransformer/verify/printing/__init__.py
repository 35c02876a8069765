"""Trees to text: canonical LaTeX, a Unicode line, and MathML.

The LaTeX is what `parser.parse` reads back as the same tree; the Unicode line is the
typed reading that a report echoes; the MathML is for the HTML page and can mark one
sub-expression.
"""

from minitransformer.verify.printing.latex import to_latex
from minitransformer.verify.printing.mathml import to_mathml
from minitransformer.verify.printing.unicode import rows_in_brackets, to_unicode

__all__ = ["rows_in_brackets", "to_latex", "to_mathml", "to_unicode"]
