r"""The final number of a response against a gold number, compared exactly.

Where the final number stands, the first that applies:

1. the last closed ``\boxed{...}``; where it holds no single number the response is ``unparsed`` or ``wrong``
2. after the last ``####``, if a number directly follows (else it is a heading)
3. after the last ``answer is`` or ``answer:`` (also ``was``, ``=``), to the end of the sentence
4. the last number of the response (``fallback_last_number``)

With ``marker`` only what follows its last occurrence on the line counts, and then 4. Of ``2 + 3 = 5`` the answer is
what follows the last ``=``.

Accepted: ``1234``, ``1,234``, ``-5``, ``−5``, ``.5``, ``12.50``, ``$18``, ``-$5``, ``\$18``, ``18%``, ``18 dollars``,
``5kg``, ``90^\circ``, ``3/4``, ``\frac{3}{4}``, ``1 3/4``, ``1e3``, ``1.2 \times 10^{-4}``, ``1{,}234``, a full
stop after it. A percent sign is a unit: ``50%`` is 50.

Not a number: decimal commas (``3,5``), dates and times (``1/2/2020``, ``10:30``), powers (``2^{10}``), indices
(``x_1``), digits inside words (``H2O``), words (``five``, ``½``; ``5 million`` is 5), more than 100 characters or an
exponent beyond 100. Hedging is wrong: ``3 or 4``, ``1, 2, 3``.

What stands before ``</think>`` is no answer; a response that never closes ``<think>`` has none.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from selftrain.types import Problem, Verdict

MAX_CHARACTERS = 100
MAX_EXPONENT = 100
_ZONE_CHARACTERS = 1000
_BOXES = 20

_PLAIN = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3}){1,33}+(?![0-9])|[0-9]++)(?:\.[0-9]++)?+|\.[0-9]++)"
_FRACTION = (
    r"\\[dt]?frac\s*+(?:\{{\s*(?P<{0}>-?[0-9]+)\s*\}}\s*\{{\s*(?P<{1}>[0-9]+)\s*\}}|(?P<{2}>[0-9])\s*(?P<{3}>[0-9]))"
)
_NUMBER = re.compile(
    rf"""
    (?=[-+−$€£¥₹.0-9\\])
    (?<![A-Za-z0-9^]) (?<![0-9][.:/]) (?<![\^_]\{{) (?<!\^-) (?<!\^\{{-) (?<![A-Za-z0-9)}}]_)
    (?P<sign>[-+−])?+ (?:\\?[$€£¥₹]\s?)?+ (?P<inner>[-−])?+
    (?:
        (?P<number>{_PLAIN})
        (?:
            [eE](?P<exponent>[-+]?[0-9]++)(?![A-Za-z0-9])
          | \s*(?:\\times|\\cdot|×|\*|x)\s*10\s*\^\s*(?:\{{\s*(?P<power>[-+−]?[0-9]++)\s*\}}|(?P<bare>[-+−]?[0-9]++))
          | \s*/\s*(?P<under>[0-9]++)
          | \s+(?P<over_whole>[0-9]++)/(?P<under_whole>[0-9]++)
          | \s*{_FRACTION.format("n1", "d1", "n2", "d2")}
        )?+
      | {_FRACTION.format("n3", "d3", "n4", "d4")}
    )
    (?![0-9]) (?![.:/][0-9]) (?!\s*\^\s*\{{?\s*[-−0-9A-Za-z])
    """,
    re.VERBOSE,
)
_SIMPLE = re.compile(r"-?[0-9]{1,100}\Z")
_MORE = re.compile(
    r"\s*(?:\\?%)?\s*(?:"
    r"(?:[-+*/×÷,;:&=^–]|\\times|\\cdot|\\pm|\\text\s*\{\s*(?:or|and)\s*\}|(?:or|and|to)\b)"
    r"\s*[-+−(]?\s*\\?[$€£¥₹]?\s*(?:\\[dt]?frac|\.?[0-9])"
    r"|\\sqrt|\\pi|[√π!])"
)
"""What makes a number only a part of what it stands in."""
_GOLD = re.compile(
    r"[\s$({]*(?:[A-Za-z]\s*=\s*)?0"
    r"(?:\\?%|°|\^\{?\\circ\}?|\\(?:text|mathrm|mbox)\s*\{[^{}]*\}|[A-Za-z/ ²³])*[\s.$)}]*\Z"
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BOX_BEFORE = re.compile(r"\}\s*\$?\s*(?:,|;|or|and)\s*\$?\s*\Z")
_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mbox|mathbf)\s*\{[^{}]*\}")
_ANSWER = re.compile(r"answer\**\s*(?:is|was|=|:)", re.IGNORECASE)
_BLANK = re.compile(r"[\s*:$(]*")
_SENTENCE_END = re.compile(r"[.!?](?:\s|\Z)|\n")

Number = int | Fraction


class _Found(NamedTuple):
    """A final answer as written down; ``value`` is None where that is no single number."""

    answer: str
    value: Number | None
    reason: str | None = None


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
        found = self._final(after_thinking(response))
        if found is None:
            return Verdict("unparsed", 0.0, reason="no final number")
        if found.value is None:
            return Verdict("wrong", 0.0, found.answer, found.reason)
        right = found.value == gold
        if not right and self.tolerance:
            right = abs(Fraction(found.value) - gold) <= Fraction(str(self.tolerance)) * abs(Fraction(gold))
        return Verdict("right" if right else "wrong", float(right), found.answer)

    def _final(self, text: str) -> _Found | None:
        if self.marker is not None:
            found = _after_marker(text, self.marker)
        elif "\\boxed" in text or "\\fbox" in text:
            return _boxed(text)
        else:
            found = _after_hashes(text) or _after_answer(text)
        return found or (_last(_tidy(text)) if self.fallback_last_number else None)


def after_thinking(response: str) -> str:
    """The response without its ``<think>`` part; empty where that is never closed."""
    if "</think>" in response:
        return response.rpartition("</think>")[2]
    return "" if "<think>" in response else response


def _gold(answer: Any) -> Number | None:
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        return None
    return _gold_number(str(answer))


@lru_cache(maxsize=4096)
def _gold_number(text: str) -> Number | None:
    if "\\boxed" in text:
        found = _boxed(text)
    else:
        found = _after_hashes(text) or (_single(text) if _GOLD.match(_NUMBER.sub("0", _tidy(text))) else None)
    return found.value if found else None


def _boxed(text: str) -> _Found | None:
    for start in reversed([match.end() for match in _BOX.finditer(text)][-_BOXES:]):
        end = _closing(text, start)
        if end is not None:
            break
    else:
        return None
    content = _WORDS.sub(" ", text[start:end])
    opening = text.rfind("\\", 0, start)
    if _BOX_BEFORE.search(text, max(0, opening - 30), opening):
        return _Found(content, None, "several boxed answers")
    found = _single(content)
    if found is None or found.value is None:
        return found
    rest = _NUMBER.sub("", _tidy(content)).replace("\\circ", "")
    return None if re.search(r"\\[A-Za-z]", rest) else found


def _closing(text: str, start: int) -> int | None:
    """Where the brace that was opened just before ``start`` closes, if within reach."""
    depth = 1
    for match in re.compile(r"[{}]").finditer(text, start, start + _ZONE_CHARACTERS):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    return None


def _after_marker(text: str, marker: str) -> _Found | None:
    at = text.rfind(marker)
    return None if at < 0 else _single(_line(text, at + len(marker)))


def _after_hashes(text: str) -> _Found | None:
    at = text.rfind("####")
    if at < 0:
        return None
    line = _line(text, at + 4)
    return _single(line) if _NUMBER.match(_tidy(line)) else None


def _after_answer(text: str) -> _Found | None:
    if "nswer" not in text and "NSWER" not in text:
        return None
    match = _last_match(_ANSWER, text)
    if match is None:
        return None
    line = _line(text, match.end())
    stop = _SENTENCE_END.search(line)
    return _single(line[: stop.start()] if stop else line)


def _line(text: str, start: int) -> str:
    """The rest of the line from ``start``, or the next line that is not empty."""
    blank = _BLANK.match(text, start)
    start = blank.end() if blank else start
    return text[start : start + _ZONE_CHARACTERS].partition("\n")[0]


def _tidy(text: str) -> str:
    """Without LaTeX's ways to write a thousands separator or a space."""
    if "\\" not in text and "{" not in text:
        return text
    return re.sub(r"\\[,!;: ]", "", text.replace("{,}", ",").replace(",\\!", ","))


def _single(text: str) -> _Found | None:
    """The one number of a stretch of text that states an answer."""
    text = _tidy(text)
    match = _NUMBER.search(text)
    if match and _MORE.match(text, match.end()) and "=" in text[match.end() :]:
        text = text.rpartition("=")[2]
        match = _NUMBER.search(text)
    if match is None:
        return None
    if _MORE.match(text, match.end()):
        return _Found(text.strip()[:MAX_CHARACTERS], None, "not a single number")
    return _found(match)


def _last(text: str) -> _Found | None:
    backwards = re.search("[0-9]", text[::-1])
    if backwards is None:
        return None
    end = len(text) - backwards.start()
    for start in (max(0, end - 40), 0):
        last = _last_match(_NUMBER, text, start)
        # Right at the window's edge the number may be the end of a longer one, such as 1 3/4.
        if last is not None and last.start() > start + 20:
            break
    return _found(last) if last else None


def _last_match(pattern: re.Pattern[str], text: str, start: int = 0) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text, start), maxlen=1)), None)


