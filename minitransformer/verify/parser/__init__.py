"""Formula text to trees: one tree per reading, each with a note that says how it was read.

`grammar` is the spine of a precedence-climbing parser over the tokens of `tokenizer`; the
constructs hang on it in files of their own, in the order that `cursor` gives. `facts` says
which letters are indices, `readings` runs the parser once for every way that the text can be
read. Text with Python's marks (``@``, ``.T``, ``**``, ``np.``) goes to `python_formula`.
Whatever can be read in two ways is read in both; whatever cannot be read is a `CannotParse`
with its span.
"""

from minitransformer.verify.parser.calls import CALL_LETTERS
from minitransformer.verify.parser.facts import LABELLED, index_closure
from minitransformer.verify.parser.readings import Reading, parse
from minitransformer.verify.tokenizer import CannotParse, Macro

__all__ = [
    "CALL_LETTERS",
    "LABELLED",
    "CannotParse",
    "Macro",
    "Reading",
    "index_closure",
    "parse",
]
