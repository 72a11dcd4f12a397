"""Whether scores are chances to be right, and where in a solution they can be trusted.

Expected calibration error is Guo et al. 2017, arXiv:1706.04599, over bins of equal width; Brier's score is the mean
squared difference of chance and label.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from selftrain.intervals import mean
from selftrain.monitors.scores import auc
from selftrain.prm_evaluation.steps import ScoredSteps, known_steps, near

BINS = 10


def are_probabilities(found: Iterable[ScoredSteps]) -> bool:
    """Whether all scores lie in [0, 1]; others are taken for log-odds."""
    return all(0 <= score <= 1 for one in found for score in one.scores)


def calibration(found: Sequence[ScoredSteps], *, log_odds: bool) -> dict[str, Any]:
    """How far scores are chances to be right, over known steps: ``ece``, ``brier`` and the bins that are not empty.

    Args:
        log_odds: whether scores are log-odds, not probabilities.
    """
    steps = [(_sigmoid(score) if log_odds else score, right) for score, right in known_steps(found)]
    bins: defaultdict[int, list[tuple[float, bool]]] = defaultdict(list)
    for chance, right in steps:
        bins[min(int(chance * BINS), BINS - 1)].append((chance, right))
    rows = [
        {
            "low": i / BINS,
            "high": (i + 1) / BINS,
            "n": len(own),
            "score": mean([c for c, _ in own]),
            "right": _share(own),
        }
        for i, own in sorted(bins.items())
    ]
    gap = math.fsum(row["n"] * abs(row["score"] - row["right"]) for row in rows)
    brier = mean([(chance - right) ** 2 for chance, right in steps])
    shown = [{name: round(value, 4) for name, value in row.items()} for row in rows]
    return {"n": len(steps), "ece": near(gap / max(len(steps), 1)), "brier": near(brier), "bins": shown}


def by_position(found: Sequence[ScoredSteps], threshold: float, *, from_end: bool = False) -> list[dict[str, Any]]:
    """For each place of a step, counted from 0 at the start or the end of its solution: how many known steps stand
    there, the share of wrong ones, how many the threshold tells rightly, and AUC (None where all are of one kind)."""
    places: defaultdict[int, list[tuple[float, bool]]] = defaultdict(list)
    for one in found:
        for step, (score, label) in enumerate(zip(one.scores, one.labels, strict=True)):
            if label in (0, 1):
                places[len(one.scores) - 1 - step if from_end else step].append((score, bool(label)))
    return [
        {
            "place": place,
            "n": len(own),
            "wrong": near(1 - _share(own)),
            "accuracy": near(mean([(score >= threshold) == right for score, right in own])),
            "auc": step_auc(own),
        }
        for place, own in sorted(places.items())
    ]


def step_auc(steps: Sequence[tuple[float, bool]]) -> float | None:
    """The chance that a right step has a larger score than a wrong one."""
    scores = {kind: [score for score, right in steps if right is kind] for kind in (True, False)}
    return near(auc(scores[True], scores[False])) if all(scores.values()) else None


def _sigmoid(score: float) -> float:
    return math.exp(min(score, 0.0)) / (1 + math.exp(-abs(score)))


def _share(steps: Sequence[tuple[float, bool]]) -> float:
    return mean([right for _, right in steps])
