"""Numbers of an evaluation: estimators against brute force, intervals by their coverage, tests against known values."""

from __future__ import annotations

import itertools
import json
import math
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import pytest

from selftrain.evaluation import (
    Outcome,
    accuracy_by_problem,
    compare,
    majority_at_k,
    pass_at_k,
    summarise,
)
from selftrain.intervals import mean_interval, paired_test
from selftrain.types import FinishReason, Status


def outcome(problem: str, index: int, status: str, answer: str | None = "0", finish: str = "eos") -> Outcome:
    assert status in get_args(Status) and finish in get_args(FinishReason)
    value = {"right": 1.0, "wrong": 0.0}.get(status)
    return Outcome(problem, index, status, value, answer, finish, n_tokens=10)  # type: ignore[arg-type]


def responses(table: dict[str, str]) -> list[Outcome]:
    """``{"a": "110"}``: problem a with two right and one wrong response."""
    status = {"1": "right", "0": "wrong"}
    return [outcome(key, i, status[mark], mark) for key, marks in table.items() for i, mark in enumerate(marks)]


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_mean_over_all_subsets(n: int) -> None:
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets), abs=1e-12)


def test_pass_at_k_stays_exact_for_large_counts() -> None:
    assert pass_at_k(10_000, 1, 1000) == pytest.approx(0.1, abs=1e-12)
    assert pass_at_k(200, 3, 100) == pytest.approx(1 - (100 * 99 * 98) / (200 * 199 * 198), abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 5), (4, 5, 1), (4, -1, 1), (4, 1, 0), (0, 0, 1)])
def test_pass_at_k_refuses_what_it_cannot_estimate(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="samples"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("answers", "right", "k", "credit"),
    [
        (["7", "7", "3"], [1, 1, 0], 3, 1.0),
        (["7", "3", "3"], [1, 0, 0], 3, 0.0),
        (["7", "3"], [1, 0], 2, 0.5),
        (["7", "3", "5"], [1, 0, 0], 3, 1 / 3),
        (["7", "7", "3", "3", "5"], [1, 1, 0, 0, 0], 5, 0.5),
        ([None, None, "7"], [0, 0, 1], 3, 1.0),
        ([None, None], [0, 0], 2, 0.0),
        (["", "", "7"], [0, 0, 1], 3, 0.0),
        (["7", "7", "3", "3"], [1, 1, 0, 0], 2, 0.5),
        (["7", "7", "3", "3", "3"], [1, 1, 0, 0, 0], 2, 0.5),
        (["3", "7"], [0, 1], 1, 0.5),
    ],
)
def test_majority_vote(answers: list[str | None], right: list[int], k: int, credit: float) -> None:
    assert majority_at_k(answers, [bool(flag) for flag in right], k) == pytest.approx(credit)


def test_majority_vote_needs_k_samples() -> None:
    with pytest.raises(ValueError, match="maj@3 needs at least 3 samples per problem, there are 2"):
        majority_at_k(["1", "2"], [True, False], 3)


def test_the_credit_of_a_tie_is_that_of_breaking_it_at_random() -> None:
    answers, right, draw = ["7", "3", "3", "7", "5"], [True, False, False, True, False], random.Random(0)
    wins = sum(draw.choice(["7", "3"]) == "7" for _ in range(4000)) / 4000
    assert majority_at_k(answers, right, 5) == pytest.approx(wins, abs=0.03)


def test_wilson_interval_has_the_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81/263, 15/148, 0/20, 1/29.
    for hits, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        estimate = mean_interval([1] * hits + [0] * (n - hits))
        assert estimate.mean == pytest.approx(hits / n)
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=6e-5)


def test_student_interval_by_hand() -> None:
    # Mean 0.5, standard deviation sqrt(1/24), 4 values, t(3) = 3.182446.
    estimate = mean_interval([0.25, 0.5, 0.5, 0.75])
    margin = 3.182446 * math.sqrt(1 / 24) / 2
    assert estimate == pytest.approx((0.5, 0.5 - margin, 0.5 + margin), abs=1e-6)


def test_intervals_of_few_values() -> None:
    nothing = mean_interval([])
    assert math.isnan(nothing.mean) and nothing[1:] == (0.0, 1.0)
    assert mean_interval([0.25]) == (0.25, 0.0, 1.0)
    assert mean_interval([1.0]) == pytest.approx((1.0, 0.206549, 1.0), abs=1e-6)
    assert mean_interval([0.0, 0.0])[:2] == (0.0, 0.0)
    wide = mean_interval([0.01, 0.99])
    assert wide[1:] == (0.0, 1.0)


