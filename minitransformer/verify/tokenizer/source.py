r"""Text to raw tokens: control sequences and characters, with the user's macros expanded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from minitransformer.verify.tokenizer.fonts import OLD_FONTS
from minitransformer.verify.tokenizer.tokens import CannotParse, Macro, Span

MAX_EXPANSIONS = 2_000  # tokens that macros may add
_CONTROL = re.compile(r"\\(?:[A-Za-z]+\*?|.|$)", re.S)


@dataclass(frozen=True)
class Raw:
    """A control sequence, a character, or one space for any white space."""

    text: str
    span: Span


def lex(text: str, latex: bool, span: Span | None = None) -> list[Raw]:
    """Split into control sequences and characters; a comment goes, a space stays."""
    out: list[Raw] = []
    pos = 0
    while pos < len(text):
        char = text[pos]
        end = pos + 1
        if char == "\\":
            match = _CONTROL.match(text, pos)
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
        out.append(Raw(token, span or (pos, end)))
        pos = end
    return out


def modern(raw: list[Raw]) -> list[Raw]:
    r"""Write ``{\rm x}`` and ``\rm{x}`` as ``\mathrm{x}``."""
    out: list[Raw] = []
    for index, token in enumerate(raw):
        font = OLD_FONTS.get(token.text)
        after = raw[index + 1].text if index + 1 < len(raw) else ""
        if font is None:
            out.append(token)
        elif after == "{":
            out.append(Raw(font, token.span))
        elif out and out[-1].text == "{":
            out[-1:] = [Raw(font, token.span), out[-1]]
        else:
            out.append(token)
    return out


def take_group(stack: list[Raw], owner: Raw) -> list[Raw]:
    """Pop one argument of a command from the reversed list of raw tokens."""
    while stack and stack[-1].text == " ":
        stack.pop()
    if not stack:
        raise CannotParse(f"{owner.text} lacks an argument", owner.span)
    first = stack.pop()
    if first.text != "{":
        return [first]
    depth = 1
    group: list[Raw] = []
    while stack:
        token = stack.pop()
        depth += (token.text == "{") - (token.text == "}")
        if not depth:
            return group
        group.append(token)
    raise CannotParse(f"the argument of {owner.text} is not closed", first.span)


def expand(raw: list[Raw], macros: Mapping[str, Macro]) -> list[Raw]:
    """Replace the user's macros; what they add keeps the span of the call."""
    out: list[Raw] = []
    stack = raw[::-1]
    budget = MAX_EXPANSIONS
    while stack:
        token = stack.pop()
        macro = macros.get(token.text[1:]) if token.text[0] == "\\" else None
        if macro is None:
            out.append(token)
            continue
        replacement = _filled(macro, _arguments(macro, stack, token), token)
        budget -= len(replacement) + 1
        if budget < 0:
            raise CannotParse(f"the macro {token.text} expands without end", token.span)
        stack += replacement[::-1]
    return out


def _arguments(macro: Macro, stack: list[Raw], owner: Raw) -> list[list[Raw]]:
    """Pop a macro's arguments; the first may be optional."""
    arguments: list[list[Raw]] = []
    if macro.default is not None and stack and stack[-1].text == "[":
        stack.pop()
        given = []
        while stack and stack[-1].text != "]":
            given.append(stack.pop())
        if stack:
            stack.pop()
        arguments.append(given)
    elif macro.default is not None:
        arguments.append(lex(macro.default, True, owner.span))
    while len(arguments) < macro.arguments:
        arguments.append(take_group(stack, owner))
    return arguments


def _filled(macro: Macro, arguments: list[list[Raw]], owner: Raw) -> list[Raw]:
    """Put the arguments in the places of ``#1``, ``#2``, ... of a macro's body."""
    out: list[Raw] = []
    body = lex(macro.body, True, owner.span)[::-1]
    while body:
        raw = body.pop()
        if raw.text != "#" or not (body and body[-1].text.isdigit()):
            out.append(raw)
            continue
        digit = int(body.pop().text)
        if not 1 <= digit <= len(arguments):
            raise CannotParse(f"{owner.text} uses #{digit}, not an argument", owner.span)
        out += arguments[digit - 1]
    return out
