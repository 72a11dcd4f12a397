"""Advantages against numbers worked out by hand, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest

from selftrain.advantages.base import Advantage, Group, Rollout, leave_one_out, to_go, whitened
from selftrain.advantages.group import GRPO, RLOO, DrGRPO, ReMax
from selftrain.advantages.min_form import PureMinForm, min_form
from selftrain.advantages.prime import PrimeRLOO, centred, largest_return
from selftrain.advantages.reinforce_pp import ReinforcePP

PLAIN = {"normalise": "none", "whiten": False}


def rollout(outcome: float, process: list[float] | None = None, ends: tuple[int, ...] = ()) -> Rollout:
    return Rollout(outcome, np.array([0.0] if process is None else process), ends)


def outcomes(*rewards: float) -> list[Rollout]:
    return [rollout(reward) for reward in rewards]


def first(advantage: Advantage, group: Group) -> list[float]:
    """The advantage of each response's first token."""
    return [float(own[0]) for own in advantage.advantages([group])[0]]


def test_leave_one_out_of_two_and_of_four() -> None:
    assert leave_one_out([0.7, 0.2]) == pytest.approx([0.5, -0.5])
    assert first(RLOO(), outcomes(1, 0, 0, 0)) == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])
    assert first(RLOO(), outcomes(0, -1, -1, -1)) == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])
    assert sum(leave_one_out([0.3, 0.9, 0.1, 0.4, 0.0])) == pytest.approx(0, abs=1e-12)


def test_the_other_baselines_of_a_group() -> None:
    group = outcomes(1, 0, 0, 0)
    assert first(DrGRPO(), group) == pytest.approx([0.75, -0.25, -0.25, -0.25])
    assert first(DrGRPO(), group) == pytest.approx([0.75 * a for a in first(RLOO(), group)])
    assert first(GRPO(), group) == pytest.approx([1.5, -0.5, -0.5, -0.5])
    # A deviation with n in place of n - 1 is smaller, and its advantages are larger.
    deviation = np.array([1.0, 0, 0, 0]).std(ddof=0)
    assert [own / deviation for own in first(DrGRPO(), group)] == pytest.approx([1.732, *[-0.577] * 3], abs=1e-3)
    greedy = [Rollout(reward, np.zeros(2), greedy=0.25) for reward in (1.0, 0.0)]
    assert first(ReMax(), greedy) == pytest.approx([0.75, -0.25])


EVERY: list[Advantage] = [
    RLOO(),
    GRPO(),
    DrGRPO(),
    ReinforcePP(),
    ReinforcePP(baseline="group", gamma=0.9),
    *(PrimeRLOO(variant, gamma, how, whiten)
      for variant in ("paper", "code", "sequence") for gamma in (1.0, 0.9)
      for how in ("none", "global") for whiten in (False, True)),
    PureMinForm(),
]  # fmt: skip


@pytest.mark.parametrize("advantage", EVERY, ids=str)
@pytest.mark.parametrize("reward", [0.1, 1.0, 1 / 3])
def test_equal_rewards_and_groups_of_one_teach_nothing(advantage: Advantage, reward: float) -> None:
    """Zeros, not the noise that remains of sums which should cancel, blown up by a division."""
    equal = [[rollout(reward, [0.0, 0.0]) for _ in range(7)], [rollout(reward, [0.0, 0.0])]]
    for group in advantage.advantages(equal):
        assert all(own.tolist() == [0.0, 0.0] for own in group)


@pytest.mark.parametrize("advantage", [own for own in EVERY if own != ReinforcePP()], ids=str)
def test_they_teach_nothing_beside_a_group_that_does(advantage: Advantage) -> None:
    """The mean over the batch is not taken off what has no part in it."""
    mixed = [rollout(1, [0.0] * 4), rollout(0, [0.0] * 2), rollout(0, [0.0])]
    alone, right = [rollout(1, [0.0, 0.3])], [rollout(1, [0.0, 0.0]), rollout(1, [0.0, 0.0])]
    found = advantage.advantages([mixed, alone, right])
    assert found[0][0].any()
    assert [own.tolist() for group in found[1:] for own in group] == [[0.0, 0.0]] * 3
    both = advantage.advantages([mixed]), advantage.advantages([mixed, right])
    assert [own.tolist() for own in both[0][0]] == [own.tolist() for own in both[1][0]]


