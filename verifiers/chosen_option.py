"""Where the gold answer is a letter: which option a response chooses."""

from __future__ import annotations

import re

from selftrain.types import Problem, Verdict
from selftrain.verifiers import final_answer
from selftrain.verifiers.choice_answer import ChoiceAnswer

_LETTER = re.compile(r"[\s$({]*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?[\s({]*([A-J])[\s)}.$]*\Z")
_DENIED_LETTER = r"(?:\bnot|\bnever|\bnor|n['’]t)\s+(?:\W|\b(?:text|textbf|the|answer|option|choice|be)\b){0,12}%s\b"
_OR_ELSE = r"\A\W*%s\W{1,6}or\b"
_END_CHARACTERS = 8000
_BRACKETED = re.compile(r"\(([A-J])\)")
_CAPITAL = re.compile(r"(?<![A-Za-z$\\({])[A-J](?![A-Za-z_'^(=+])")
_OPTION = re.compile(
    r"[\s$]*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{\s*)?(?:\([A-J]\)|[A-J][.):])[\s}\\]*+(?!(?:or|and|nor|but)\b)[^\s}]"
)
"""``(A) 12``, ``\\textbf{(A) }12``, ``A. 12``: a letter with what it stands for."""


def letter_of(gold: str) -> str | None:
    match = _LETTER.match(gold)
    return match[1] if match else None


def is_option(text: str) -> bool:
    return bool(_OPTION.match(text))


def chosen(letter: str, text: str) -> Verdict | None:
    """The verdict on a choice among options; None where none is named."""
    if re.search(_DENIED_LETTER % letter, text[-_END_CHARACTERS:]) or re.match(_OR_ELSE % letter, text):
        return None
    choice = ChoiceAnswer("ABCDEFGHIJ")(Problem("", "", "", "", letter), text)
    if choice.status in ("right", "wrong"):
        return choice
    found = set(_BRACKETED.findall(text))
    clause = re.split(r"[,.;\n]", final_answer.stated(text) or "", maxsplit=1)[0]
    found = found or (set() if re.search(r"\bnot\b|n['’]t\b", clause) else {*_CAPITAL.findall(clause)})
    if len(found) != 1:
        return None
    return Verdict("right" if found == {letter} else "wrong", float(found == {letter}), *found)
