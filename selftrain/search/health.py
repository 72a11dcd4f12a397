"""Whether a value function does what a search needs of it: numbers, differences, the right way round."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

CONSTANT_OVER = 16
"""Nodes of one value from which on it is a warning."""
PAIRS = 16
"""Pairs of a right and a wrong end from which on their order is looked at."""
REVERSED = 0.75
"""Share of them in the wrong order from which on it is a warning."""


@dataclass(slots=True)
class Tally:
    """What a value function said in one tree."""

    asked: int = 0
    no_number: int = 0
    outside: int = 0
    low: float = math.inf
    high: float = -math.inf

    def number(self, value: float) -> float | None:
        """The value in [0, 1]; None where it is no finite number."""
        self.asked += 1
        if not math.isfinite(value):
            self.no_number += 1
            return None
        self.outside += not 0 <= value <= 1
        kept = min(1.0, max(0.0, float(value)))
        self.low, self.high = min(self.low, kept), max(self.high, kept)
        return kept

    def warnings(self) -> list[str]:
        """One line for each thing that is wrong; the same words in every tree, so that trees can be counted by them."""
        told = []
        if self.no_number:
            told.append("the value function gave no number for some nodes, which count as 0")
        if self.outside:
            told.append("some values lay outside [0, 1] and were cut to it")
        if self.asked - self.no_number >= CONSTANT_OVER and self.low == self.high:
            told.append(f"the value function says the same of all nodes ({CONSTANT_OVER} or more)")
        return told


def reversed_told(pairs: Iterable[tuple[float, float]]) -> str | None:
    """What to warn of where wrong responses are valued above right ones; None where nothing is known to be wrong.

    Args:
        pairs: values of a right and a wrong response to the same problem.
    """
    pairs = [*pairs]
    if len(pairs) < PAIRS:
        return None
    below = 1 - fmean((good > bad) + 0.5 * (good == bad) for good, bad in pairs)
    if below < REVERSED:
        return None
    return (
        f"the value function may be reversed: it puts the wrong response above the right one in {below:.0%} of "
        f"{len(pairs)} pairs"
    )
