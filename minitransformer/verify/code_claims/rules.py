"""What every rule works with: a module, its place in the document, and who holds what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from minitransformer.verify.code_claims.module import Call, Module, constant, dotted
from minitransformer.verify.code_claims.signatures import (
    REQUIRED,
    SIGNATURES,
)
from minitransformer.verify.extraction import Code
from minitransformer.verify.verdict import Finding, Place, Verdict


@dataclass
class Rules:
    document: str
    code: Code
    module: Module

    def place(self, node: ast.AST) -> Place:
        line = self.code.line + getattr(node, "lineno", 1) - 1
        text = self.code.text.split("\n")[getattr(node, "lineno", 1) - 1].strip()
        return Place(self.document, line, text[:300])

    def value(self, call: Call, parameter: str) -> Any:
        if parameter in call.bound:
            return constant(call.bound[parameter], self.module.constants)
        default = SIGNATURES[call.name][parameter]
        return None if default is REQUIRED else default

    def finding(
        self, node: ast.AST, verdict: Verdict, reading: str, explanation: str, **more: Any
    ) -> Finding:
        return Finding(self.place(node), verdict, reading=reading, explanation=explanation, **more)


def attributes(rules: Rules, kinds: frozenset[str]) -> dict[str, Call]:
    """Return the names (``self.x`` or ``x``) that hold a module of some kind."""
    by_node = {id(c.node): c for c in rules.module.calls if c.name in kinds}
    held: dict[str, Call] = {}
    for node in ast.walk(rules.module.tree):
        if isinstance(node, ast.Assign) and id(node.value) in by_node:
            for target in node.targets:
                name = dotted(target)
                if name:
                    held[name] = by_node[id(node.value)]
    return held


def calls_of(rules: Rules, names: dict[str, Call]) -> Iterator[tuple[ast.Call, Call]]:
    for node in ast.walk(rules.module.tree):
        if isinstance(node, ast.Call):
            held = names.get(dotted(node.func))
            if held is not None:
                yield node, held
