r"""The expression of a response to a Countdown problem: from the given numbers, is its value the target?

Where the expression stands, the first that applies:

1. between the last ``<answer>`` and ``</answer>``, or the end of the response, where a stop string cut the closing tag
2. after the last ``####``, to the end of the line, if a digit, a parenthesis or a minus sign follows (else it is a
   heading)
3. on the last line that ends in ``= target``: what stands before, back to the first character of no expression
   (``So (60 + 43) + 48 = 151.``, ``x = 60 + 43 + 48 = 151``, ``1) 60 + 43 + 48 = 151``); a number alone that prose
   leads to is none

The grammar is that of ``expressions``: numbers, the four signs, parentheses.

``×``, ``÷``, ``−``, ``–``, ``\times``, ``\cdot``, ``\div`` and an ``x`` between numbers count as signs of the grammar,
mathematics delimiters (``$``, ``\(``, ``\[``) not at all; blanks may stand between numbers and signs, a full stop
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
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from selftrain.types import Problem, Verdict
from selftrain.verifiers.expressions import NoExpression, Parser, tokens
from selftrain.verifiers.reasoning import after_thinking

MAX_CHARACTERS = 500
_SIGNS = str.maketrans("×÷−–", "*/--")
_GRAMMAR = "0123456789+-*/()= \t"
_DELIMITERS = re.compile(r"\\[()\[\]]|\$|\\(?:left|right)(?![A-Za-z])")
_TIMES = re.compile(r"\\(?:times|cdot)(?![A-Za-z])|(?<=[0-9)])\s?[xX]\s?(?=[0-9(])")
_DIVIDED = re.compile(r"\\div(?![A-Za-z])")
_BULLET = re.compile(r"\s*-\s+")
_ITEM = re.compile(r"\(?[0-9]{1,3}\) +(?=[0-9(-])")
_COMMAND = re.compile(r"\\[A-Za-z]{1,20}\s?\Z")
_WORD_END = re.compile(r"[\w.,^]")


@dataclass(frozen=True)
class Countdown:
    """Right where the response's expression uses numbers of ``problem.answer`` and has its target as value.

    The gold answer is ``{"nums": [60, 48, 43], "target": 151}``, with ``"use_all": true`` where every number must be
    used. Any other gold answer, and one with a negative number, gives ``error``.
    """

    def __call__(self, problem: Problem, response: str) -> Verdict:
        game = _game(problem.answer)
        if game is None:
            return Verdict("error", reason=f"the gold answer is no Countdown problem: {str(problem.answer)[:80]!r}")
        written = _final(_plain(after_thinking(response)), game.target)
        if written is None:
            return Verdict("unparsed", 0.0, reason="no final expression")
        try:
            claim = _read(written)
        except NoExpression as error:
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


def _game(answer: Any) -> _Game | None:
    if not isinstance(answer, dict) or not isinstance(answer.get("nums"), (list, tuple)):
        return None
    numbers, target, use_all = answer["nums"], answer.get("target"), answer.get("use_all", False)
    # The grammar has no negative numbers, only signs before them, so that none could ever be matched.
    if not numbers or any(type(number) is not int or number < 0 for number in numbers):
        return None
    if not isinstance(use_all, bool):
        return None
    return _Game(Counter(numbers), target, use_all) if type(target) is int else None


def _listed(numbers: Counter[int]) -> str:
    return ", ".join(str(number)[:40] for number in sorted(numbers.elements())[:6])


def _plain(text: str) -> str:
    """With signs as in the grammar, without mathematics delimiters."""
    text = _TIMES.sub("*", _DELIMITERS.sub("", text.translate(_SIGNS)))
    return _DIVIDED.sub("/", text)


def _final(text: str, target: int) -> str | None:
    """The text at the answer's place."""
    _, tag, answer = text.rpartition("<answer>")
    if tag:
        return answer.partition("</answer>")[0]
    _, mark, rest = text.rpartition("####")
    line = rest.lstrip(" \t").partition("\n")[0]
    if mark and line[:1] and line[0] in "0123456789(-":
        return line
    return _before_target(text, str(target))


def _before_target(text: str, target: str) -> str | None:
    """The claim on the last line that ends in ``= target``."""
    for line in reversed(text.split("\n")):
        before, equals, value = line.rpartition("=")
        if not equals or value.strip(" \t\r*.`\\") != target:
            continue
        bullet = _BULLET.match(before)
        before = before[bullet.end() :] if bullet else before
        start = len(before.rstrip(_GRAMMAR))
        if _WORD_END.search(before[:start][-1:]) and not before[start : start + 1].isspace():
            start -= 1  # What follows belongs to a word or a decimal, as in x2 or 1.5, which the grammar refuses.
        if command := _COMMAND.search(before[max(0, start - 25) : start]):
            start -= len(command[0])  # The same holds after a command that is no sign: 3 \foo 5.
        claim = before[start:].lstrip(" \t*=")
        item = _ITEM.match(claim)
        claim = claim[item.end() :] if item else claim
        # A number that prose leads to is no expression: "3 plus 12 = 15".
        if any(character.isdigit() for character in claim) and (start == 0 or not claim.strip(" \t()").isdigit()):
            return f"{claim}={target}"
    return None


def _read(written: str) -> _Claim:
    text = written.strip().removesuffix(".").rstrip()
    if len(text) > MAX_CHARACTERS:
        raise NoExpression(f"the expression has more than {MAX_CHARACTERS} characters")
    parser = Parser(tokens(text))
    values = [parser.sum()]
    end, numbers = parser.at, list(parser.numbers)
    while parser.take("="):
        values.append(parser.sum())
    if parser.next:
        raise NoExpression(f"unexpected {parser.next!r} in {text[:80]!r}")
    return _Claim("".join(parser.tokens[: end if len(set(values)) == 1 else None]), numbers, values)
