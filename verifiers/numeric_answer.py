r"""The final number of a response against a gold number, compared exactly.

Where the final number stands, the first that applies:

1. the last closed ``\boxed{...}``; where it holds no single number the response is ``unparsed`` or ``wrong``
2. after the last ``####``, if a number directly follows (else it is a heading)
3. after the last ``answer is`` or ``answer:`` (also ``was``, ``=``), to the end of the sentence
4. the last number of the response (``fallback_last_number``)

With ``marker`` only what follows its last occurrence on the line counts, and then 4. Of ``2 + 3 = 5`` the answer is
what follows the last ``=``.

Accepted: the numbers of ``number_forms``, with a unit: ``18 dollars``, ``5kg``, ``90^\circ``, ``3\text{ cm}^2``, a full
stop after it. A percent sign is a unit: ``50%`` is 50. LaTeX's fonts and styles do not count: ``\textbf{3}``,
``\displaystyle 3``. Words (``five``, ``½``) are no numbers; ``5 million`` is 5.

Hedging and denial are wrong, whatever the numbers: ``3 or 4``, ``$3, or $4``, ``1, 2, 3``, ``3 ± 1``, ``not 5``. A box
holds exactly one number and no algebra; around a box, and around a last number, only ``or`` and ``±`` (around a last
number ``and`` and ``plus`` too) make a hedge, since other numbers may well stand there.

What stands before ``</think>`` is no answer; a response that never closes ``<think>`` has none.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from selftrain.types import Problem, Verdict
from selftrain.verifiers.number_forms import NUMBER, Number, plain
from selftrain.verifiers.reasoning import after_thinking
from selftrain.verifiers.single_number import Found, found, last_number, one_number, upheld

_ZONE_CHARACTERS = 1000
_BOXES = 20
_CONTEXT_CHARACTERS = 100
_WINDOW_CHARACTERS = 400
"""Where the last number is looked for first; longer than any number that is within bounds."""
_EDGE_CHARACTERS = 20

_GOLD = re.compile(
    r"[\s$({]*(?:[A-Za-z]\s*=\s*)?0"
    r"(?:\\?%|°|\^\{?\\circ\}?|\\(?:text|mathrm|mbox)\s*\{[^{}]*\}|[A-Za-z/ ²³])*[\s.$)}]*\Z"
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BETWEEN_BOXES = re.compile(
    r"(?:[\s$]|\\[()\[\]])*+(?:[A-Za-z]{1,20}\s){0,2}"
    r"(?:[,;]|\b(?:or|and|maybe|possibly|perhaps)\b)(?:[\s$,;]|\\[()\[\]]|\b(?:or|and|maybe|possibly|perhaps|even|also)\b)*+\Z"
)
_COMMAND = re.compile(r"\\[A-Za-z]")
_ANSWER = re.compile(r"answer\**\s*(?:is|was|=|:)", re.IGNORECASE)
_BLANK = re.compile(r"[\s*:$(]*")
_SENTENCE_END = re.compile(r"[.!?](?:\s(?!\s{0,9}[Oo]r\b)|\Z)|\n")


@dataclass(frozen=True)
class NumericAnswer:
    """Right where the final number of a response equals ``problem.answer``.

    The gold answer is an int, a float, a string that is one number in an accepted form, or a text with the number in
    a box or after ``####``. Any other gold answer gives ``error``.
    """

    tolerance: float = 0.0
    """Largest relative difference to the gold number; 0 compares exactly."""
    marker: str | None = None
    """Where the answer starts, e.g. ``####`` or ``=``; None: the forms above."""
    fallback_last_number: bool = True
    """Take the last number of a response that marks no answer."""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must be at least 0 and below 1, not {self.tolerance}")
        if self.marker == "":
            raise ValueError("marker must not be empty; leave it out to look for all known forms")

    def __call__(self, problem: Problem, response: str) -> Verdict:
        gold = _gold(problem.answer)
        if gold is None:
            return Verdict("error", reason=f"the gold answer is not a number: {str(problem.answer)[:80]!r}")
        final = self._final(after_thinking(response))
        if final is None:
            return Verdict("unparsed", 0.0, reason="no final number")
        if final.value is None:
            return Verdict("wrong", 0.0, final.answer, final.reason)
        right = final.value == gold
        if not right and self.tolerance:
            right = abs(Fraction(final.value) - gold) <= Fraction(str(self.tolerance)) * abs(Fraction(gold))
        return Verdict("right" if right else "wrong", float(right), final.answer)

    def _final(self, text: str) -> Found | None:
        if self.marker is not None:
            stated = _after_marker(text, self.marker)
        elif "\\boxed" in text or "\\fbox" in text:
            return _boxed(text)
        else:
            stated = _after_hashes(text) or _after_answer(text)
        return stated or (_last(text) if self.fallback_last_number else None)


