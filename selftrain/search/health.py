"""Whether a value function does what a search needs of it: numbers, differences, the right way round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from selftrain.search.tree import Tree

CONSTANT_OVER = 16
"""Nodes of one value from which on it is a warning."""
PAIRS = 4
"""Pairs of a right and a wrong end from which on their order is looked at."""


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

    def warnings(self, tree: Tree) -> list[str]:
        """One line for each thing that is wrong."""
        told = []
        if self.no_number:
            told.append(
                f"the value function gave no number for {self.no_number} of {self.asked} nodes; they count as 0"
            )
        if self.outside:
            told.append(f"{self.outside} of {self.asked} values lay outside [0, 1] and were cut to it")
        if self.asked - self.no_number >= CONSTANT_OVER and self.low == self.high:
            told.append(f"the value function says {self.low:g} of all {self.asked - self.no_number} nodes")
        told += _reversed(tree)
        return told


def _reversed(tree: Tree) -> list[str]:
    ends = [(end.right, end.value) for end in tree.ends() if end.right is not None and end.value is not None]
    right = [value for credit, value in ends if credit >= 0.5]
    wrong = [value for credit, value in ends if credit < 0.5]
    below = 1 - concordance(right, wrong) if len(right) * len(wrong) >= PAIRS else 0.0
    if below < 0.75:
        return []
    share = f"{below:.0%} of {len(right) * len(wrong)} pairs"
    return [f"the value function may be reversed: it puts the wrong end above the right one in {share}"]


def concordance(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Share of pairs whose right one has the larger value; ties count half. Needs one of each."""
    pairs = [(good > bad) + 0.5 * (good == bad) for good in right for bad in wrong]
    return sum(pairs) / len(pairs)
