r"""The letter a response chooses among the options of a multiple-choice question.

Where the choice stands, the first that applies:

1. every ``\boxed{B}``, ``\boxed{(B)}``, ``\boxed{\text{B}}``, ``\boxed{B. 12 apples}``
2. every ``<answer>B</answer>``; the last line of ``####`` and a letter alone
3. every ``answer is B``, ``answer: (B)``, ``Answer B``, ``ANS: B``, ``correct option is B``, ``the answer would be B``,
   ``B is the right answer``
4. every ``B is correct``
5. the last line, or else the whole response, that is ``B`` or starts with ``B.``, ``(B)``, ``B) 12``, ``B:``,
   ``Option B``; a first line that is a letter alone counts beside the last line

Bold face, quotes, code and mathematics around a letter do not count: ``**B**``, ``"B"``, ``\(B\)``, ``<B>``.

Two different letters at one place are ``wrong`` (hedging): ``A or B``, ``B (or C)``, ``B, maybe C``, ``The answer is
A. No, the answer is B.`` A second letter is looked for to the end of the sentence, or to the reason it gives: ``B
because A is too small`` chooses B. Letters are upper case; in brackets or in a box lower case counts too. ``A`` before
a lower-case word is an article: ``the answer is A good one`` names no option. A letter that is no option is not seen.

What stands before ``</think>`` is no answer; a response that never closes ``<think>`` has none.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from selftrain.types import Problem, Verdict
from selftrain.verifiers.choice_forms import Forms, cleaned, forms_of, letters_of
from selftrain.verifiers.reasoning import after_thinking

_STATEMENT = re.compile(
    r"(?<!each )(?<!every )(?<!any )\b(?:answer|ans|(?:correct|right|best) (?:option|choice))\b", re.IGNORECASE
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{[^{}]*\}){0,500})\}")
_ZONE_CHARACTERS = 200
_PLACES = 1000
"""Of more places than these the last count; a response with more is a loop."""


@dataclass(frozen=True)
class ChoiceAnswer:
    """Right where a response names exactly the option ``problem.answer``: ``B``, ``(B)``, ``b`` or ``B) text``."""

    letters: str = "ABCDE"
    """The letters of the options, upper case."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Z]{2,26}", self.letters) or len(set(self.letters)) < len(self.letters):
            raise ValueError(f"letters must be different upper-case letters, such as 'ABCDE', not {self.letters!r}")

    def __call__(self, problem: Problem, response: str) -> Verdict:
        forms = forms_of(self.letters)
        gold = _gold(forms, problem.answer)
        if gold is None:
            reason = f"the gold answer is none of the letters {self.letters}: {str(problem.answer)[:80]!r}"
            return Verdict("error", reason=reason)
        found = _final(forms, after_thinking(response))
        if not found:
            return Verdict("unparsed", 0.0, reason="no choice named")
        if len(found) > 1:
            return Verdict("wrong", 0.0, "/".join(sorted(found)), "several different choices")
        (letter,) = found
        return Verdict("right" if letter == gold else "wrong", float(letter == gold), letter)


def _gold(forms: Forms, answer: object) -> str | None:
    if not isinstance(answer, str):
        return None
    answer = cleaned(answer)
    match = forms.line.match(answer.upper() if len(answer) == 1 else answer)
    return letters_of(match)[0] if match else None


def _final(forms: Forms, text: str) -> set[str]:
    """The letters named at the strongest place; several where the response hedges."""
    text = cleaned(text)
    if boxes := _BOX.findall(text):
        return {letter for box in boxes for letter in forms.letters(forms.boxed, box)}
    return _marked(forms, text) or _stated(forms, text) or _alone(forms, text)


def _marked(forms: Forms, text: str) -> set[str]:
    """Those of every ``<answer>``, or of the last line of ``####`` and letters alone."""
    tags = [zone.partition("</answer>")[0][:_ZONE_CHARACTERS] for zone in text.split("<answer>")[1:][-_PLACES:]]
    tagged = {letter for tag in tags if tag for letter in _in_tag(forms, tag.strip())}
    line = text.rpartition("####")[2].lstrip().partition("\n")[0] if "####" in text and not tagged else ""
    bare = len(line) <= _ZONE_CHARACTERS and forms.bare_line.match(line)
    return tagged or (set(forms.letters(forms.line, line)) if bare else set())


def _in_tag(forms: Forms, tag: str) -> set[str]:
    """A tag holds what a short response would, and a lower-case letter alone."""
    if len(tag) == 1:
        tag = tag.upper()
    return _stated(forms, tag) or set(forms.letters(forms.line, tag))


def _stated(forms: Forms, text: str) -> set[str]:
    stated = set(forms.judged(forms.the_answer, text))
    for match in deque(_STATEMENT.finditer(text), maxlen=_PLACES):
        stated.update(forms.letters(forms.stated, text[match.end() : match.end() + _ZONE_CHARACTERS]))
    return stated or set(forms.judged(forms.correct, text))


def _alone(forms: Forms, text: str) -> set[str]:
    """Those at the start of the last line or of the whole response."""
    first, last = text.partition("\n")[0][:_ZONE_CHARACTERS], text.rpartition("\n")[2]
    found = set(forms.letters(forms.line, last[: 10 * _ZONE_CHARACTERS]))
    if not found or forms.bare_line.match(first):
        found |= set(forms.letters(forms.line, text[: 10 * _ZONE_CHARACTERS]))
    return found