@pytest.mark.parametrize("n", [2, 5, 30, 500])
@pytest.mark.parametrize("value", [0.25, 0.5, 1 / 3])
def test_values_that_are_all_equal_are_no_certainty(value: float, n: int) -> None:
    """A mean outside the interval would show such values less than once in 20, were the others all right or wrong."""
    estimate = mean_interval([value] * n)
    assert estimate.mean == pytest.approx(value) and 0 < estimate.low < value < estimate.high < 1
    for other in (0.0, 1.0):
        outside = [share for share in (i / 1000 for i in range(1001)) if not _holds(estimate, value, other, share)]
        assert outside and max((1 - share) ** n for share in outside) <= 0.05
    widths = [high - low for _, low, high in (mean_interval([value] * more) for more in (1, n, n + 1))]
    assert widths[0] == 1 > widths[1] > widths[2]


def _holds(estimate: Sequence[float], value: float, other: float, share: float) -> bool:
    return estimate[1] <= value + share * (other - value) <= estimate[2]


def test_all_equal_intervals_by_hand() -> None:
    # Of two problems, one right of two each: 0.95 of all may have another value, from 0 to 1.
    assert mean_interval([0.5, 0.5]) == pytest.approx((0.5, 0.025, 0.975))
    # 1 - 0.05^(1/29) = 1 - exp(-0.103301) = 0.098145.
    assert mean_interval([0.25] * 30) == pytest.approx((0.25, 0.25 * 0.901855, 0.25 + 0.75 * 0.098145), abs=1e-6)
    test = paired_test({"a": 0.25, "b": 0.5}, {"a": 0.5, "b": 0.75})
    assert test == pytest.approx((0.25, 0.25 - 0.95 * 1.25, 0.25 + 0.95 * 0.75, 0.5))
    # What has any spread keeps Student's t, however small.
    _, low, high = mean_interval([0.5, 0.5 + 1e-6])
    assert (low - 0.5, high - 0.5) == pytest.approx((5e-7 - 12.7062 * 5e-7, 5e-7 + 12.7062 * 5e-7), rel=1e-5)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])
def test_wilson_interval_covers_95_percent(p: float) -> None:
    n, covered = 100, 0.0
    for hits in range(n + 1):
        _, low, high = mean_interval([1] * hits + [0] * (n - hits))
        covered += (low <= p <= high) * math.comb(n, hits) * p**hits * (1 - p) ** (n - hits)
    assert 0.93 < covered < 0.975


def test_interval_over_problems_covers_95_percent_where_one_over_samples_would_not() -> None:
    draw, runs, covered, naive = random.Random(7), 600, 0, 0
    for _ in range(runs):
        means = [
            sum(draw.random() < chance for _ in range(8)) / 8 for chance in (draw.betavariate(1, 1) for _ in range(50))
        ]
        mean, low, high = mean_interval(means)
        covered += low <= 0.5 <= high
        naive += abs(mean - 0.5) < 1.96 * math.sqrt(mean * (1 - mean) / 400)
    assert 0.925 < covered / runs < 0.975
    assert naive / runs < 0.85


def test_paired_interval_covers_95_percent_and_the_test_keeps_its_level() -> None:
    draw, runs, covered, rejected = random.Random(3), 600, 0, 0
    for _ in range(runs):
        base = [draw.random() < 0.4 for _ in range(150)]
        better = [value if draw.random() < 0.75 else draw.random() < 0.8 for value in base]
        test = paired_test(*({str(i): float(v) for i, v in enumerate(side)} for side in (base, better)))
        covered += test.low <= 0.25 * 0.4 <= test.high
        again = {str(i): float(v if draw.random() < 0.75 else draw.random() < 0.4) for i, v in enumerate(base)}
        rejected += paired_test({str(i): float(v) for i, v in enumerate(base)}, again).p < 0.05
    assert 0.925 < covered / runs < 0.98
    assert 0.01 < rejected / runs < 0.065


