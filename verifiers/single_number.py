r"""Whether a text gives one number as its answer, or hedges.

No single number: several different ones that are joined (``3 or 4``, ``3 apples, maybe 4``, ``3 ± 1``, ``15 plus 5``,
``3 hours and 20 minutes``, ``3x + 2``), one that only makes a part (``2\sqrt{3}``, ``3 and a half``), and one that is
denied (``not 5``, ``5 is not the answer``). Numbers of one value do not contradict each other: ``1/2 or 0.5``.
"""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from selftrain.verifiers.number_forms import MAX_CHARACTERS, NUMBER, Number, plain, spelled, value_of

_REACH = 100
"""Characters before a number that are searched for what it is joined with."""

_CLOSING = r"(?:\\[)\]%$]|\\circ|\^\s?\{?\s?(?:\\circ|-?[0-9])\s?\}?|[\s*$%°²³)\]}\"'`_])"
_JOINING_WORD = r"or|and|plus|minus|times|divided|to|maybe|possibly|perhaps|alternatively"
_REASON_WORD = r"because|since|as|so|which|that|where|when|if|for|with|after|but|while|given|due|is|are|was|not"
_UNIT = (
    rf"{_CLOSING}{{0,20}}+(?:(?!(?:{_JOINING_WORD}|{_REASON_WORD})\b)[A-Za-z][A-Za-z'’/-]{{0,20}}+\.?+"
    rf"{_CLOSING}{{0,20}}+){{0,4}}+"
)
_NEXT = (
    r"(?:\s?(?:maybe|possibly|perhaps|probably|even|else|also|either|about|around|approximately|the|then)\b,?){0,3}+"
    r"(?:[\s*_(\"'`]|\\[(\[$]|\\boxed\s?\{|[$€£¥₹+−-]){0,20}+"
    r"(?:\\[cdt]?frac|\.?[0-9]|(?:two|three|four|five|six|seven|eight|nine|ten|twenty|thirty|forty|fifty)\b"
    r"|(?:a|one)\s(?:half|third|quarter)\b|half\b)"
)
_HEDGE = (
    rf"{_UNIT}[,;.([–—-]?\s{{0,9}}(?:and/or|or|maybe|possibly|perhaps|alternatively)\b"
    rf"|{_UNIT}(?:±|\\pm|\+/[-−–])"
)
_SERIES = rf"{_UNIT},?\s{{0,9}}(?:and|plus|minus|times|divided\sby)\b"
_PART = rf"{_UNIT}[,+]|\s?[xX]|[A-Za-z]{{1,3}}\s?[-−*/·]|\s?(?:\\?%)?\s?(?:[-*/×÷;:&=^–]|\\times|\\cdot|\\div|to\b)"
_MORE = re.compile(
    rf"(?:(?P<hedge>{_HEDGE})|(?P<series>{_SERIES})|(?P<part>{_PART}))\s{{0,9}}{_NEXT}"
    r"|\s*(?:\\?%)?\s*(?P<factor>\\sqrt|\\pi|[√π!])",
    re.IGNORECASE,
)
"""What makes a number only one of several, or a part of what it stands in, by the kind of the joint."""
_DENIED = re.compile(
    r"(?:\bnot|(?:\A|\b(?:is|was|are|were|does|do|ca|could|would))n['’]?t|\bcannot|\bnever|\bneither|\bnor"
    r"|\\neq?(?![a-z])|\\not\s?=?|≠|(?<![\w)}\]])!=)"
    r"(?:[\s*_$(=:]|\\[(\[$]|\b(?:be|the|an?|equals?|to|exactly|just|simply|only|about|actually|either|answer)\b){0,20}\Z",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    rf"{_UNIT}(?:is|was)(?:(?:\snot|n['’]?t)\s(?:the|an?|my|right|correct)\b|\s(?:wrong|incorrect|false)\b)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?]\s|\n")