def test_without_a_baseline_the_whole_batch_is_one() -> None:
    found = ReinforcePP().advantages([outcomes(1, 0), outcomes(0, 0)])
    assert [own.tolist() for group in found for own in group] == [[1.5], [-0.5], [-0.5], [-0.5]]


@pytest.mark.parametrize("advantage", EVERY, ids=str)
def test_an_empty_response_is_no_failure(advantage: Advantage) -> None:
    found = advantage.advantages([[rollout(1, [0.3, 0.1], (1, 2)), rollout(0, []), rollout(0.5, [0.2], (1,))]])
    assert [own.shape for own in found[0]] == [(2,), (0,), (1,)]
    assert all(np.isfinite(own).all() for own in found[0])


def batch(seed: int = 0) -> list[list[Rollout]]:
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(3):
        group = []
        for _ in range(4):
            length = int(rng.integers(3, 9))
            group.append(Rollout(float(rng.integers(0, 2)), rng.normal(size=length), (2, length)))
        groups.append(group)
    return groups


@pytest.mark.parametrize("advantage", EVERY, ids=str)
def test_permuting_responses_and_problems_permutes_advantages(advantage: Advantage) -> None:
    groups = batch()
    plain = advantage.advantages(groups)
    turned = advantage.advantages([[group[i] for i in (2, 0, 3, 1)] for group in reversed(groups)])
    for group, other in zip(plain, reversed(turned), strict=True):
        for place, i in enumerate((2, 0, 3, 1)):
            np.testing.assert_allclose(other[place], group[i], atol=1e-12)


@pytest.mark.parametrize("variant", ["paper", "code", "sequence"])
def test_what_is_normalised_over_the_batch_is_not_normalised_over_a_part_of_it(variant: str) -> None:
    """The released code divides by the largest return of each rank's part, so that its numbers follow from how many
    ranks there are."""
    groups = batch()
    one_by_one = [PrimeRLOO(variant).advantages([group])[0] for group in groups]  # type: ignore[arg-type]
    together = PrimeRLOO(variant).advantages(groups)  # type: ignore[arg-type]
    assert max(
        float(abs(a - b).max())
        for x, y in zip(one_by_one, together, strict=True)
        for a, b in zip(x, y, strict=True)
    ) > 0.1  # fmt: skip


def test_prime_centres_process_rewards_as_the_paper_says() -> None:
    rewards = [np.array([0.2, 0.4, 0.0]), np.array([0.1, -0.1])]
    paper, code = centred(rewards, "paper"), centred(rewards, "code")
    assert [own.tolist() for own in paper] == [pytest.approx([0.2, 0.4, 0.0]), pytest.approx([-0.1, -0.3])]
    assert [own.tolist() for own in code] == [pytest.approx([0.2, 0.6, -0.2]), pytest.approx([0.0, -0.4])]
    group = [Rollout(0.0, own) for own in rewards]
    for variant in ("paper", "code"):
        assert first(PrimeRLOO(variant, **PLAIN), group) == pytest.approx([0.6, -0.4])  # type: ignore[arg-type]


def test_a_mean_over_tokens_makes_equal_sums_unequal() -> None:
    """The baseline of the paper favours short responses; the variant over sequences does not."""
    group = [rollout(0, [0.1, 0.1]), rollout(0, [0.05] * 4)]
    assert first(PrimeRLOO("paper", **PLAIN), group) == pytest.approx([0.1, -0.2])  # type: ignore[arg-type]
    assert first(PrimeRLOO("sequence", **PLAIN), group) == pytest.approx([0.0, 0.0])  # type: ignore[arg-type]


