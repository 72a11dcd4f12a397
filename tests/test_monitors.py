"""Monitors by their closed forms, what becomes of nothing, and when a threshold is crossed."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from selftrain.artifacts import RunDir, Stage
from selftrain.checks.monitors import check_monitors
from selftrain.config import ConfigError, check_tree
from selftrain.monitors.known import KNOWN
from selftrain.monitors.responses import Response, distance, divergence, repeated, responses, right
from selftrain.monitors.scores import Scored, auc, correlation, last_least, scores
from selftrain.monitors.thresholds import crossings, first_values, with_drift
from selftrain.report.monitors import monitor_lines, monitor_series, monitor_tables
from selftrain.schema import Threshold
from selftrain.session import Session
from selftrain.stages.place import light


def one(problem: str, is_right: bool | None, reward: float, *steps: float, tokens: int = 0) -> Scored:
    return Scored(problem, is_right, reward, steps or None, tokens)


def test_pairs_are_compared_within_problems_and_problems_count_the_same() -> None:
    """a: 2 of 2 pairs; b: a tie and a pair lost, (0.5 + 0) / 2; c and d have one kind only."""
    found = scores(
        [
            *(one("a", True, 5.0), one("a", False, 1.0), one("a", False, 2.0)),
            *(one("b", True, 1.0), one("b", False, 1.0), one("b", False, 3.0)),
            *(one("c", True, -9.0), one("c", True, 9.0), one("d", False, 9.0), one("d", None, 100.0)),
        ]
    )
    assert found["mixed_problems"] == 2 and found["scored"] == 10
    assert found["pair_accuracy"] == pytest.approx((1 + 0.25) / 2)
    assert found["pair_accuracy_low"] == 0 and found["pair_accuracy_high"] == 1  # Two problems tell little.
    # Right 5, 1, -9, 9 against wrong 1, 2, 1, 3, 9.
    assert found["auc"] == pytest.approx((4 + 2 / 2 + 0 + 4.5) / 20)
    assert found["best_right"] == pytest.approx((1 + 0) / 2)
    assert found["best_right_chance"] == pytest.approx(1 / 3)
    assert found["reward"] == pytest.approx(122 / 10)


def test_the_area_is_that_of_counting_all_pairs() -> None:
    rng = random.Random(0)
    good, bad = ([rng.randint(0, 9) for _ in range(n)] for n in (40, 60))
    pairs = [(a > b) + 0.5 * (a == b) for a in good for b in bad]
    assert auc(good, bad) == pytest.approx(sum(pairs) / len(pairs))
    assert auc(bad, good) == pytest.approx(1 - auc(good, bad))


def test_correlation_is_pearsons_with_the_sum_of_the_steps() -> None:
    assert correlation([1, 2, 3, 4], [False, False, True, True]) == pytest.approx(2 / math.sqrt(5))
    assert correlation([1e-200, 2e-200, 3e-200, 4e-200], [False, False, True, True]) == pytest.approx(2 / math.sqrt(5))
    assert correlation([0.3, -0.1], [False, True]) == pytest.approx(-1)
    assert correlation([0.1, 0.1, 0.1], [False, True, True]) is None
    # The source's own reward is the least step; what it returns over the response is the sum.
    found = scores([one("a", True, -1.0, -1.0, 4.0), one("b", False, 0.0, 0.0, 0.0), one("c", False, 0.0, 0.0, 0.0)])
    assert found["correlation"] == pytest.approx(1) and found["auc"] == 0


def test_the_least_step_is_the_last_as_often_as_chance_where_all_are_equal() -> None:
    found = last_least([(0.0, 0.0), (0.0, 0.0, 0.0, 0.0), (1.0,)])
    assert found == {"last_least": 0.375, "last_least_chance": 0.375, "last_least_excess": 0}
    found = last_least([(1.0, 2.0, -1.0), (1.0, -2.0, 0.0), (0.0, -1.0, -1.0)])
    assert found["last_least"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["last_least_excess"] == pytest.approx(0.5 - 1 / 3)


def test_steps_and_tokens_of_a_step() -> None:
    found = scores([one("a", True, 0, 1.0, 2.0, tokens=30), one("b", False, 0, 1.0, 1.0, 1.0, 1.0, tokens=30)])
    assert (found["steps"], found["tokens_per_step"]) == (3, 10)


@pytest.mark.parametrize(
    ("ids", "n", "share"),
    [
        ([1, 2, 3, 4, 5], 4, 0.0),
        ([1, 2, 3], 4, None),
        ([], 1, None),
        ([7] * 10, 4, 6 / 7),
        ([1, 2, 1, 2, 1, 2], 2, 3 / 5),
        ([1, 2, 1], 1, 1 / 3),
    ],
)
def test_repetition_is_the_share_of_n_grams_that_were_there_before(ids: list[int], n: int, share: float | None) -> None:
    assert repeated(ids, n) == (None if share is None else pytest.approx(share))


def test_responses_are_counted_whole_and_those_that_could_not_be_judged_are_neither_right_nor_wrong() -> None:
    found = responses([Response(10, False, 0.0, True), Response(30, True, 0.6, False), Response(2, False, None, None)])
    assert found == {"right": 0.5, "tokens": 14, "truncated": pytest.approx(1 / 3), "repetition": 0.3, "looping": 0.5}
    assert [right(status) for status in ("right", "wrong", "unparsed", "timeout", "error")] == [
        *(True, False, False, None, None)
    ]


def test_the_divergence_of_two_distributions_is_what_both_estimates_come_to() -> None:
    """Drawn exactly as often as the policy would: the means are the divergence itself."""
    policy, start = [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]
    drawn = [math.log(p / q) for p, q in zip(policy, start, strict=True) for _ in range(round(10 * p))]
    exact = sum(p * math.log(p / q) for p, q in zip(policy, start, strict=True))
    found = divergence([distance(drawn[:4]), distance(drawn[4:])])
    assert found["kl"] == pytest.approx(exact) and found["kl_k3"] == pytest.approx(exact)
    assert found["kl_response"] == pytest.approx(5 * exact) and found["kl_response_k3"] == pytest.approx(5 * exact)


def test_k3_of_one_token_is_never_below_zero_and_never_infinite() -> None:
    assert distance([0.0, 0.0]) == (2, 0.0, 0.0)
    assert distance([math.log(2)])[1:] == pytest.approx([math.log(2), math.log(2) - 0.5])
    assert distance([-1.0]).k3 == pytest.approx(math.e - 2)
    assert math.isfinite(distance([-1e6]).k3)


@pytest.mark.parametrize(
    "found",
    [
        [],
        [one("a", None, 1.0, 1.0)],
        [one("a", True, 1.0, 1.0, tokens=3), one("a", True, 2.0)],
        [one("a", False, 0.0), one("b", False, 0.0)],
        [one("a", True, 0.0), one("a", False, 0.0)],
    ],
)
def test_nothing_to_measure_is_no_number(found: list[Scored]) -> None:
    values = scores(found) | responses([]) | divergence([])
    json.dumps(values, allow_nan=False)
    both = {one.right for one in found} == {True, False}
    assert values["pair_accuracy"] == values["auc"] == (0.5 if both else None)
    assert values["correlation"] is None and values["kl"] is None and values["tokens"] is None


def test_drift_is_against_the_first_iteration_with_a_number() -> None:
    earlier: list[dict[str, Any]] = [
        {"tokens": 10.0, "steps": None},
        {"tokens": 20.0, "steps": 4.0},
        {"tokens": 30.0, "steps": 8.0},
    ]
    now: dict[str, float | None] = {"tokens": 15.0, "steps": 2.0, "tokens_per_step": None, "right": 0.5}
    first = first_values(earlier, now)
    assert first == {"tokens": 10.0, "steps": 4.0}
    drift = {"tokens_drift": 1.5, "steps_drift": 0.5, "tokens_per_step_drift": None}
    assert with_drift(now, first) == now | drift
    assert with_drift({"tokens": 5.0}, {}) == {"tokens": 5.0, "tokens_drift": 1.0}
    assert with_drift({"tokens": 5.0}, {"tokens": 0.0})["tokens_drift"] is None


def rows(*values: float | None) -> list[dict[str, Any]]:
    return [
        {"iteration": number, "tokens": value, "sources": {"prm": {"auc": value}, "other": {"auc": 0.9}}}
        for number, value in enumerate(values, 1)
    ]


def test_a_threshold_is_crossed_when_all_of_the_last_iterations_are_beyond_it() -> None:
    rule = {"auc": Threshold(warn_below=0.6, stop_below=0.5, after=2)}
    assert crossings([], rule) == crossings(rows(0.4), rule) == crossings(rows(0.4, 0.7), rule) == []
    assert crossings(rows(0.4, None), rule) == crossings(rows(None, 0.4), rule) == []
    (warned,) = crossings(rows(0.9, 0.4, 0.55), rule)
    assert (warned.monitor, warned.bound, warned.stops) == ("auc", "warn_below", False)
    (stopped,) = crossings(rows(0.4, 0.4), rule)
    assert stopped.stops
    told = "iteration 2: auc of prm is 0.4, below stop_below 0.5 in 2 iterations in a row: its rewards no longer follow"
    assert stopped.text.startswith(told)
    assert crossings(rows(0.5), {"auc": Threshold(stop_below=0.5)}) == []  # At the bound is not beyond it.
    (above,) = crossings(rows(7.0), {"tokens": Threshold(warn_above=6)})
    assert above.text.startswith("iteration 1: tokens is 7, above warn_above 6: length itself is rewarded")
    assert crossings([{}], {"tokens": Threshold(warn_above=6), "auc": Threshold(stop_below=1)}) == []


def test_every_monitor_has_a_meaning_and_says_what_to_do() -> None:
    measured = {*responses([]), *divergence([]), *with_drift(scores([]), {}), "tokens_drift"}
    assert set(KNOWN) <= measured
    assert all(known.meaning.endswith(".") and known.low and known.high for known in KNOWN.values())


def config(**monitor: Any) -> Any:
    prm = {"kind": "implicit_prm", "model": "policy", "reference": "base"}
    sources = {"reward": {"sources": {"prm": prm}}} if monitor.pop("prm", True) else {}
    return check_tree(
        {"tasks": {"arithmetic": {}}, "grow": {"draft": monitor.pop("draft", {})}} | sources | {"monitor": monitor}
    )


@pytest.mark.parametrize(
    ("monitor", "told"),
    [
        (
            {"thresholds": {"tokens_drft": {"warn_above": 2}}},
            r"tokens_drft: no such monitor \(did you mean 'tokens_drift'",
        ),
        ({"thresholds": {"kl": {"warn_above": 2}}}, "thresholds.kl: is measured where monitor.kl is true"),
        ({"thresholds": {"auc": {"stop_below": 0.5}}, "prm": False}, "thresholds.auc: is of reward sources beside"),
        ({"thresholds": {"auc": {}}}, "thresholds.auc: sets no bound"),
        (
            {"thresholds": {"auc": {"warn_below": 0.7, "stop_above": 0.6}}},
            "below warn_below 0.7 or above stop_above 0.6",
        ),
        ({"thresholds": {"auc": {"warn_bellow": 0.7}}}, "did you mean 'warn_below'"),
        ({"thresholds": {"auc": {"stop_below": 0.5, "after": 0}}}, "after: must be at least 1"),
        ({"repetition": 0}, "monitor.repetition: must be at least 1"),
        ({"kl": True, "draft": {"temperature": 0.0}}, "monitor.kl: no step of grow draws"),
    ],
)
def test_a_threshold_that_cannot_hold_is_told_at_once(monitor: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_monitors(config(**monitor))


def test_thresholds_that_can_hold_are_taken_and_null_removes_one() -> None:
    found = config(
        kl=True, thresholds={"kl": {"warn_above": 1}, "auc": {"stop_below": 0.5, "after": 3}, "tokens": None}
    )
    check_monitors(found)
    assert found.monitor.thresholds == {"kl": Threshold(warn_above=1.0), "auc": Threshold(stop_below=0.5, after=3)}


def test_a_score_that_loads_models_for_the_divergence_is_not_light(tmp_path: Path) -> None:
    stage = Stage("score", 1, tmp_path, {})
    light_ones = [light(stage, Session(config(prm=False, kl=kl), RunDir(tmp_path))) for kl in (False, True)]
    assert light_ones == [True, False]


def test_tables_hold_what_was_measured_and_many_iterations_are_thinned_out_as_text() -> None:
    prm = {"best_right": 0.25, "best_right_chance": 0.5}
    responses = {"tokens": 10.0, "tokens_drift": 1.0, "right": 0.5, "sources": {"prm": prm}}
    long = [{"iteration": number, **responses} for number in range(1, 101)]
    tables = monitor_tables(long)
    assert tables["Responses"][:2] == [["iteration", "right %", "tokens"], ["1", "50.0", "10 (x1.00)"]]
    assert tables["Rewards by prm"][-1] == ["100", "25.0 (50.0)"]
    assert [len(series) for series in monitor_series(long).values()] == [1, 1]
    thresholds = {"monitor": {"thresholds": {"tokens": {"warn_above": 9.0}}}}
    text = "\n".join(monitor_lines(long, thresholds))
    assert text.count("10 (x1.00)") == 12 and "\n      100 " in text
    assert "warning: iteration 100: tokens is 10, above warn_above 9" in text
    assert monitor_lines([], {}) == []


def test_the_page_names_every_monitor_and_its_thresholds_hold() -> None:
    text = (Path(__file__).parent.parent / "docs" / "monitors.md").read_text()
    named = [name for cell in re.findall(r"^\| (`.+?) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(named) == sorted(KNOWN)
    (snippet,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    check_monitors(config(**yaml.safe_load(snippet)["monitor"]))
