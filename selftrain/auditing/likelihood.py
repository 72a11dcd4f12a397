"""The interval of a share over strata by its likelihood ratio.

In the interval is every sum for which ``2 (log L(best) - log L(best with that sum))`` is at most the 95 % quantile of
chi-squared with one degree of freedom (Owen 2001, "Empirical Likelihood", 2.3; for strata, Zhong and Rao 2000). All
strata move at once, each where it is likeliest, so that one without a mistake does not widen the interval by all that
it leaves open, as it does where bounds of the strata are put together.

With few judgements this holds too rarely. So each stratum gets a little more of either kind, as an adjusted empirical
likelihood gets one observation more (Chen, Variyath and Abraham 2008); how little is from simulation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from selftrain.intervals import Z95

ADDED = 0.1
"""Judgements of either kind added to each stratum, for the interval only."""


class Part(NamedTuple):
    """A stratum."""

    weight: float
    """Its part of the whole."""
    share: float
    """Of those judged, those of the kind that is counted."""
    judged: float
    """How many draws with replacement tell as much; infinite where nothing is left to judge."""


def interval(parts: Sequence[Part]) -> tuple[float, float]:
    """Bounds of the sum of ``weight * share``; the sum itself is inside."""
    value = math.fsum(part.weight * part.share for part in parts)
    whole = math.fsum(part.weight for part in parts)
    mirrored = [part._replace(share=1 - part.share) for part in parts]
    return min(value, _lowest(parts)), max(value, whole - _lowest(mirrored))


def _lowest(parts: Sequence[Part]) -> float:
    """The lowest sum that is likely enough."""
    known = math.fsum(part.weight * part.share for part in parts if math.isinf(part.judged))
    open_ = [part for part in parts if not math.isinf(part.judged)]
    found = [(part.weight, part.share * part.judged + ADDED, part.judged + 2 * ADDED) for part in open_]

    def shares(push: float) -> list[float]:
        """Most likely ones of a lower sum: p where ``y / p - (n - y) / (1 - p) = push * weight``, a root in (0, 1)."""
        return [_root(push * weight, y, n) for weight, y, n in found]

    def unlikely(push: float) -> bool:
        rows = zip(found, shares(push), strict=True)
        return 2 * math.fsum(_loss(y, n, p) for (_, y, n), p in rows) > Z95**2

    low, high = 0.0, 1.0
    while found and not unlikely(high):
        low, high = high, 4 * high
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if unlikely(middle) else (middle, high)
    return known + math.fsum(weight * p for (weight, _, _), p in zip(found, shares(low), strict=True))


def _root(a: float, y: float, n: float) -> float:
    return 2 * y / (a + n + math.sqrt((a + n) ** 2 - 4 * a * y))


def _loss(y: float, n: float, p: float) -> float:
    """Log-likelihood that p lacks of that of ``y / n``."""
    return y * math.log(y / n / p) + (n - y) * math.log((1 - y / n) / (1 - p))
