"""Where the parts of an answer begin and end: brackets that match; commas, ``and`` and ``or`` outside of them."""

from __future__ import annotations

from selftrain.mathematics.tokens import Token

OPENING = {
    "(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\langle": r"\rangle", r"\begin": r"\end",
    r"\lfloor": r"\rfloor", r"\lceil": r"\rceil",
}  # fmt: skip
_CLOSE = frozenset(OPENING.values())
_JOINING = {"and", "or", "und", "oder", "et", "ou", r"\vee", r"\wedge"}


def is_plain_group(tokens: list[Token]) -> bool:
    return not any(token.text == "," for token in tokens)


def closing(tokens: list[Token], start: int) -> int:
    """The index of the bracket that closes the one at ``start``, of whatever kind; -1 where none does."""
    depth = 0
    for index in range(start, len(tokens)):
        text = tokens[index].text
        depth += (text in OPENING) - (text in _CLOSE)
        if depth == 0:
            return index
    return -1


def outside(tokens: list[Token]) -> list[int]:
    """The indices of the tokens outside all brackets."""
    found, depth = [], 0
    for index, token in enumerate(tokens):
        if token.text in OPENING:
            depth += 1
        elif token.text in _CLOSE:
            depth -= 1
        elif depth <= 0:
            found.append(index)
    return found


def parts_of(tokens: list[Token]) -> tuple[list[list[Token]], bool]:
    """The answers of a list, and whether ``or`` joins them."""
    parts: list[list[Token]] = []
    start, alternatives = 0, False
    for index in outside(tokens):
        token = tokens[index]
        word = token.text.lower() if token.kind in ("id", "text") else token.text
        if word in (",", ";", "\\\\", "&") or word in _JOINING:
            alternatives |= word in ("or", "oder", "ou", r"\vee")
            parts.append(tokens[start:index])
            start = index + 1
    parts.append(tokens[start:])
    return [part for part in parts if part and any(token.text not in "{}" for token in part)], alternatives


def is_enclosed(tokens: list[Token]) -> bool:
    return tokens[0].text in OPENING and tokens[0].text != r"\begin" and closing(tokens, 0) == len(tokens) - 1