def test_mcnemar_is_the_exact_binomial_test() -> None:
    # 9 problems gained, 2 lost: 2 * (1 + 11 + 55) / 2^11.
    before = {str(i): float(i < 12) for i in range(40)}
    after = {str(i): float(2 <= i < 21) for i in range(40)}
    test = paired_test(before, after)
    assert test.difference == pytest.approx(7 / 40)
    assert test.p == pytest.approx(2 * 67 / 2048)
    assert test.low < test.difference < test.high
    assert paired_test(after, before) == pytest.approx((-7 / 40, -test.high, -test.low, test.p))


def test_paired_t_by_hand() -> None:
    # Differences 0.1, 0.2, 0.3: t = 0.2 / (0.1 / sqrt 3) = 3.4641 on 2 degrees of freedom; p = 1 - t / sqrt(t^2 + 2).
    test = paired_test({"a": 0.0, "b": 0.1, "c": 0.2}, {"a": 0.1, "b": 0.3, "c": 0.5})
    assert test.p == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-9)
    assert (test.low, test.high) == pytest.approx((0.2 - 4.302653 * 0.057735, 0.2 + 4.302653 * 0.057735), abs=1e-5)


def test_problems_are_paired_by_id_not_by_position() -> None:
    assert paired_test({"a": 1.0, "b": 0.0}, {"b": 0.0, "a": 1.0}).p == 1.0


@pytest.mark.parametrize("values", [[0.0, 1.0, 1.0], [0.25, 0.5, 0.75], [0.5]])
def test_identical_vectors_show_no_difference(values: list[float]) -> None:
    side = {str(i): value for i, value in enumerate(values)}
    test = paired_test(side, dict(side))
    assert test.difference == 0 and test.p == 1.0 and test.low <= 0 <= test.high


def test_equal_differences_on_few_problems_are_no_certainty() -> None:
    assert paired_test({"a": 0.25, "b": 0.5}, {"a": 0.5, "b": 0.75}).p == 0.5
    assert paired_test({"a": 0.25}, {"a": 0.5}) == (0.25, -1.0, 1.0, 1.0)


def test_a_paired_test_needs_the_same_problems() -> None:
    with pytest.raises(ValueError, match="2 and 1, 1 shared"):
        paired_test({"a": 1.0, "b": 0.0}, {"a": 1.0})
    with pytest.raises(ValueError, match="at least one problem"):
        paired_test({}, {})


def row_of(greedy: Sequence[Outcome], sampled: Sequence[Outcome], ks: Sequence[int] = (1, 2)) -> dict[str, object]:
    return summarise(greedy, sampled, task="arithmetic", split="test", iteration=2, ks=ks)


def test_a_row_holds_every_number_of_an_evaluation() -> None:
    row = row_of(responses({"a": "1", "b": "0"}), responses({"a": "1101", "b": "0001"}), ks=(1, 2, 4))
    assert (row["iteration"], row["task"], row["split"], row["n_problems"]) == (2, "arithmetic", "test", 2)
    assert (row["pass@1"], row["avg@4"], row["pass@2"], row["pass@4"]) == (0.5, 0.5, 0.75, 1.0)
    # Groups of two by index: a (1), (tie); b (0), (tie).
    assert row["maj@2"] == 0.5
    assert row["maj@4"] == 0.5
    for name in ("pass@1", "avg@4", "pass@2", "maj@2"):
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]  # type: ignore[operator]
    assert (row["mean_tokens"], row["mean_value"], row["by_difficulty"]) == (10.0, 0.5, {})
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_a_row_does_not_depend_on_the_order_of_responses() -> None:
    draw = random.Random(1)
    sampled = responses({str(i): "".join(draw.choice("01") for _ in range(5)) for i in range(30)})
    shuffled = draw.sample(sampled, len(sampled))
    assert json.dumps(row_of([], sampled)) == json.dumps(row_of([], shuffled))


def test_floats_are_rounded_to_six_decimals() -> None:
    assert row_of([], responses({"a": "110", "b": "110"}), ks=())["avg@3"] == 0.666667


def test_what_could_not_be_judged_counts_as_not_right_and_is_reported() -> None:
    greedy = [outcome("a", 0, "error", None), outcome("b", 0, "right")]
    sampled = [
        outcome("a", 0, "timeout", None, "length"),
        outcome("a", 1, "right", "7"),
        outcome("b", 0, "unparsed", None, "context"),
        outcome("b", 1, "wrong", "3"),
    ]
    row = row_of(greedy, sampled)
    assert (row["pass@1"], row["avg@2"]) == (0.5, 0.25)
    assert (row["truncated"], row["unparsed"]) == (0.5, 0.25)
    assert row["errors"] == pytest.approx(2 / 6, abs=1e-6)
    assert row["maj@2"] == 0.5


