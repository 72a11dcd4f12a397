r"""Where the one final answer of a response stands, as text; nothing is interpreted here but its surroundings.

Linear in the length of the response. Boxes that only ``and``, ``or`` or commas join are one answer of several parts.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from selftrain.verifiers.single_number import Found, one_number, upheld

MAX_CHARACTERS = 60_000
"""Of one answer."""
ZONE_CHARACTERS = 1500
_BOXES = 40
_CONTEXT_CHARACTERS = 100
_BETWEEN_CHARACTERS = 90
_RESPONSE_CHARACTERS = 200_000
"""Of a longer response only the end is searched."""

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")
_BARE_BOX = re.compile(r"\\boxed\s+([-+]?[0-9A-Za-z.]{1,20})(?=[\s$.\\]|\Z)")
_WRAPPED = re.compile(r"\\(?:text|mathrm|mbox|textrm)\s*\{([^{}]{0,60})\}|\\(?:q?quad|[()\[\],;!: ])|\$|\*\*")
_NAME = r"(?:[A-Za-z](?:_\{?\w{1,3}\}?)?\s*(?:\([A-Za-z]\))?\s*=)?"
_JOINT = re.compile(
    rf"[\s,;.]*{_NAME}\s*\Z"
    rf"|(?!.*[.!?]\s)[\w\s(),;'’-]{{0,60}}\b(?:and|or|and/or|maybe|possibly|perhaps|also|even)\b[\s,;]*{_NAME}\s*\Z",
    re.DOTALL,
)
_BEFORE_BOX = re.compile(r"(?:\A|[\s$,;(])([A-Za-z](?:_\{?\w{1,3}\}?)?(?:\([A-Za-z]\))?)\s*=\s*\$?\s*\Z")
_NAME_CHARACTERS = 30
_OR = re.compile(r"\b(?:or|maybe|possibly|perhaps)\b")
_STATED = re.compile(
    r"\banswer\b\**(?:[^.\n:=?]{0,60}?\b(?:is|was|are|equals)\b|\s*(?:\([^()\n]{0,30}\)\s*)?[:=])\**:?"
    r"|^[#*_ \t]{0,9}(?:final )?answer[*_ \t]{0,9}$",
    re.IGNORECASE | re.MULTILINE,
)
_BLANK = re.compile(r"[\s*:_\"“”]*")
_SENTENCE_END = re.compile(r"[.!?](?=\s|\Z|[\"”*])|\n|<\|")
_MATH = re.compile(
    r"\$\$(.{1,800}?)\$\$|\$((?:[^$\\]|\\.){1,800}?)\$|\\\((.{1,800}?)\\\)|\\\[(.{1,800}?)\\\]",
    re.DOTALL,
)
_ALTERNATIVE = re.compile(
    r"[\s$.,;)\]*]{0,10}(?:\\[)\]])?[\s,(]{0,4}(?:or|maybe|perhaps|possibly|alternatively)\s(?:maybe |perhaps |even )?"
    r"(?:\$|\\\(|\\\[|[A-Za-z]\s*=)"
)

_GOES_ON = re.compile(r"[\s,;(]{0,5}(?:and|or|maybe|perhaps|possibly|plus|minus)\b")


class Final(NamedTuple):
    """The final answer as it is written; ``reason`` where it is none, since it is denied or one of several."""

    text: str
    marked: bool
    reason: str | None = None


def tail(response: str) -> str:
    return response[-_RESPONSE_CHARACTERS:]


def boxed(text: str) -> Final | None:
    """The last box, with those it is joined to."""
    boxes = list(_boxes(text))
    if not boxes:
        return None
    chosen = [boxes[-1]]
    either = False
    for box in reversed(boxes[:-1]):
        between = text[box[2] : chosen[0][0]]
        if len(between) > _BETWEEN_CHARACTERS or "\n\n" in between.strip(" "):
            break
        plain = _WRAPPED.sub(lambda match: f" {match[1] or ''} ", between)
        if not _JOINT.match(plain):
            break
        either |= bool(_OR.search(plain))
        chosen.insert(0, box)
    names = [_BEFORE_BOX.search(text, max(0, start - _NAME_CHARACTERS), start) for start, _, _ in chosen]
    found = [name[1] for name in names if name]
    if 1 < len(found) == len(chosen) == len(set(found)):  # x = \boxed{1}, y = \boxed{2}
        chosen = [
            (start, f"{name} = {content}", end) for name, (start, content, end) in zip(found, chosen, strict=True)
        ]
    contents = list(dict.fromkeys(content.strip() for _, content, _ in chosen))
    answer = (" or " if either else " , ").join(contents)
    if len(contents) > 1:
        return Final(answer, True)
    return _in_context(answer, text, chosen[0][0], chosen[-1][2])


def _boxes(text: str) -> Iterator[tuple[int, str, int]]:
    """Start, content and end of the last closed boxes, the outermost of nested ones."""
    reached = 0
    for match in deque(_BOX.finditer(text), maxlen=_BOXES):
        if match.start() < reached:
            continue
        end = _closing(text, match.end())
        if end is not None:
            yield match.start(), text[match.end() : end], end + 1
            reached = end
    if not reached and (bare := deque(_BARE_BOX.finditer(text), maxlen=1)):
        yield bare[0].start(), bare[0][1], bare[0].end()


def _closing(text: str, start: int) -> int | None:
    """Where the brace that was opened just before ``start`` closes, if within reach."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start, start + MAX_CHARACTERS):
        depth += (match[0] == "{") - (match[0] == "}")
        if depth == 0:
            return match.start()
    return None