_CALCULATION = re.compile(r"[0-9=]")
_ALGEBRA_BEFORE = re.compile(r"(?:[A-Za-z0-9)}]\s*[-+*/^−×·]|\b[A-Za-z]\(|[<>≤≥±])\s*\Z")
_ALGEBRA_AFTER = re.compile(r"\s?[xyznie](?![A-Za-z])|\s*[-+*^−×·]\s*(?:[A-Za-z](?![A-Za-z])|\()")


class Found(NamedTuple):
    """A final answer as written down; ``value`` is None where that is no single number."""

    answer: str
    value: Number | None
    reason: str | None = None


def one_number(text: str, alone: bool = False) -> Found | None:
    """The one number of a stretch of text that states an answer; ``alone``: all of the text must be the answer."""
    text = plain(text)
    match = NUMBER.search(text)
    if match and "=" in text[match.end() :] and _joined(text, match):
        text = text.rpartition("=")[2]
        match = NUMBER.search(text)
    if match is None:
        return None
    if _denied(text, match):
        return _none(text, "says what the answer is not")
    if _joined(text, match) or (alone and _among_others(text, match)):
        return _none(text, "not a single number")
    return found(match)


def last_number(text: str, match: re.Match[str]) -> Found:
    """The last number of a text that marks no answer, unless it is denied, corrects another or hedges with it.

    Prose says ``0.60 or 60%`` and ``12 groups and 5 left`` in passing: numbers joined by ``or`` count where their
    sentence has no other before them, those joined by ``and`` and ``plus`` where they begin it.
    """
    if _denied(text, match):
        return _none(match[0], "says what the answer is not")
    for other in deque(NUMBER.finditer(text, max(0, match.start() - _REACH), match.start()), maxlen=1):
        if _SENTENCE_END.search(text, other.end(), match.start()):
            break
        more = _MORE.match(text, other.end())
        reaches = more is not None and match.start() < more.end() <= match.end()
        before = _SENTENCE_END.split(text[max(0, other.start() - _REACH) : other.start()])[-1]
        opens = {"hedge": not _CALCULATION.search(before), "series": not before.strip(" \t*$(")}
        if more and reaches and opens.get(more.lastgroup or "") and _joined(text, other):
            return _none(text[other.start() : match.end()], "not a single number")
        if _denied(text, other):
            return _none(text[other.start() : match.end()], "says what the answer is not")
    return found(match)


def upheld(number: Found, before: str, after: str) -> Found:
    """A number that is marked as the answer, unless the text around it denies it or names an alternative after it."""
    before = plain(before) + " "
    text = f"{before}{number.answer} {plain(after)}"
    match = NUMBER.match(text, len(before))
    if match is None:
        return number
    if _denied(text, match):
        return _none(number.answer, "says what the answer is not")
    more = _MORE.match(text, match.end())
    hedges = more is not None and more.lastgroup == "hedge" and _joined(text, match)
    return _none(text[match.start() :], "not a single number") if hedges else number


def found(match: re.Match[str]) -> Found:
    value = value_of(match)
    return _none(match[0], "not a number within bounds") if value is None else Found(spelled(value), value)


def _none(text: str, reason: str) -> Found:
    return Found(text.strip()[:MAX_CHARACTERS], None, reason)


def _joined(text: str, match: re.Match[str]) -> bool:
    """Whether what follows joins a number with another one, or makes it a part of something."""
    value = value_of(match)
    while more := _MORE.match(text, match.end()):
        kind = more.lastgroup or ""
        other = NUMBER.search(text, more.end(kind)) if kind in ("hedge", "series") else None
        if other is None or value is None or value_of(other) != value:
            return True
        match = other
    return False


def _denied(text: str, match: re.Match[str]) -> bool:
    before = text[max(0, match.start() - _REACH) : match.start()]
    return bool(_DENIED.search(before) or _DENIED_AFTER.match(text, match.end()))


def _among_others(text: str, match: re.Match[str]) -> bool:
    """Whether there is another number anywhere, or algebra around this one."""
    if _ALGEBRA_BEFORE.search(text[: match.start()]) or _ALGEBRA_AFTER.match(text, match.end()):
        return True
    return any(value_of(other) != value_of(match) for other in NUMBER.finditer(text, match.end()))
