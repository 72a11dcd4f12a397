"""Arithmetic on whole numbers by a closed grammar; nothing is ever evaluated by Python's own parser.

::

    sum      product (("+" | "-") product)*
    product  factor (("*" | "/") factor)*
    factor   ["-"] (digits | "(" sum ")")
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

MAX_DEPTH = 50
_TOKEN = re.compile(r"\s*([0-9]+|[-+*/()=])")


class NoExpression(ValueError):
    """What stands there is no expression by the grammar."""


def tokens(text: str) -> list[str]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise NoExpression(f"{text[at:].strip()[:20]!r} in {text[:80]!r} belongs to no expression")
        found.append(match[1])
        at = match.end()
    return found


@dataclass
class Parser:
    """Recursive descent over the grammar above, one method a rule; a value is None once something divides by zero."""

    tokens: list[str]
    at: int = 0
    depth: int = 0
    numbers: list[int] = field(default_factory=list)

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        """The next token, left behind, if it is one of these; else an empty string."""
        token = self.next if self.next in wanted else ""
        self.at += bool(token)
        return token

    def sum(self) -> Fraction | None:
        value = self.product()
        while sign := self.take("+", "-"):
            value = _apply(sign, value, self.product())
        return value

    def product(self) -> Fraction | None:
        value = self.factor()
        while sign := self.take("*", "/"):
            value = _apply(sign, value, self.factor())
        return value

    def factor(self) -> Fraction | None:
        if self.take("-"):
            return _apply("-", Fraction(0), self.positive())
        return self.positive()

    def positive(self) -> Fraction | None:
        if self.take("("):
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise NoExpression(f"parentheses are nested deeper than {MAX_DEPTH}")
            value = self.sum()
            if not self.take(")"):
                raise NoExpression("a parenthesis is not closed")
            self.depth -= 1
            return value
        if not self.next.isdigit():
            raise NoExpression(f"expected a number before {self.next!r}" if self.next else "the expression ends early")
        self.numbers.append(int(self.next))
        self.at += 1
        return Fraction(self.numbers[-1])


def _apply(sign: str, left: Fraction | None, right: Fraction | None) -> Fraction | None:
    if left is None or right is None or (sign == "/" and right == 0):
        return None
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
    return left / right
