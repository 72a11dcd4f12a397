"""Estimates of an audit: closed-form numbers, and intervals that hold in simulation."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selftrain.auditing.estimates import Stratum, audit, bounds, jeffreys, predicted, rogan_gladen, spread_over_problems
from selftrain.auditing.likelihood import Part, interval

TWO = [Stratum("t: right", 600, True, 60, 57), Stratum("t: wrong", 400, False, 40, 8)]


def test_the_share_that_is_right_is_the_weighted_sum() -> None:
    said = audit(TWO)
    assert said.apparent == 0.6
    assert said.corrected.mean == pytest.approx(0.6 * 0.95 + 0.4 * 0.2)  # 0.65
    assert said.false_positive.mean == pytest.approx(0.03 / 0.35)
    assert said.false_negative.mean == pytest.approx(0.08 / 0.65)
    assert said.accepted_wrong.mean == pytest.approx(0.05)


def test_it_is_the_correction_of_rogan_and_gladen() -> None:
    said = audit(TWO)
    assert rogan_gladen(said.apparent, said.false_positive.mean, said.false_negative.mean) == pytest.approx(0.65)
    # Rogan and Gladen 1978: 12 % test positive, sensitivity 0.9, specificity 0.95.
    assert rogan_gladen(0.12, 0.05, 0.1) == pytest.approx(0.07 / 0.85)
    assert rogan_gladen(0.01, 0.05, 0.1) == 0.0
    with pytest.raises(ValueError, match="add up to 1"):
        rogan_gladen(0.5, 0.6, 0.4)


def test_intervals_by_hand() -> None:
    # Brown, Cai and DasGupta 2001: 0 and n hold their ends; Beta(1.5, 9.5) and Beta(0.5, 10.5) quantiles.
    assert jeffreys(0, 10) == pytest.approx((0.0, 0.21719), abs=1e-5)
    assert jeffreys(10, 10) == pytest.approx((1 - 0.21719, 1.0), abs=1e-5)
    assert jeffreys(1, 10) == pytest.approx((0.01101, 0.38131), abs=1e-5)
    # One of 5 unseen may well be right after 16 wrong ones: P(m = 0) = B(0.5, 21.5) / B(0.5, 16.5) = 0.8745.
    assert predicted(0, 16, 5) == (0, 1) and predicted(16, 16, 5) == (4, 5)
    assert bounds(Stratum("t: wrong", 21, False, 16, 0)) == (0.0, 1 / 21)
    assert predicted(3, 10, 0) == (0, 0)
    # All judged: nothing is left open.
    assert bounds(Stratum("t: right", 10, True, 10, 9)) == (0.9, 0.9)
    said = audit([Stratum("t: right", 10, True, 10, 9), Stratum("t: wrong", 10, False, 10, 1)])
    assert said.corrected == (0.5, 0.5, 0.5)
    # MOVER: one stratum's distance alone where the other is known.
    one = Stratum("t: right", 100_000, True, 50, 40)
    alone = audit([one, Stratum("t: right, odd", 100, True, 100, 100)])
    weight = 100_000 / 100_100
    low, high = bounds(one)
    assert alone.accepted_wrong == pytest.approx((weight * 0.2, weight * (1 - high), weight * (1 - low)))


def test_the_interval_by_the_likelihood_ratio() -> None:
    """One share: where the log-likelihood lacks 1.92. Two: the lowest and highest sum of pairs that lack no more."""

    def lacks(right: float, judged: float, p: Any) -> Any:
        y, n = right + 0.1, judged + 0.2
        return y * np.log(y / n / p) + (n - y) * np.log((1 - y / n) / (1 - p))

    for right, judged in ((40, 50), (1, 10), (0, 46)):
        low, high = interval([Part(1.0, right / judged, judged)])
        assert lacks(right, judged, high) == pytest.approx(1.9207, abs=1e-3)
        assert low == 0.0 if right == 0 else lacks(right, judged, low) == pytest.approx(1.9207, abs=1e-3)
    shares = np.linspace(0.0005, 0.9995, 1000)
    first, second = shares[:, None], shares[None, :]
    likely = lacks(3, 4, first) + lacks(1, 46, second) <= 1.9207
    sums = (0.25 * first + 0.75 * second)[likely]
    assert interval([Part(0.25, 0.75, 4), Part(0.75, 1 / 46, 46)]) == pytest.approx((sums.min(), sums.max()), abs=2e-3)
    # What is known moves it, and does not widen it.
    low, high = interval([Part(0.5, 0.8, 50)])
    moved = interval([Part(0.5, 0.8, 50), Part(0.5, 1.0, math.inf)])
    assert moved == pytest.approx((low + 0.5, high + 0.5))
    assert interval([Part(1.0, 0.3, math.inf)]) == pytest.approx((0.3, 0.3))
    assert interval([Part(0.5, 1.0, 20), Part(0.5, 0.0, 20)])[0] < 0.5 < interval([Part(1.0, 1.0, 20)])[1] == 1.0


def test_the_rate_of_one_side_reaches_1_where_the_other_may_be_empty() -> None:
    said = audit([Stratum("t: right", 500, True, 20, 15), Stratum("t: wrong", 500, False, 20, 20)])
    assert said.false_positive.mean == 1.0 and said.false_positive.high == 1.0
    clean = audit([Stratum("t: right", 500, True, 20, 20), Stratum("t: wrong", 500, False, 20, 20)])
    assert math.isnan(clean.false_positive.mean) and clean.false_negative.mean == 0.5
    assert (clean.corrected.mean, clean.corrected.high) == (1.0, 1.0)


def test_a_stratum_holds_what_it_says() -> None:
    with pytest.raises(ValueError, match="5 right of 4 judged"):
        Stratum("t: right", 9, True, 4, 5)
    with pytest.raises(ValueError, match="0 judged"):
        Stratum("t: right", 9, True, 0, 0)


def test_spread_over_problems() -> None:
    shares = {"r": 1.0, "w": 0.0, "u": 0.5}
    # One known response each: the variance of a mean of 0 and 1.
    assert spread_over_problems([{"r": 1}] * 6 + [{"w": 1}] * 4, shares) == pytest.approx(0.24 / 9)
    # What strata do not tell comes on top: p (1 - p) / J altogether.
    assert spread_over_problems([{"u": 1}] * 8, shares) == pytest.approx(0.25 / 8)
    # Eight responses of one problem are one observation.
    assert spread_over_problems([{"r": 8}, {"w": 8}] * 5, shares) == pytest.approx(10 / 9 * 0.25 / 10)
    wider = audit(TWO, spread=0.65 * 0.35 / 1000).corrected
    assert wider.low < audit(TWO).corrected.low and wider.high > audit(TWO).corrected.high


@pytest.mark.parametrize(
    ("k", "rate", "fp", "fn"), [(50, 0.5, 0.1, 0.3), (100, 0.3, 0.05, 0.1), (200, 0.7, 0.1, 0.1), (400, 0.9, 0.05, 0.3)]
)
def test_intervals_hold_in_simulation(
    monkeypatch: pytest.MonkeyPatch, k: int, rate: float, fp: float, fn: float
) -> None:
    """1,000 draws: two standard errors of the measurement are 1.4 points around the band of 95 +- 2."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    sys.modules.pop("common", None)
    from audit_study import setting  # type: ignore[import-not-found, unused-ignore]

    line = setting(2000, 1000, k=k, fp=fp, fn=fn, rate=rate, seed=1)
    assert 0.916 <= line["pass"] <= 0.984, line
    assert 0.916 <= line["pass_within"] <= 0.984, line
    assert abs(line["bias"]) < 0.01, line