def _in_context(answer: str, text: str, start: int, end: int) -> Final:
    """An answer, unless the words around it deny it or name another."""
    before, after = text[max(0, start - _CONTEXT_CHARACTERS) : start], text[end : end + _CONTEXT_CHARACTERS]
    number = one_number(answer, alone=True) if len(answer) < _CONTEXT_CHARACTERS else None
    kept = upheld(number if number and number.value is not None else Found("1", 1), before, after)
    if kept.value is None:
        return Final(answer, True, kept.reason)
    return Final(answer, True, "several answers" if _ALTERNATIVE.match(after) else None)


def tagged(text: str) -> str | None:
    """What stands in the last ``<answer>``."""
    at = text.rfind("<answer>")
    return text[at + 8 :].partition("</answer>")[0].strip() or None if at >= 0 else None


def hashed(text: str) -> str | None:
    """The line after the last ``####``."""
    at = text.rfind("####")
    return text[at + 4 :].lstrip("# \t").partition("\n")[0].strip() or None if at >= 0 else None


def stated(text: str) -> str | None:
    """What follows the last ``answer is`` or ``answer:``, up to the end of the sentence; mathematics may go on."""
    if "nswer" not in text and "NSWER" not in text:
        return None
    match = next(iter(deque(_STATED.finditer(text), maxlen=1)), None)
    if match is None:
        return None
    blank = _BLANK.match(text, match.end())
    rest = text[blank.end() if blank else match.end() :][:ZONE_CHARACTERS]
    opening = _MATH.match(rest)
    reach = opening.end() if opening else 0
    stop = _SENTENCE_END.search(rest, reach)
    return rest[: stop.start()].strip(" *_\"“”'") if stop else rest.strip(" *_\"“”'")


def opening(sentence: str) -> str | None:
    """The piece of mathematics that a sentence begins with; all of the sentence where ``and`` or ``or`` goes on."""
    match = _MATH.match(sentence)
    if match is None:
        return None
    return sentence if _GOES_ON.match(sentence, match.end()) else next(group for group in match.groups() if group)


def formulas(text: str) -> list[tuple[str, int]]:
    """The last pieces of mathematics in a text, and where each ends."""
    found = deque(_MATH.finditer(text), maxlen=20)
    return [(next(group for group in match.groups() if group), match.end()) for match in found]
