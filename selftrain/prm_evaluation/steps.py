"""Scored steps beside their labels, and what the modules of this package share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from selftrain.labelling.monte_carlo import first_wrong


@dataclass(frozen=True, slots=True)
class ScoredSteps:
    """The steps of one solution: what they were given, and what is known of them."""

    problem: str
    """Names the problem."""
    scores: tuple[float, ...]
    """Larger: more likely right."""
    labels: tuple[float | None, ...]
    """1 right, 0 wrong, None not known."""

    @property
    def first(self) -> int:
        """Index of the first wrong step; -1: none is."""
        return first_wrong(self.labels)

    def predicted(self, threshold: float) -> int:
        """Index of the first step with a score below the threshold; -1: there is none."""
        return next((step for step, score in enumerate(self.scores) if score < threshold), -1)

    def least(self) -> int:
        """Index of the step with the least score, the earliest of equals."""
        return self.scores.index(min(self.scores))


def known_steps(found: Iterable[ScoredSteps]) -> list[tuple[float, bool]]:
    """Score and whether it is right of every step that is known to be either."""
    return [
        (score, bool(label))
        for one in found
        for score, label in zip(one.scores, one.labels, strict=True)
        if label in (0, 1)
    ]


def grouped(values: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    """Values by problem."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for problem, value in values:
        found[problem].append(value)
    return found


def rounded(values: Iterable[float]) -> list[float]:
    return [near(value) for value in values]


def near(value: float) -> float:
    return round(value, 4)
