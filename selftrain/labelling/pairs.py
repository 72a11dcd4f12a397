"""In which order pairs are taken where not all of them are: the first few hold as many different sides as they can."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TypeVar

Item = TypeVar("Item")


def spread(first: Sequence[Item], second: Sequence[Item]) -> Iterator[tuple[Item, Item]]:
    """Each with each, in an order in which nobody comes again before all of their side have come."""
    around = math.lcm(len(first), len(second))
    for place in range(len(first) * len(second)):
        # After so many pairs both sides stand at their beginning again: from there on the second is one ahead.
        yield first[place % len(first)], second[(place + place // around) % len(second)]


def in_turn(groups: Iterable[Iterable[tuple[Item, Item]]]) -> Iterator[tuple[Item, Item]]:
    """The first pair of each group, then the second of each, and so on."""
    for row in zip_longest(*groups):
        yield from (pair for pair in row if pair is not None)
