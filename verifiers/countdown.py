"""The expression of a response to a Countdown problem: from the given numbers, is its value the target?

Where the expression stands, the first that applies:

1. between the last ``<answer>`` and ``</answer>``, or the end of the response, where a stop string cut the closing tag
2. after the last ``####``, to the end of the line, if a digit, a parenthesis or a minus sign follows (else it is a
   heading)
3. on the last line that ends in ``= target``: what stands before, back to the first character of no expression
   (``So (60 + 43) + 48 = 151.``, ``**60 + 43 + 48 = 151**``)

The grammar is closed, and nothing is ever evaluated by Python's own parser::

    sum      product (("+" | "-") product)*
    product  factor (("*" | "/") factor)*
    factor   ["-"] (digits | "(" sum ")")

``×``, ``÷``, ``−`` and ``–`` count as ``*``, ``/`` and ``-``; blanks may stand between numbers and signs, a full stop
at the end. ``sum = sum`` is a claim: the first is the expression, and all must have the target as their value.
Arithmetic is exact: ``1 / 3 * 3`` is 1.

``unparsed``: no expression is found, or what stands there is none by the grammar (powers, decimals, words, ``1 2``,
``++``, nothing before ``=``), is longer than 500 characters or nested deeper than 50. ``wrong``: a number that was not
given, or used more often than given, or (under ``use_all``) left out; a division by zero; another value than the
target; a claim that is false.

What stands before ``</think>`` is no answer; a response that never closes ``<think>`` has none.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

from selftrain.types import Problem, Verdict
from selftrain.verifiers.reasoning import after_thinking

MAX_CHARACTERS = 500
MAX_DEPTH = 50
_SIGNS = str.maketrans("×÷−–", "*/--")
_GRAMMAR = "0123456789+-*/()= \t"
_TOKEN = re.compile(r"\s*([0-9]+|[-+*/()=])")
_BULLET = re.compile(r"\s*-\s+")
_WORD_END = re.compile(r"[\w.,^]")


@dataclass(frozen=True)
class Countdown:
    """Right where the response's expression uses numbers of ``problem.answer`` and has its target as value.

    The gold answer is ``{"nums": [60, 48, 43], "target": 151}``, with ``"use_all": true`` where every number must be
    used. Any other gold answer gives ``error``.
    """

    def __call__(self, problem: Problem, response: str) -> Verdict:
        game = _game(problem.answer)
        if game is None:
            return Verdict("error", reason=f"the gold answer is no Countdown problem: {str(problem.answer)[:80]!r}")
        written = _final(after_thinking(response), game.target)
        if written is None:
            return Verdict("unparsed", 0.0, reason="no final expression")
        try:
            claim = _read(written)
        except _NoExpression as error:
            return Verdict("unparsed", 0.0, reason=str(error))
        fault = game.fault(claim)
        return Verdict("wrong" if fault else "right", float(not fault), claim.text, fault)


class _Claim(NamedTuple):
    text: str
    """The expression without blanks, so that equal ones can be counted; the whole claim where it is false."""
    numbers: list[int]
    """Those of the expression, before any equals sign."""
    values: list[Fraction | None]
    """Of the expression, and of what it is said to equal; None: division by zero."""


class _Game(NamedTuple):
    numbers: Counter[int]
    target: int
    use_all: bool

    def fault(self, claim: _Claim) -> str | None:
        """Why an expression does not solve the problem; None where it does."""
        used = Counter(claim.numbers)
        if over := used - self.numbers:
            return f"uses {_listed(over)} beyond the given numbers"
        if self.use_all and (left := self.numbers - used):
            return f"leaves out {_listed(left)}"
        if None in claim.values:
            return "divides by zero"
        if claim.values[0] != self.target:
            return f"is {str(claim.values[0])[:40]}, not {self.target}"
        return None if len(set(claim.values)) == 1 else "claims to equal what it does not"


class _NoExpression(ValueError):
    """What stands at the answer's place is no expression by the grammar."""


def _game(answer: Any) -> _Game | None:
    if not isinstance(answer, dict) or not isinstance(answer.get("nums"), (list, tuple)):
        return None
    numbers, target, use_all = answer["nums"], answer.get("target"), answer.get("use_all", False)
    if not numbers or any(type(number) is not int for number in numbers) or not isinstance(use_all, bool):
        return None
    return _Game(Counter(numbers), target, use_all) if type(target) is int else None


def _listed(numbers: Counter[int]) -> str:
    return ", ".join(str(number)[:40] for number in sorted(numbers.elements())[:6])


def _final(text: str, target: int) -> str | None:
    """The text at the answer's place."""
    _, tag, answer = text.rpartition("<answer>")
    if tag:
        return answer.partition("</answer>")[0]
    _, mark, rest = text.rpartition("####")
    line = rest.lstrip(" \t").partition("\n")[0]
    if mark and line[:1] and line[0] in "0123456789(-−–":
        return line
    return _before_target(text.translate(_SIGNS), str(target))


def _before_target(text: str, target: str) -> str | None:
    """The claim on the last line that ends in ``= target``."""
    for line in reversed(text.split("\n")):
        before, equals, value = line.rpartition("=")
        if not equals or value.strip(" \t\r*$.`") != target:
            continue
        bullet = _BULLET.match(before)
        before = before[bullet.end() :] if bullet else before
        start = len(before.rstrip(_GRAMMAR))
        if _WORD_END.search(before[:start][-1:]) and not before[start : start + 1].isspace():
            start -= 1  # What follows belongs to a word or a decimal, as in x2 or 1.5, which the grammar refuses.
        claim = before[start:].lstrip(" \t*")
        if any(character.isdigit() for character in claim):
            return f"{claim}={target}"
    return None


def _read(written: str) -> _Claim:
    text = written.strip().removesuffix(".").rstrip().translate(_SIGNS)
    if len(text) > MAX_CHARACTERS:
        raise _NoExpression(f"the expression has more than {MAX_CHARACTERS} characters")
    parser = _Parser(_tokens(text))
    values = [parser.sum()]
    end, numbers = parser.at, list(parser.numbers)
    while parser.take("="):
        values.append(parser.sum())
    if parser.next:
        raise _NoExpression(f"unexpected {parser.next!r} in {text[:80]!r}")
    return _Claim("".join(parser.tokens[: end if len(set(values)) == 1 else None]), numbers, values)


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _NoExpression(f"{text[at:].strip()[:20]!r} in {text[:80]!r} belongs to no expression")
        tokens.append(match[1])
        at = match.end()
    return tokens


@dataclass
class _Parser:
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
                raise _NoExpression(f"parentheses are nested deeper than {MAX_DEPTH}")
            value = self.sum()
            if not self.take(")"):
                raise _NoExpression("a parenthesis is not closed")
            self.depth -= 1
            return value
        if not self.next.isdigit():
            raise _NoExpression(f"expected a number before {self.next!r}" if self.next else "the expression ends early")
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
