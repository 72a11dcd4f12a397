"""Scores of steps against labels: numbers known by hand, thresholds against a search over all of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from selftrain.prm_evaluation.calibration import are_probabilities, by_position, calibration, step_auc
from selftrain.prm_evaluation.finding import finding, position_prior, told_apart
from selftrain.prm_evaluation.protocol import best_threshold, f1, located
from selftrain.prm_evaluation.steps import ScoredSteps, known_steps
from selftrain.prm_evaluation.whole import evaluation


def solution(problem: str, scores: Sequence[float], first: int) -> ScoredSteps:
    steps = len(scores)
    labels = [1.0] * steps if first < 0 else [*[1.0] * first, 0.0, *[None] * (steps - first - 1)]
    return ScoredSteps(problem, tuple(scores), tuple(labels))


A = solution("a", [0.9, 0.2, 0.1], 1)
B = solution("b", [0.9, 0.6], -1)
C = solution("c", [0.3, 0.8], 1)
D = solution("d", [0.7, 0.4], -1)


def test_f1_is_the_harmonic_mean() -> None:
    assert f1(72.0, 96.4) == pytest.approx(82.43, abs=0.005)
    assert (f1(0.0, 0.0), f1(0.0, 1.0), f1(1.0, 1.0)) == (0.0, 0.0, 1.0)


def test_the_first_step_below_the_threshold_is_the_one() -> None:
    assert [A.predicted(t) for t in (0.1, 0.15, 0.2, 0.3, 0.95)] == [-1, 2, 2, 1, 0]
    assert (A.first, B.first, A.least(), solution("x", [0.5, 0.5], 0).least()) == (1, -1, 2, 0)


def test_accuracies_are_over_solutions_of_either_kind() -> None:
    found = located([A, B, C, D], 0.5)
    assert found["n_erroneous"] == found["n_correct"] == 2
    assert found["erroneous"][0] == found["correct"][0] == found["f1"][0] == 0.5
    assert found["erroneous"] == [0.5, 0.0945, 0.9055]  # Wilson, 1 of 2.
    assert found["f1"][1] <= 0.5 <= found["f1"][2]


def test_without_one_of_the_kinds_there_is_no_f1() -> None:
    assert located([A], 0.5)["f1"] is None and located([A], 0.5)["correct"] is None
    assert located([B], 0.5)["erroneous"] is None and located([B], 0.5)["correct"][0] == 1.0


def test_solutions_to_one_problem_stand_together() -> None:
    """Four hits of one problem and four misses of another are two problems' word, not eight."""
    hits = [solution("a", [0.1, 0.9], 0)] * 4 + [solution("b", [0.9, 0.9], 0)] * 4
    (value, low, high) = located([*hits, B], 0.5)["erroneous"]
    assert (value, low, high) == (0.5, 0.0, 1.0)


def test_problems_with_the_same_share_are_no_certainty() -> None:
    found = located([solution(problem, [1.0, 0.0], 1) for problem in "aabb"], 0.5)
    value, low, high = found["erroneous"]
    assert (value, high) == (1.0, 1.0) and low == pytest.approx(0.3424, abs=1e-3)  # Wilson's of 2 of 2.


def test_the_threshold_is_the_best_of_all() -> None:
    assert best_threshold([A, B]) == pytest.approx(0.4)  # Any in (0.2, 0.6].
    for seed in range(200):
        rng = random.Random(seed)
        drawn = [round(rng.random(), 1) for _ in range(40)]  # Ties are many.
        some = [solution(str(i), rng.sample(drawn, 3), rng.choice([-1, -1, 0, 1, 2])) for i in range(8)]
        if len({one.first < 0 for one in some}) < 2:
            continue
        reached = located(some, best_threshold(some))["f1"][0]
        tried = [located(some, step / 40 + 0.001)["f1"][0] for step in range(45)]
        assert reached == pytest.approx(max(tried)), seed


