"""Ways to find the first wrong step of a solution that has one, each against the others, problem by problem."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selftrain.intervals import mean, mean_interval, paired_test
from selftrain.prm_evaluation.steps import ScoredSteps, grouped, rounded

LEAST, THRESHOLD, CHANCE, POSITION = "least step", "threshold", "chance", "position"


def position_prior(lengths_and_firsts: Iterable[tuple[int, int]]) -> dict[int, int]:
    """By number of steps: where the first wrong one most often is, the earliest of equals; 0 for other numbers.

    Args:
        lengths_and_firsts: of solutions with a wrong step, other ones than those reported on.
    """
    counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for steps, first in lengths_and_firsts:
        counts[steps][first] += 1
    return defaultdict(int, {n: min(own, key=lambda place: (-own[place], place)) for n, own in counts.items()})


def finding(found: Sequence[ScoredSteps], threshold: float, prior: Mapping[int, int] | None) -> dict[str, Any]:
    """On solutions with a wrong step: how often the step with the least score is the first wrong one, and the first
    below the threshold, against a step at random and the place that is most often the first wrong one.

    Args:
        prior: as `position_prior`; None: it is not known.
    """
    hits: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
    for one in found:
        if (first := one.first) >= 0:
            hits[LEAST].append((one.problem, float(one.least() == first)))
            hits[THRESHOLD].append((one.problem, float(one.predicted(threshold) == first)))
            hits[CHANCE].append((one.problem, 1 / len(one.scores)))
            if prior is not None:
                hits[POSITION].append((one.problem, float(prior[len(one.scores)] == first)))
    return told_apart(hits, LEAST) if hits[LEAST] else {}


def told_apart(hits: Mapping[str, Sequence[tuple[str, float]]], own: str) -> dict[str, Any]:
    """The mean of every way over problems with its interval, and how far one of them is above each other one.

    Args:
        hits: by way of finding the first wrong step: problem and hit, one for each solution.
        own: the way that is compared.
    """
    means = {way: {problem: mean(of) for problem, of in grouped(told).items()} for way, told in hits.items()}
    tests = {way: paired_test(other, means[own]) for way, other in means.items() if way != own}
    return {
        **{way: rounded(mean_interval(list(of.values()))) for way, of in means.items()},
        "against": {way: {k: float(f"{v:.4g}") for k, v in test._asdict().items()} for way, test in tests.items()},
    }
