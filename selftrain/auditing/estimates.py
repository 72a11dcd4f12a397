"""How often a verifier is wrong, and the share of right answers corrected for it, from a stratified hand audit.

A population of N judged responses is split into strata whose sizes N_h are known; of each, k_h drawn at random without
replacement are judged by hand, y_h of them found right. Every number here is a sum over strata of known weights
times such shares (Cochran 1977, "Sampling Techniques", 5A), so nothing is assumed about how the verifier errs.

Where strata follow the verdicts, this equals the correction of Rogan and Gladen 1978, (q - FP) / (1 - FN - FP), with
rates of the same audit; that formula itself is here for rates measured elsewhere.

Intervals: that of the share that is right follows from the likelihood ratio (`selftrain.auditing.likelihood`). For the
rates, each share gets Jeffreys' interval (Brown, Cai and DasGupta 2001), made for a finite stratum; those of a sum are
recovered from those of its parts (MOVER: Zou, Huang and Zhang 2009), those of a ratio too (Donner and Zou 2012).
`benchmarks/audit_study.py` measures how often they hold the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from selftrain.auditing.likelihood import Part, interval
from selftrain.intervals import Z95, Estimate, mean

HALF = 0.025
"""Chance left out on each side."""
COUNTED = 200
"""Responses of a stratum left unjudged up to which they are counted one by one."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """What is known of one stratum."""

    name: str
    size: int
    """Responses it holds."""
    accepted: bool
    """Whether the verifier calls them right."""
    judged: int
    """Of them by hand, at least one."""
    right: int
    """Of those judged, found right."""

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.judged <= self.size or self.judged < 1:
            raise ValueError(f"stratum '{self.name}': {self.right} right of {self.judged} judged of {self.size}")

    @property
    def share(self) -> float:
        return self.right / self.judged

    @property
    def effective(self) -> float:
        """Draws with replacement that tell as much; infinite where all are judged.

        The variance of a draw without is p(1 - p) / k * (N - k) / (N - 1), as of k (N - 1) / (N - k) with it.
        """
        left = self.size - self.judged
        return self.judged * (self.size - 1) / left if left else math.inf


class Audit(NamedTuple):
    """What an audit says of a verifier, each number with its 95 % interval."""

    apparent: float
    """Share the verifier accepts."""
    corrected: Estimate
    """Share that is right."""
    false_positive: Estimate
    """Of the wrong responses, the share it accepts; NaN where the audit found none wrong."""
    false_negative: Estimate
    """Of the right responses, the share it does not accept; NaN where the audit found none right."""
    accepted_wrong: Estimate
    """Of the accepted responses, the share that is wrong: what would be taught."""


def audit(strata: Sequence[Stratum], spread: float = 0.0) -> Audit:
    """All numbers of an audit.

    Args:
        spread: variance of the share that is right over other draws of problems, from `spread_over_problems`; 0: the
            interval is about these very responses.
    """
    whole = sum(stratum.size for stratum in strata)
    accepted = [stratum for stratum in strata if stratum.accepted]
    rejected = [stratum for stratum in strata if not stratum.accepted]
    kept = sum(stratum.size for stratum in accepted)
    wrong = [_total(side, whole, right=False) for side in (accepted, rejected)]
    right = [_total(side, whole, right=True) for side in (accepted, rejected)]
    return Audit(
        kept / whole,
        with_spread(_corrected(strata, whole), spread),
        _part(wrong[0], wrong[1]),
        _part(right[1], right[0]),
        _inside(_total(accepted, kept, right=False)) if accepted else Estimate(math.nan, 0.0, 1.0),
    )


def rogan_gladen(apparent: float, false_positive: float, false_negative: float) -> float:
    """Share that is right where a verifier with these rates accepts the share ``apparent``; inside [0, 1].

    (q - FP) / (1 - FN - FP): Rogan and Gladen 1978, equation 2.

    Raises:
        ValueError: the rates make acceptance no evidence of being right (FP + FN >= 1).
    """
    if false_positive + false_negative >= 1:
        raise ValueError(
            f"rates {false_positive:g} and {false_negative:g} add up to 1 or more: nothing can be corrected"
        )
    return min(1.0, max(0.0, (apparent - false_positive) / (1 - false_negative - false_positive)))


def spread_over_problems(problems: Iterable[Mapping[str, int]], shares: Mapping[str, float]) -> float:
    """Variance of the mean over problems of the share that is right, were other problems drawn.

    With m_j the mean of the strata's shares over the responses of problem j: ``(var(m_j) + mean(m(1 - m))) / J``, where
    the second term holds what the strata do not tell (law of total variance). It takes the verifier's errors on one
    problem as fully dependent, as those of a wrong gold answer are: at worst the interval is too wide.

    Args:
        problems: for each, the number of its responses by stratum.
        shares: share that is right by stratum.
    """
    means, rest = [], []
    for counts in problems:
        n = sum(counts.values())
        means.append(math.fsum(count * shares[name] for name, count in counts.items()) / n)
        rest.append(math.fsum(count * shares[name] * (1 - shares[name]) for name, count in counts.items()) / n)
    if len(means) < 2:
        return 0.25
    centre = mean(means)
    between = math.fsum((value - centre) ** 2 for value in means) / (len(means) - 1)
    return (between + mean(rest)) / len(means)


def with_spread(estimate: Estimate, spread: float) -> Estimate:
    """The interval over problems, by MOVER: Wilson's score interval for a share of the variance ``spread`` on top."""
    value, low, high = estimate
    if spread <= 0:
        return _inside(estimate)
    n = value * (1 - value) / spread if 0 < value < 1 else 0.25 / spread
    centre = (value + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    margin = Z95 * math.sqrt(value * (1 - value) / n + Z95**2 / (4 * n * n)) / (1 + Z95**2 / n)
    down = math.hypot(value - low, value - (centre - margin))
    return _inside(Estimate(value, value - down, value + math.hypot(high - value, centre + margin - value)))


def jeffreys(right: float, judged: float) -> tuple[float, float]:
    """Quantiles of Beta(y + 1/2, k - y + 1/2); 0 and 1 where all are of one kind (Brown et al. 2001, 3.1.3)."""
    from scipy.special import betaincinv

    a, b = right + 0.5, judged - right + 0.5
    low = 0.0 if right <= 0 else float(betaincinv(a, b, HALF))
    return low, 1.0 if right >= judged else float(betaincinv(a, b, 1 - HALF))


@lru_cache(maxsize=4096)
def bounds(stratum: Stratum) -> tuple[float, float]:
    """Of the share of a stratum that is right: what was judged is known, the rest is predicted from it."""
    left = stratum.size - stratum.judged
    if left <= COUNTED:
        low, high = predicted(stratum.right, stratum.judged, left)
        return (stratum.right + low) / stratum.size, (stratum.right + high) / stratum.size
    return jeffreys(stratum.share * stratum.effective, stratum.effective)


def predicted(right: int, judged: int, left: int) -> tuple[int, int]:
    """How many of those left are right: quantiles of the beta-binomial distribution that Jeffreys' prior leads to.

    P(m) = C(n, m) B(m + a, n - m + b) / B(a, b); 0 and all where those judged are of one kind.
    """
    a, b = right + 0.5, judged - right + 0.5
    mass = math.exp(_log_beta(a, left + b) - _log_beta(a, b))
    below, low, m = 0.0, 0, 0
    while below + mass < 1 - HALF and m < left:
        below += mass
        mass *= (left - m) * (m + a) / ((m + 1) * (left - m - 1 + b))
        m += 1
        low = m if below < HALF else low
    return (0 if right == 0 else low), (left if right == judged else m)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _corrected(strata: Sequence[Stratum], whole: int) -> Estimate:
    """The share that is right: sum W_h p_h."""
    parts = [Part(stratum.size / whole, stratum.share, stratum.effective) for stratum in strata]
    value = math.fsum(part.weight * part.share for part in parts)
    return Estimate(value, *interval(parts))


def _total(strata: Sequence[Stratum], whole: int, *, right: bool) -> Estimate:
    """sum W_h p_h; its bounds lie ``sqrt(sum W_h^2 (p_h - bound_h)^2)`` away: MOVER, Zou, Huang and Zhang 2009."""
    value = down = up = 0.0
    for stratum in strata:
        weight, (low, high) = stratum.size / whole, bounds(stratum)
        share, low, high = (stratum.share, low, high) if right else (1 - stratum.share, 1 - high, 1 - low)
        value += weight * share
        down += (weight * (share - low)) ** 2
        up += (weight * (high - share)) ** 2
    return Estimate(value, value - math.sqrt(down), value + math.sqrt(up))


def _part(part: Estimate, rest: Estimate) -> Estimate:
    """``a / (a + b)`` of two independent sums; NaN where both are 0.

    Its ends are the t at which an end of the MOVER interval of ``(1 - t) a - t b`` is 0 (Donner and Zou 2012, 2.2).
    """
    a, b = part.mean, rest.mean
    if a + b <= 0:
        return Estimate(math.nan, 0.0, 1.0)
    value = a / (a + b)

    def above(t: float, down: float, up: float) -> bool:
        """Whether ``(1 - t) a - t b`` is farther from 0 than the distances of the ends of a and b explain."""
        return abs((1 - t) * a - t * b) > math.hypot((1 - t) * down, t * up)

    low = _edge(value, 0.0, lambda t: above(t, a - part.low, rest.high - b))
    return Estimate(value, low, _edge(value, 1.0, lambda t: above(t, part.high - a, b - rest.low)))


def _edge(inside: float, end: float, outside: Callable[[float], bool]) -> float:
    """Where, on the way from a value to an end of the scale, what is outside begins; by halving."""
    if not outside(end):
        return end
    for _ in range(60):
        middle = (inside + end) / 2
        inside, end = (inside, middle) if outside(middle) else (middle, end)
    return end


def _inside(estimate: Estimate) -> Estimate:
    value, low, high = estimate
    value = min(1.0, max(0.0, value))
    return Estimate(value, min(value, max(0.0, low)), max(value, min(1.0, high)))
