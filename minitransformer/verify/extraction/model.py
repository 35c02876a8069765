"""What a document is made of: formulas, code and prose, each with its line."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace

from minitransformer.verify.tokenizer import Macro
from minitransformer.verify.verdict import Place


@dataclass(frozen=True)
class Formula:
    """A formula: its text without delimiters, where it stands and what surrounds it."""

    text: str
    line: int
    end_line: int
    display: bool
    heading: str = ""
    section: int = 0  # counts headings, to tell one section's symbols from another's


@dataclass(frozen=True)
class Code:
    """A block of code or of its output; ``line`` is the line of its first line."""

    text: str
    language: str
    line: int
    heading: str = ""
    section: int = 0


@dataclass(frozen=True)
class Prose:
    """A paragraph, its formulas kept between single dollars."""

    text: str
    line: int
    heading: str = ""
    section: int = 0
    breaks: tuple[int, ...] = ()  # where the text went on in a new line

    def line_of(self, fragment: str) -> int:
        """Return the line on which a part of the paragraph starts."""
        position = max(0, self.text.find(fragment.strip()))
        return self.line + bisect_right(self.breaks, position)  # breaks are in order


@dataclass(frozen=True)
class Spot:
    """Where a line of a notebook stands: its cell, its line there and in the file's JSON."""

    cell: str
    line: int
    raw_line: int


@dataclass
class Document:
    """Everything that can be checked in one file, in reading order.

    Lines are counted in the file, or in a notebook through all its cells laid end to end;
    `spots` then says where each of them stands.
    """

    name: str
    formulas: list[Formula] = field(default_factory=list)
    codes: list[Code] = field(default_factory=list)
    prose: list[Prose] = field(default_factory=list)
    macros: dict[str, Macro] = field(default_factory=dict)
    spots: list[Spot] = field(default_factory=list)
    unread: dict[int, str] = field(default_factory=dict)  # line of a code block: why

    def spot(self, line: int) -> Spot:
        """Return where a line stands; outside notebooks that is the line itself."""
        if not self.spots:
            return Spot("", line, line)
        return self.spots[min(max(line, 1), len(self.spots)) - 1]

    def located(self, place: Place) -> Place:
        """Return a place in the reader's terms: the cell of a notebook and the line in it."""
        if not self.spots:
            return place
        first = self.spot(place.line)
        last = None if place.end_line is None else self.spot(place.end_line).line
        return replace(
            place, line=first.line, end_line=last, cell=first.cell, raw_line=first.raw_line
        )

    def say(self, lines: list[int], joint: str = ", ") -> str:
        """Name some lines in the reader's terms.

        Examples
        --------
        >>> Document("a.md").say([3]), Document("a.md").say([3, 5])
        ('line 3', 'lines 3, 5')
        """
        if not self.spots:
            return f"line{'' if len(lines) == 1 else 's'} {joint.join(map(str, lines))}"
        return joint.join(f"{s.cell} line {s.line}" for s in map(self.spot, lines))
