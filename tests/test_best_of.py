"""Choosing among samples: closed forms against every subset, limits in which the numbers are known, odd input."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import combinations
from statistics import fmean

import pytest

from selftrain.best_of import Weighting, best_of_n, curve_sizes, weighted_best_of_n, weights
from selftrain.evaluation import majority_at_k, pass_at_k

WEIGHTINGS: list[Weighting] = ["exp", "sigmoid", "sum"]
MONOTONE: dict[str, Callable[[float], float]] = {
    "cube": lambda r: r**3,
    "exp": math.exp,
    "affine": lambda r: 3 * r - 7,
    "sigmoid": lambda r: 1 / (1 + math.exp(-r)),
}


def drawn(seed: int, n: int = 7) -> tuple[list[float | None], list[bool], list[str | None]]:
    """Few values, so that there are ties; some samples without a reward or an answer."""
    draw = random.Random(seed)
    answers = [draw.choice(["4", "5", "6", None]) for _ in range(n)]
    rewards = [draw.choice([-1.5, 0.0, 0.5, 2.0, None]) for _ in range(n)]
    return rewards, [answer == "5" for answer in answers], answers


def by_force(rewards: list[float | None], right: list[bool], n: int) -> float:
    """Every subset, its largest reward found by looking."""
    chances = []
    for subset in combinations(range(len(rewards)), n):
        scored = [i for i in subset if rewards[i] is not None]
        highest = max((rewards[i] for i in scored), default=None)  # type: ignore[type-var]
        tied = [i for i in scored if rewards[i] == highest] or list(subset)
        chances.append(fmean(right[i] for i in tied))
    return fmean(chances)


def vote_by_hand(rewards: list[float | None], answers: list[str | None], right: list[bool], how: Weighting) -> float:
    sums: dict[str, float] = {}
    for answer, reward in zip(answers, rewards, strict=True):
        if answer is not None and reward is not None:
            weight = {"exp": math.exp(reward), "sigmoid": 1 / (1 + math.exp(-reward)), "sum": reward}[how]
            sums[answer] = sums.get(answer, 0.0) + weight
    most = max(sums.values())
    tied = [answer for answer, total in sums.items() if math.isclose(total, most, rel_tol=1e-12, abs_tol=1e-12)]
    return fmean(float(answer == "5") for answer in tied)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n", range(1, 8))
def test_best_of_n_is_the_mean_over_all_subsets(seed: int, n: int) -> None:
    rewards, right, _ = drawn(seed)
    assert best_of_n(rewards, right, n) == pytest.approx(by_force(rewards, right, n), abs=1e-12)


def test_a_known_case() -> None:
    """Of {3 wrong, 2 right, 1 right}: the pairs without the best are one of three."""
    assert best_of_n([3.0, 2.0, 1.0], [False, True, True], 2) == pytest.approx(1 / 3)
    assert best_of_n([3.0, 2.0, 1.0], [False, True, True], 3) == 0.0
    assert best_of_n([2.0, 2.0, 1.0], [False, True, True], 3) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_one_sample_leaves_nothing_to_choose(seed: int) -> None:
    rewards, right, answers = drawn(seed)
    average = fmean(right)
    assert best_of_n(rewards, right, 1) == pytest.approx(average)
    assert majority_at_k(answers, right, 1) == pytest.approx(average)
    for how in WEIGHTINGS:
        assert weighted_best_of_n(rewards, answers, right, 1, how) == pytest.approx(average)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 64])
def test_an_oracle_reaches_pass_at_n_and_its_opposite_the_chance_that_all_are_right(n: int) -> None:
    right = [i % 5 == 0 for i in range(64)]
    assert best_of_n([float(flag) for flag in right], right, n) == pytest.approx(pass_at_k(64, sum(right), n))
    assert best_of_n([-float(flag) for flag in right], right, n) == pytest.approx(
        math.comb(sum(right), n) / math.comb(64, n)
    )


@pytest.mark.parametrize("n", [1, 2, 3, 8])
@pytest.mark.parametrize("value", [-2.0, 0.5, None])
def test_equal_rewards_choose_at_random_and_vote_like_a_majority(n: int, value: float | None) -> None:
    _, right, answers = drawn(3, n=8)
    rewards = [value] * 8
    assert best_of_n(rewards, right, n) == pytest.approx(fmean(right))
    for how in WEIGHTINGS[:2]:
        assert weighted_best_of_n(rewards, answers, right, n, how) == majority_at_k(answers, right, n)


@pytest.mark.parametrize("name", MONOTONE)
def test_only_the_order_of_rewards_matters_to_best_of_n(name: str) -> None:
    rewards, right, _ = drawn(11, n=12)
    mapped = [None if reward is None else MONOTONE[name](reward) for reward in rewards]
    for n in curve_sizes(12):
        assert best_of_n(mapped, right, n) == best_of_n(rewards, right, n)


@pytest.mark.parametrize("how", WEIGHTINGS)
@pytest.mark.parametrize("seed", range(10))
def test_a_weighted_vote_is_the_answer_with_the_largest_sum(seed: int, how: Weighting) -> None:
    rewards, right, answers = drawn(seed + 100, n=9)
    assert weighted_best_of_n(rewards, answers, right, 9, how) == vote_by_hand(rewards, answers, right, how)


def test_groups_of_a_vote_are_disjoint_and_by_index() -> None:
    answers, right = ["5", "4", "4", "5", "5"], [True, False, False, True, True]
    rewards = [2.0, 1.0, 3.0, 1.0, 9.0]  # The fifth is left over by two groups of two.
    assert weighted_best_of_n(rewards, answers, right, 2) == 0.5


def test_a_constant_changes_no_vote_by_exp_and_does_one_by_sum() -> None:
    answers, right = ["5", "5", "5", "4"], [True, True, True, False]
    rewards = [0.2, 0.3, 0.1, 0.4]
    shifted = [reward - 10 for reward in rewards]
    assert weighted_best_of_n(rewards, answers, right, 4, "exp") == 1.0
    assert weighted_best_of_n(shifted, answers, right, 4, "exp") == 1.0
    assert weighted_best_of_n(rewards, answers, right, 4, "sum") == 1.0
    assert weighted_best_of_n(shifted, answers, right, 4, "sum") == 0.0  # Three reasons against it outweigh one.


def test_large_rewards_come_to_best_of_n_and_small_ones_to_a_majority() -> None:
    answers, right = ["5", "5", "4"], [True, True, False]
    assert weighted_best_of_n([0.01, 0.0, 0.02], answers, right, 3) == 1.0
    assert weighted_best_of_n([1e4, 0.0, 2e4], answers, right, 3) == 0.0  # Without overflow.
    assert weights([-1e4, 1e4], "sigmoid") == [0.0, 1.0]


def test_a_sample_without_a_reward_is_the_last_choice_and_does_not_vote() -> None:
    assert best_of_n([None, -50.0], [True, False], 2) == 0.0
    assert best_of_n([None, None], [True, False], 2) == 0.5
    assert weighted_best_of_n([None, None, 0.0], ["5", "5", "4"], [True, True, False], 3) == 0.0
    assert weighted_best_of_n([3.0, None, None], [None, "5", "5"], [False, True, True], 3) == 1.0


def test_a_sample_without_an_answer_may_be_chosen_and_does_not_vote() -> None:
    rewards, answers, right = [9.0, 1.0], [None, "5"], [False, True]
    assert best_of_n(rewards, right, 2) == 0.0
    assert weighted_best_of_n(rewards, answers, right, 2) == 1.0
    assert weighted_best_of_n(rewards, [None, None], right, 2) == 0.0


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="a reward is nan"):
        best_of_n([math.nan, 1.0], [True, False], 1)
    with pytest.raises(ValueError, match="at least 3 samples per problem, there are 2"):
        best_of_n([0.0, 1.0], [True, False], 3)
    with pytest.raises(ValueError, match="3 rewards for 2 samples"):
        weighted_best_of_n([0.0, 1.0, 2.0], ["4", "5"], [True, False], 2)


def test_a_curve_has_powers_of_two_and_all_samples() -> None:
    assert curve_sizes(1) == [1]
    assert curve_sizes(8) == [1, 2, 4, 8]
    assert curve_sizes(12) == [1, 2, 4, 8, 12]
