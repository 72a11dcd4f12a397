"""Where the steps of a response end, as spans of its own tokens.

A step is what stands before a separator, the separator with it. The response is never encoded again: prefixes that are
written out and encoded anew end a token or two inside the next step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

REMEMBERED = 1 << 18
"""Pairs of tokens."""


class Pieces:
    """The text of each token of a response, as it reads behind the one before it: a word's space belongs to the word.

    Pairs of tokens come again and again, and are decoded once.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._behind = lru_cache(REMEMBERED)(self._decoded)

    def of(self, ids: Sequence[int]) -> list[str]:
        return [self._behind(*pair) for pair in pairwise((None, *ids))]

    def _decoded(self, before: int | None, token: int) -> str:
        if before is None:
            return self._text([token])
        return self._text([before, token])[len(self._text([before])) :]

    def _text(self, ids: list[int]) -> str:
        # Tidying up would take away spaces of the one that stand in the other.
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Those of one response."""
    return Pieces(tokenizer).of(ids)


def step_ends(texts: Sequence[str], separator: str) -> tuple[int, ...]:
    """Exclusive ends of the steps of tokens with these texts; the last one is their number.

    Separators that follow each other, and those with nothing but white space before them, end no step of their own.
    """
    ends: list[int] = []
    text, begun = "", 0
    for place, piece in enumerate(texts):
        text += piece
        while (at := text.find(separator, begun)) >= 0:
            if text[begun:at].strip() and (not ends or ends[-1] <= place):
                ends.append(place + 1)
            begun = at + len(separator)
    if not text[begun:].strip() and ends:
        ends.pop()  # What follows the last separator, if no more than the end token, belongs to the last step.
    return tuple(dict.fromkeys([*ends, len(texts)])) if texts else ()


def step_targets(
    texts: Sequence[str], separator: str, steps: Sequence[str], labels: Sequence[float | None]
) -> tuple[float, ...]:
    """Where a response of labelled steps, joined by the separator, is told what it is worth: one target per token, NaN
    for none.

    The label of a step stands where the step ends for who reads the response by the separator alone; where a step holds
    separators inside, nothing is said of its parts.

    Raises:
        ValueError: its tokens do not keep the steps apart.
    """
    ends = step_ends(texts, separator)
    parts = [sum(bool(part.strip()) for part in step.split(separator)) for step in steps]
    if len(ends) != sum(parts):
        raise ValueError(
            f"the tokens of its response end {len(ends)} steps by {separator!r}, and it has {sum(parts)}: one token "
            "holds the end of several, or none can be told; choose another separator"
        )
    targets = [math.nan] * len(texts)
    for last, label in zip(accumulate(parts), labels, strict=True):
        targets[ends[last - 1] - 1] = math.nan if label is None else label
    return tuple(targets)