def _found(match: re.Match[str]) -> _Found:
    written = match[0]
    if _SIMPLE.match(written):
        value: Number | None = int(written)
    else:
        value = _value(match)
    if value is None:
        return _Found(written[:MAX_CHARACTERS], None, "not a number within bounds")
    return _Found(_canonical(value), value)


def _value(match: re.Match[str]) -> Number | None:
    """The exact value of a match of ``_NUMBER``; None where it is too long or divides by zero."""
    if len(match[0]) > MAX_CHARACTERS:
        return None
    group = match.groupdict()
    over = group["over_whole"] or group["n1"] or group["n2"] or group["n3"] or group["n4"]
    under = group["under"] or group["under_whole"] or group["d1"] or group["d2"] or group["d3"] or group["d4"]
    exponent = int((group["exponent"] or group["power"] or group["bare"] or "0").replace("−", "-"))
    if abs(exponent) > MAX_EXPONENT or (under and int(under) == 0):
        return None
    value = Fraction(f"{(group['number'] or '0').replace(',', '')}e{exponent}")
    if over and under:
        value += Fraction(int(over), int(under))
    elif under:
        value /= int(under)
    negative = (group["sign"] or "+") != "+" or group["inner"]
    return -value if negative else value


def _canonical(value: Number) -> str:
    """One spelling per value, so that answers can be counted: ``18``, ``0.75``, ``1/3``."""
    if isinstance(value, int) or value.denominator == 1:
        return str(int(value))
    context = Context(prec=4 * MAX_CHARACTERS)
    quotient = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    return str(value) if context.flags[Inexact] else format(quotient, "f")