def test_prime_scales_by_the_largest_return_and_so_forgets_beta() -> None:
    assert to_go(np.array([0.5, -1.0, 2.0])).tolist() == [1.5, 1.0, 2.0]
    assert largest_return([[rollout(0, [0.5, -1.0, 2.0])]]) == 2.0
    against_none = [rollout(0, [0.5, -1.0, 2.0]), rollout(0, [0.0])]
    ((found, _),) = PrimeRLOO(whiten=False).advantages([against_none])
    assert (found - np.append(found[1:], 0.0)).tolist() == pytest.approx([0.25, -0.5, 1.0])
    groups = batch()
    scaled = [[Rollout(one.outcome, 20 * one.process, one.step_ends) for one in group] for group in groups]
    plain, large = PrimeRLOO().advantages(groups), PrimeRLOO().advantages(scaled)
    for x, y in zip(plain, large, strict=True):
        for a, b in zip(x, y, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_the_weight_in_the_total_counts_after_process_rewards_are_scaled() -> None:
    def weighed(weight: float) -> list[float]:
        process = [np.array([0.02, 0.02]), np.array([-0.01])]
        group = [Rollout(0.0, weight * own, unweighted=own) for own in process]
        return first(PrimeRLOO(whiten=False), group)

    assert weighed(1.0) == pytest.approx([1.5, -0.75])
    assert weighed(0.1) == pytest.approx([0.1 * own for own in weighed(1.0)])


def test_process_rewards_that_are_rounding_alone_are_none() -> None:
    noise = [rollout(1, [1e-9, 1e-9]), rollout(0, [-1e-9])]
    assert first(PrimeRLOO(whiten=False), noise) == [1.0, -1.0]


def test_the_outcome_reaches_every_token_and_is_not_discounted() -> None:
    group = [rollout(1, [0.0] * 3), rollout(0, [0.0] * 2)]
    (found,) = PrimeRLOO(gamma=0.5, whiten=False).advantages([group])
    assert [own.tolist() for own in found] == [[1.0] * 3, [-1.0] * 2]


def test_reward_to_go_is_discounted() -> None:
    assert to_go(np.array([1.0, 2.0, 4.0]), 0.5).tolist() == [3.0, 4.0, 4.0]


def test_reinforce_pp_whitens_over_the_batch() -> None:
    found = ReinforcePP().advantages(batch())
    every = np.concatenate([own for group in found for own in group])
    assert every.mean() == pytest.approx(0, abs=1e-12)
    assert every.std(ddof=1) == pytest.approx(1)


def test_whitening_takes_no_rounding_for_a_deviation() -> None:
    """sqrt(E[x^2] - E[x]^2) of a thousand times 0.1 in fp32 is about 1e-4, not 0."""
    values = [[np.full(1000, 0.1) + 1e-9 * np.arange(1000)]]
    assert whitened(values, 1e-3, centred=True)[0][0].tolist() == [0.0] * 1000


def test_the_minimum_form_weighs_the_worst_step() -> None:
    steps = np.array([0.9, -0.6, 0.8])
    assert min_form(steps, 0.1).sum() == pytest.approx(-0.5999984, abs=1e-7)
    assert min_form(steps, 0.01).sum() == pytest.approx(-0.6)
    assert min_form(steps, 1.0).sum() == pytest.approx(-0.137, abs=5e-4)


def test_more_neutral_steps_raise_the_sum_and_not_the_minimum() -> None:
    short, long = rollout(0, [0.2, -0.5], (1, 2)), rollout(0, [0.2, 0.2, 0.2, 0.2, -0.5], (1, 2, 3, 4, 5))
    assert first(RLOO(), [short, long]) == pytest.approx([-0.6, 0.6])
    worst = first(PureMinForm(temperature=0.01, length=10**9), [short, long])
    assert worst == pytest.approx([-0.5, -0.5], abs=1e-6)


def test_a_response_without_a_step_earns_no_process_reward() -> None:
    (found,) = PureMinForm(length=4).advantages([[rollout(1, [0.3, 0.3]), rollout(0, [0.4, 0.4], (1, 2))]])
    assert np.isfinite(found[0]).all()
    assert found[1][0] - found[1][1] == pytest.approx(0.2)
