"""Means over problems with 95 % intervals, and paired tests of two sides on the same problems.

Sources: the interval of a proportion is Wilson 1927; the exact test of paired 0/1 values is McNemar 1947, the interval
of their difference Bonett and Price 2012 (adjusted Wald). What is not 0/1 (averages over samples) gets Student's t,
paired for tests. Where it is all equal it has no spread for that: how many problems of another value there may be is
bounded instead, as Clopper and Pearson 1934 do where none of n was seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Z95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""


class Estimate(NamedTuple):
    """A mean over problems and its 95 % interval."""

    mean: float
    low: float
    high: float


class PairedTest(NamedTuple):
    """Mean of ``after - before`` over problems, its 95 % interval and the two-sided p-value of "no difference"."""

    difference: float
    low: float
    high: float
    p: float


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean of one value per problem, with its 95 % interval over problems, inside [0, 1].

    Wilson's score interval where every value is 0 or 1, Student's t otherwise; `unseen` bounds it where all values are
    equal, [0, 1] for one alone. No value: mean NaN, interval [0, 1].
    """
    n = len(values)
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0)
    average = mean(values)
    if all(value in (0, 1) for value in values):
        return _wilson(average, n)
    if not (error := _standard_error(values)):
        return Estimate(average, *_all_equal(average, n, 0.0))
    margin = _t_quantile(n - 1) * error
    return Estimate(average, max(0.0, average - margin), min(1.0, average + margin))


def unseen(n: int) -> float:
    """Largest share of problems with another value than the one that all n drawn ones have, at 95 %.

    It is 1 - 0.05^(1/(n-1)), as of n - 1 trials without a success: the first one says which value it is about. Were the
    share s larger, the others would have that value with probability (1 - s)^(n-1) < 0.05.
    """
    return 1.0 - 0.05 ** (1 / (n - 1)) if n > 1 else 1.0


def paired_test(before: Mapping[str, float], after: Mapping[str, float]) -> PairedTest:
    """Did the values of the same problems change? ``before`` and ``after`` map problem id to a value in [0, 1].

    Exact McNemar test where all values are 0 or 1, paired t-test otherwise. Identical values give p = 1.

    Raises:
        ValueError: the two sides are not about the same problems, or about none.
    """
    if before.keys() != after.keys():
        shared = len(before.keys() & after.keys())
        raise ValueError(
            f"a paired test needs the same problems on both sides: {len(before)} and {len(after)}, {shared} shared; "
            "evaluate both checkpoints on the same split with the same limit"
        )
    if not before:
        raise ValueError("a paired test needs at least one problem")
    differences = [after[key] - before[key] for key in before]
    if all(value in (0, 1) for value in (*before.values(), *after.values())):
        return _mcnemar(differences.count(1), differences.count(-1), len(differences))
    return _paired_t(differences)


def ratio_test(totals: Sequence[float], sizes: Sequence[int]) -> PairedTest:
    """``sum(totals) / sum(sizes)`` over units of unequal size, its 95 % interval and the p-value of "it is 0".

    Student's t with the standard error of the ratio estimator, ``sqrt(n / (n - 1) sum (t_i - r s_i)^2) / sum s_i``
    (Cochran 1977, "Sampling Techniques", 6.4): units are drawn, and what is in one is not independent.

    Args:
        totals: sum of each unit's values, or of their change.
        sizes: number of values in each.

    Raises:
        ValueError: fewer than two units, which have no spread to go by.
    """
    n, whole = len(totals), sum(sizes)
    if n < 2:
        raise ValueError(f"an interval needs at least two units, there are {n}")
    ratio = math.fsum(totals) / whole
    squares = math.fsum((total - ratio * size) ** 2 for total, size in zip(totals, sizes, strict=True))
    error = math.sqrt(n / (n - 1) * squares) / whole
    if error < 1e-12:
        return PairedTest(ratio, ratio, ratio, 2.0 ** (1 - n) if ratio else 1.0)
    return PairedTest(ratio, *_around(ratio, error, n - 1))


def _around(value: float, error: float, degrees: int) -> tuple[float, float, float]:
    """Student's t: 95 % interval, and the two-sided p-value of 0."""
    from scipy.special import stdtr

    margin = _t_quantile(degrees) * error
    return value - margin, value + margin, 2 * float(stdtr(degrees, -abs(value) / error))


def _wilson(mean: float, n: int) -> Estimate:
    """(p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    centre = mean + Z95**2 / (2 * n)
    margin = Z95 * math.sqrt(mean * (1 - mean) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    # At 0 and 1 the bound is exact; rounding must not put the mean outside its own interval.
    low = 0.0 if mean == 0 else (centre - margin) / scale
    return Estimate(mean, low, 1.0 if mean == 1 else (centre + margin) / scale)


def _mcnemar(gained: int, lost: int, n: int) -> PairedTest:
    """Exact two-sided binomial test on the discordant pairs; interval: Wald on counts with one added to each kind."""
    discordant = gained + lost
    tail = sum(math.comb(discordant, i) for i in range(min(gained, lost) + 1))
    p = min(1.0, 2 * tail / 2**discordant)
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    margin = Z95 * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return PairedTest((gained - lost) / n, max(-1.0, up - down - margin), min(1.0, up - down + margin), p)


def _paired_t(differences: Sequence[float]) -> PairedTest:
    n, average = len(differences), mean(differences)
    if not (error := _standard_error(differences)):
        # All equal: t is infinite, which claims too much for few problems; the exact sign-flip test gives 2 of 2^n.
        return PairedTest(average, *_all_equal(average, n, -1.0), 2.0 ** (1 - n) if average else 1.0)
    low, high, p = _around(average, error, n - 1)
    return PairedTest(average, max(-1.0, low), min(1.0, high), p)


def _all_equal(value: float, n: int, least: float) -> tuple[float, float]:
    """Where a mean may be that n problems have in common: the unseen ones may have any value from ``least`` to 1."""
    share = unseen(n)
    return value - share * (value - least), value + share * (1.0 - value)


def _t_quantile(degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _standard_error(values: Sequence[float]) -> float:
    """0 where all are equal, but for rounding, or there is one."""
    average = mean(values)
    if max(values) - min(values) < 1e-12:
        return 0.0
    return math.sqrt(math.fsum((value - average) ** 2 for value in values) / (len(values) - 1) / len(values))