def _gold(answer: Any) -> Number | None:
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        return None
    return _gold_number(str(answer))


@lru_cache(maxsize=4096)
def _gold_number(text: str) -> Number | None:
    if "\\boxed" in text:
        gold = _boxed(text)
    else:
        gold = _after_hashes(text) or (
            one_number(text, alone=True) if _GOLD.match(NUMBER.sub("0", plain(text))) else None
        )
    return gold.value if gold else None


def _boxed(text: str) -> Found | None:
    closed = [(match.start(), match.end(), _closing(text, match.end())) for match in [*_BOX.finditer(text)][-_BOXES:]]
    boxes = [(opening, text[start:end], end + 1) for opening, start, end in closed if end is not None]
    if not boxes:
        return None
    opening, content, end = boxes[-1]
    final = one_number(content)
    if final is None or final.value is None:
        return final
    if _COMMAND.search(NUMBER.sub("", plain(content)).replace("\\circ", "")):
        return None
    for _, other, other_end in boxes[-2:-1]:
        between = text[other_end:opening]
        joined = len(between) <= _CONTEXT_CHARACTERS and _BETWEEN_BOXES.match(plain(between))
        alike = one_number(other, alone=True)
        if joined and (alike is None or alike.value != final.value):
            return Found(final.answer, None, "several boxed answers")
    before, after = text[max(0, opening - _CONTEXT_CHARACTERS) : opening], text[end : end + _CONTEXT_CHARACTERS]
    final = one_number(content, alone=True)
    return upheld(final, before, after) if final and final.value is not None else final


def _closing(text: str, start: int) -> int | None:
    """Where the brace that was opened just before ``start`` closes, if within reach."""
    depth = 1
    for match in re.compile(r"[{}]").finditer(text, start, start + _ZONE_CHARACTERS):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    return None


def _after_marker(text: str, marker: str) -> Found | None:
    at = text.rfind(marker)
    return None if at < 0 else one_number(_line(text, at + len(marker)))


def _after_hashes(text: str) -> Found | None:
    at = text.rfind("####")
    if at < 0:
        return None
    line = _line(text, at + 4)
    return one_number(line) if NUMBER.match(plain(line).lstrip()) else None


def _after_answer(text: str) -> Found | None:
    if "nswer" not in text and "NSWER" not in text:
        return None
    match = _last_match(_ANSWER, text)
    if match is None:
        return None
    line = _line(text, match.end())
    stop = _SENTENCE_END.search(line)
    return one_number(line[: stop.start()] if stop else line)


def _line(text: str, start: int) -> str:
    """The rest of the line from ``start``, or the next line that is not empty."""
    blank = _BLANK.match(text, start)
    start = blank.end() if blank else start
    return text[start : start + _ZONE_CHARACTERS].partition("\n")[0]


def _last(text: str) -> Found | None:
    backwards = re.search("[0-9]", text[::-1])
    if backwards is None:
        return None
    end = len(text) - backwards.start()
    window = plain(text[max(0, end - _WINDOW_CHARACTERS) : end + _CONTEXT_CHARACTERS])
    last = _last_match(NUMBER, window)
    # At the edge of the window it may be the end of a longer one, such as 1 3/4 or x_12.
    if last is not None and (end <= _WINDOW_CHARACTERS or last.start() > _EDGE_CHARACTERS):
        return last_number(window, last)
    last = _last_match(NUMBER, plain(text))
    return found(last) if last else None


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)
