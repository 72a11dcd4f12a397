r"""The letter a response chooses among the options of a multiple-choice question.

Where the choice stands, the first that applies:

1. every ``\boxed{B}``, ``\boxed{(B)}``, ``\boxed{\text{B}}``, ``\boxed{B. 12 apples}``
2. every ``answer is B``, ``answer: (B)``, ``Answer B``, ``ANS: B``, ``correct option is B``, ``B is correct``
3. the last line, or else the whole response, that is ``B`` or starts with ``B.``, ``(B)``, ``B) 12``, ``B:``,
   ``Option B``

Two different letters at one place are ``wrong`` (hedging): ``A or B``, ``The answer is A. No, the answer is B.``
Letters are upper case; in brackets or in a box lower case counts too. ``A`` before a lower-case word is an article:
``the answer is A good one`` names no option. A letter that is no option is not seen.

What stands before ``</think>`` is no answer; a response that never closes ``<think>`` has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from selftrain.types import Problem, Verdict
from selftrain.verifiers.reasoning import after_thinking

_STATEMENT = re.compile(r"\b(?:answer|ans|correct\s+(?:option|choice))\b\**\s*(?:is|was|=|:|-|–)?", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{[^{}]*\}){0,500})\}")
_STATED_CHARACTERS = 200


@dataclass(frozen=True)
class ChoiceAnswer:
    """Right where a response names exactly the option ``problem.answer``: ``B``, ``(B)``, ``b`` or ``B) text``."""

    letters: str = "ABCDE"
    """The letters of the options, upper case."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Z]{2,26}", self.letters) or len(set(self.letters)) < len(self.letters):
            raise ValueError(f"letters must be different upper-case letters, such as 'ABCDE', not {self.letters!r}")

    def __call__(self, problem: Problem, response: str) -> Verdict:
        forms = _forms(self.letters)
        gold = forms.gold(problem.answer)
        if gold is None:
            reason = f"the gold answer is none of the letters {self.letters}: {str(problem.answer)[:80]!r}"
            return Verdict("error", reason=reason)
        found = forms.final(after_thinking(response))
        if not found:
            return Verdict("unparsed", 0.0, reason="no choice named")
        if len(found) > 1:
            return Verdict("wrong", 0.0, "/".join(sorted(found)), "several different choices")
        (letter,) = found
        return Verdict("right" if letter == gold else "wrong", float(letter == gold), letter)


class _Forms(NamedTuple):
    """Patterns of a named option, for one set of letters; each has the groups ``bracketed`` and ``bare``."""

    boxed: re.Pattern[str]
    stated: re.Pattern[str]
    correct: re.Pattern[str]
    line: re.Pattern[str]
    joined: re.Pattern[str]

    def gold(self, answer: object) -> str | None:
        if not isinstance(answer, str):
            return None
        answer = answer.strip()
        match = self.line.match(answer.upper() if len(answer) == 1 else answer)
        return _letter(match) if match else None

    def final(self, text: str) -> set[str]:
        """The letters named at the strongest place; several where the response hedges."""
        boxes = _BOX.findall(text)
        if boxes:
            return {letter for box in boxes for letter in self._letters(self.boxed, box)}
        stated = {_letter(match) for match in self.correct.finditer(text)}
        for match in _STATEMENT.finditer(text):
            stated.update(self._letters(self.stated, text[match.end() : match.end() + _STATED_CHARACTERS]))
        text = text.strip()
        last_line = text.rpartition("\n")[2]
        return stated or set(self._letters(self.line, last_line)) or set(self._letters(self.line, text))

    def _letters(self, first: re.Pattern[str], text: str) -> Iterator[str]:
        """The letter that ``first`` finds at the start of the text, and those it is joined with."""
        match = first.match(text)
        for _ in range(26):
            if match is None:
                return
            yield _letter(match)
            match = self.joined.match(text, match.end())


@lru_cache(maxsize=16)
def _forms(letters: str) -> _Forms:
    either = f"[{letters}{letters.lower()}]"
    bracketed = rf"[(\[]\s*(?P<bracketed>{either})\s*[)\]]"
    text = r"(?:\\(?:text|textbf|mathrm|mathbf)\s*\{\s*)?"
    article = r"(?!(?<=A)\s+(?!(?:or|and|because|since|as|with)\b)[a-z])"
    end = rf"(?=[\s*$_}}]*(?:\Z|[.,;:)/&]|(?:or|and)\b|[{letters}]\b))"
    return _Forms(
        boxed=re.compile(rf"\s*{text}(?:{bracketed}|(?P<bare>{either})(?![A-Za-z0-9]))"),
        stated=re.compile(
            rf"[\s*:$_]*(?:(?:[Oo]ption|[Cc]hoice|[Ll]etter)\s+)?[*$_]*{text}"
            rf"(?:{bracketed}|(?P<bare>[{letters}])(?![A-Za-z0-9'’]){article})"
        ),
        correct=re.compile(rf"(?:{bracketed}|\b(?P<bare>[{letters}]))\s+is\s+(?:the\s+)?(?:correct|answer)\b"),
        line=re.compile(rf"[\s*$_]*(?:(?:[Oo]ption|[Cc]hoice)\s+)?(?:{bracketed}|(?P<bare>[{letters}]){end})"),
        joined=re.compile(
            rf"[\s*$_}}]*(?:,|;|/|&|\bor\b|\band\b)\s*{text}(?:{bracketed}|(?P<bare>[{letters}]){end})"
            rf"|\s+(?P<spaced>[{letters}]){end}"
        ),
    )


def _letter(match: re.Match[str]) -> str:
    return next(letter for letter in match.groups() if letter).upper()