def test_a_threshold_needs_both_kinds() -> None:
    with pytest.raises(ValueError, match="none with a wrong step"):
        best_threshold([B, D])
    with pytest.raises(ValueError, match="none without a wrong step"):
        best_threshold([A])


def test_calibration_of_known_steps() -> None:
    """0.9 right, 0.2 wrong; 0.9 and 0.6 right. The step behind the wrong one counts nowhere."""
    assert known_steps([A, B]) == [(0.9, True), (0.2, False), (0.9, True), (0.6, True)]
    found = calibration([A, B], log_odds=False)
    assert found["n"] == 4
    assert found["brier"] == pytest.approx((0.01 + 0.04 + 0.01 + 0.16) / 4, abs=1e-4)
    assert found["ece"] == pytest.approx((2 * 0.1 + 0.2 + 0.4) / 4, abs=1e-4)
    assert [(row["low"], row["n"], row["right"]) for row in found["bins"]] == [(0.2, 1, 0), (0.6, 1, 1), (0.9, 2, 1)]


def test_scores_beyond_0_and_1_are_log_odds() -> None:
    odds = solution("a", [0.0, -1000.0, 1000.0], 1)
    assert are_probabilities([A, B]) and not are_probabilities([A, odds])
    found = calibration([odds], log_odds=True)
    assert found["brier"] == pytest.approx(0.125) and found["bins"][0]["score"] == 0.0
    assert calibration([], log_odds=False)["ece"] == 0.0


def test_positions_from_both_ends() -> None:
    start = by_position([A, B, C], 0.5)
    assert [(row["place"], row["n"], row["wrong"], row["accuracy"]) for row in start] == [
        (0, 3, 0.0, 0.6667),
        (1, 3, 0.6667, 0.6667),
    ]
    assert (start[0]["auc"], start[1]["auc"]) == (None, 0.5)
    end = by_position([A, B, C], 0.5, from_end=True)
    assert [(row["place"], row["n"]) for row in end] == [(0, 2), (1, 3), (2, 1)]  # A's last step is not known.
    assert step_auc([(0.9, True), (0.5, True), (0.5, False)]) == 0.75


def test_the_place_most_often_wrong_by_number_of_steps() -> None:
    prior = position_prior([(3, 2), (3, 0), (3, 2), (2, 1), (2, 0)])
    assert (prior[3], prior[2], prior[7]) == (2, 0, 0)


def test_ways_to_find_the_first_wrong_step() -> None:
    found = finding([A, C, B], 0.5, {3: 1, 2: 1})
    assert found["least step"][0] == 0.0  # A's last, C's first.
    assert found["threshold"][0] == 0.5
    assert found["chance"][0] == pytest.approx((1 / 3 + 1 / 2) / 2, abs=1e-4)
    assert found["position"][0] == 1.0
    assert found["against"]["position"]["difference"] == -1.0
    assert "position" not in finding([A], 0.5, None)
    assert finding([B], 0.5, None) == {}


def test_ways_are_compared_over_problems() -> None:
    hits = {"own": [("a", 1.0), ("a", 0.0), ("b", 1.0)], "other": [("a", 0.0), ("a", 0.0), ("b", 1.0)]}
    found = told_apart(hits, "own")
    assert found["own"][0] == 0.75 and found["other"][0] == 0.5
    assert found["against"]["other"]["difference"] == 0.25


def test_the_threshold_is_chosen_on_others() -> None:
    shifted = [solution(one.problem, [score - 0.5 for score in one.scores], one.first) for one in (A, B)]
    found = evaluation([A, B], shifted)
    assert found["threshold"] == pytest.approx(-0.1)  # Their best, and a bad one here.
    assert found["f1"][0] == 0.0 and found["n_validation"] == 2 and found["scores"] == "log-odds"
    given = evaluation([A, B], [], threshold=0.4)
    assert given["f1"][0] == 1.0 and given["scores"] == "probabilities" and "position" not in given["finding"]
