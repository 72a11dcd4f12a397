"""Finding the first wrong step, as ProcessBench counts it (Zheng et al. 2024, arXiv:2412.06559).

The first step whose score is below a threshold is said to be the first wrong one, none where no score is. A solution is
a hit where that is exactly so; F1 is the harmonic mean of the shares of hits among solutions with a wrong step and
among those without. The threshold is chosen on other solutions than those reported on.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from selftrain.intervals import mean, mean_interval, ratio_test
from selftrain.prm_evaluation.steps import ScoredSteps, grouped, rounded

DRAWS = 1000
"""Of problems, for the interval of F1."""


def f1(erroneous: float, correct: float) -> float:
    """Harmonic mean of the two accuracies; 0 where both are."""
    return 2 * erroneous * correct / (erroneous + correct) if erroneous + correct else 0.0


def best_threshold(found: Sequence[ScoredSteps]) -> float:
    """The threshold with the largest F1 on these solutions, in the middle of the range over which it is the same.

    Exact: a solution is a hit over one range of thresholds. With a wrong step ``k`` it is (score of k, least score
    before k], without one everything up to the least score.

    Raises:
        ValueError: not one solution has a wrong step, or not one has none.
    """
    ranges = [(one.first >= 0, *_hit_range(one)) for one in found]
    counts = Counter(is_wrong for is_wrong, _, _ in ranges)
    if not (counts[True] and counts[False]):
        missing = "with a wrong step" if counts[False] else "without a wrong step"
        raise ValueError(f"a threshold needs solutions of both kinds, and there is none {missing}")
    cuts = sorted({edge for _, low, high in ranges for edge in (low, high) if math.isfinite(edge)})
    changes = {kind: [0] * (len(cuts) + 2) for kind in (True, False)}
    for is_wrong, low, high in ranges:
        if low < high:  # Stretch i lies above cut i - 1 and reaches to cut i.
            changes[is_wrong][bisect_left(cuts, low) + 1 if low > -math.inf else 0] += 1
            changes[is_wrong][bisect_left(cuts, high) + 1] -= 1
    hits = zip(accumulate(changes[True]), accumulate(changes[False]), strict=True)
    values = [f1(wrong / counts[True], right / counts[False]) for wrong, right in hits][: len(cuts) + 1]
    begin = values.index(max(values))
    end = next((i for i in range(begin, len(values)) if values[i] != values[begin]), len(values)) - 1
    return _between(cuts, begin, end)


def _hit_range(one: ScoredSteps) -> tuple[float, float]:
    """Thresholds above the first and up to the second make it a hit."""
    if one.first < 0:
        return -math.inf, min(one.scores)
    return one.scores[one.first], min(one.scores[: one.first], default=math.inf)


def _between(cuts: Sequence[float], begin: int, end: int) -> float:
    """The middle of some stretches; beyond the last cut, right behind it."""
    if begin == 0:
        return cuts[min(end, len(cuts) - 1)]
    low = cuts[begin - 1]
    middle = (low + cuts[min(end, len(cuts) - 1)]) / 2
    return middle if middle > low else math.nextafter(low, math.inf)


def located(found: Sequence[ScoredSteps], threshold: float) -> dict[str, Any]:
    """The protocol's numbers: ``erroneous``, ``correct`` and ``f1``, each ``[value, low, high]``, or None where there
    is no such solution; and how many there are."""
    hits = [(one.problem, one.first >= 0, float(one.predicted(threshold) == one.first)) for one in found]
    kinds = {kind: [(problem, hit) for problem, is_wrong, hit in hits if is_wrong is kind] for kind in (True, False)}
    shares = {kind: _share(own) if own else None for kind, own in kinds.items()}
    wrong, right = shares[True], shares[False]
    both = wrong is not None and right is not None
    return {
        "n_erroneous": len(kinds[True]),
        "n_correct": len(kinds[False]),
        "threshold": threshold,
        "erroneous": wrong,
        "correct": right,
        "f1": rounded([f1(_mean(kinds[True]), _mean(kinds[False])), *_f1_bounds(hits)]) if both else None,
    }


def _mean(hits: Sequence[tuple[str, float]]) -> float:
    return mean([hit for _, hit in hits])


def _share(hits: Sequence[tuple[str, float]]) -> list[float]:
    """Share of hits with its interval: Wilson's where every problem has one solution, or all problems have the same
    share and no spread to go by."""
    groups = grouped(hits)
    if len(groups) == len(hits) or len(groups) == 1:
        return rounded(mean_interval([hit for _, hit in hits]))
    if len({mean(own) for own in groups.values()}) == 1:
        return rounded(mean_interval([mean(own) for own in groups.values()]))
    test = ratio_test([math.fsum(own) for own in groups.values()], [len(own) for own in groups.values()])
    return rounded([test.difference, max(0.0, test.low), min(1.0, test.high)])


def _f1_bounds(hits: Sequence[tuple[str, bool, float]]) -> tuple[float, float]:
    """Bootstrap over problems: quantiles of F1 where both kinds were drawn."""
    import numpy as np

    counts: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    for problem, is_wrong, hit in hits:
        counts[problem][0 if is_wrong else 2] += hit
        counts[problem][1 if is_wrong else 3] += 1
    n = len(counts)
    drawn = np.random.default_rng(0).multinomial(n, [1 / n] * n, size=DRAWS) @ np.array(list(counts.values()))
    whole = drawn[(drawn[:, 1] > 0) & (drawn[:, 3] > 0)]
    wrong, right = whole[:, 0] / whole[:, 1], whole[:, 2] / whole[:, 3]
    values = np.divide(2 * wrong * right, wrong + right, out=np.zeros(len(whole)), where=wrong + right > 0)
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (0.0, 1.0)
    return float(low), float(high)