def test_either_kind_of_response_may_be_missing() -> None:
    only_sampled = row_of([], responses({"a": "10", "b": "11"}))
    assert only_sampled["avg@2"] == 0.75 and "pass@1" not in only_sampled
    only_greedy = row_of([outcome("a", 0, "unparsed", None, "length"), outcome("b", 0, "right")], [])
    assert (only_greedy["pass@1"], only_greedy["truncated"], only_greedy["unparsed"]) == (0.5, 0.5, 0.5)
    assert not [key for key in only_greedy if key.startswith(("avg@", "maj@", "pass@2"))]


def test_difficulties_are_listed_in_rising_order() -> None:
    levels = {"a": 10.0, "b": 2.0, "c": 2.0, "d": None}
    sampled = [
        replace(o, difficulty=levels[o.problem_id]) for o in responses({"a": "00", "b": "11", "c": "10", "d": "01"})
    ]
    greedy = [replace(o, difficulty=levels[o.problem_id]) for o in responses({"a": "0", "b": "1", "c": "0", "d": "1"})]
    table = row_of(greedy, sampled)["by_difficulty"]
    assert table == {
        "2": {"n": 2, "pass@1": 0.5, "avg@2": 0.75},
        "10": {"n": 1, "pass@1": 0.0, "avg@2": 0.0},
        "unknown": {"n": 1, "pass@1": 1.0, "avg@2": 0.5},
    }
    assert list(table) == ["2", "10", "unknown"]


@pytest.mark.parametrize("marks", ["10", "00", "11"])
def test_majority_is_left_out_where_no_response_carries_an_answer(marks: str) -> None:
    sampled = [replace(o, answer=None) for o in responses({"a": marks, "b": marks})]
    row = row_of([], sampled)
    assert "pass@2" in row and "maj@2" not in row


def test_majority_does_not_come_and_go_with_single_answers() -> None:
    """One right response whose answer was not extracted does not take the column away; it has no vote."""
    sampled = [replace(o, answer=None if o.status == "right" else "3") for o in responses({"a": "10"})]
    assert row_of([], [*sampled, *responses({"b": "11"})])["maj@2"] == 0.5
    assert row_of([], [*sampled, *responses({"b": "00"})])["maj@2"] == 0.0


def test_partial_credit_is_reported_beside_the_share_of_right_responses() -> None:
    sampled = [replace(o, value=0.5) for o in responses({"a": "00"})]
    row = row_of([], sampled)
    assert (row["avg@2"], row["mean_value"]) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("greedy", "sampled", "message"),
    [
        ({}, {}, "no response was evaluated"),
        ({"a": "1"}, {"b": "11"}, "not to the same problems"),
        ({}, {"a": "11", "b": "1"}, "evaluation is incomplete"),
        ({}, {"a": "1"}, "pass@2 needs at least 2 samples"),
    ],
)
def test_an_evaluation_with_holes_is_refused(greedy: dict[str, str], sampled: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        row_of(responses(greedy), responses(sampled))


def test_a_response_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="same index"):
        accuracy_by_problem([outcome("a", 0, "right"), outcome("a", 0, "wrong")])


def test_compare_tests_greedy_and_sampled_responses_by_problem() -> None:
    before = (responses({f"p{i}": "0" for i in range(12)}), responses({f"p{i}": "0001" for i in range(12)}))
    after = (responses({f"p{i}": "1" for i in range(12)}), responses({f"p{i}": "01" if i else "00" for i in range(12)}))
    tests = compare(before, after)
    assert list(tests) == ["pass@1", "avg@2"]
    assert tests["pass@1"]["difference"] == 1.0 and tests["pass@1"]["high"] == 1.0
    assert tests["pass@1"]["p"] == pytest.approx(2 / 2**12, rel=1e-3)
    assert tests["avg@2"]["difference"] == pytest.approx(0.5 * 11 / 12 - 0.25, abs=1e-6)
    assert compare(after, after)["avg@2"]["p"] == 1.0
    assert list(compare((before[0], []), after)) == ["pass@1"]


def test_importing_evaluation_loads_nothing_heavy() -> None:
    code = "import sys, selftrain.evaluation; print(*({'numpy', 'scipy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
