"""Objectives against numbers worked out by hand, against TRL on the same tensors, and against how a step is cut."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from selftrain.config import instantiate
from selftrain.objectives import labelled, paired, policy_gradient, preference
from selftrain.objectives.terms import Terms, Totals
from selftrain.registry import TABLES
from selftrain.schema import Component

LN2 = math.log(2)
ZERO = torch.zeros(1, dtype=torch.float64)


def value(number: float) -> torch.Tensor:
    return torch.tensor([number], dtype=torch.float64, requires_grad=True)


def test_dpo_at_no_margin_and_at_one() -> None:
    assert preference.dpo_loss(ZERO, 0.1).item() == pytest.approx(LN2)
    margin = value(10.0)
    loss = preference.dpo_loss(margin, 0.1)
    assert loss.item() == pytest.approx(0.31326, abs=1e-5)
    loss.backward()
    assert margin.grad is not None
    assert -margin.grad.item() == pytest.approx(0.02689, abs=1e-5)


def test_conservative_dpo_is_least_where_the_labels_are_as_sure() -> None:
    assert preference.dpo_loss(value(10.0), 0.1, 0.1).item() == pytest.approx(0.41326, abs=1e-5)
    margin = value(math.log(9) / 0.1)
    preference.dpo_loss(margin, 0.1, 0.1).backward()
    assert margin.grad is not None
    assert margin.grad.item() == pytest.approx(0, abs=1e-12)


def test_robust_dpo() -> None:
    assert preference.robust_dpo_loss(value(10.0), 0.1, 0.1).item() == pytest.approx(0.18826, abs=1e-5)
    assert preference.robust_dpo_loss(ZERO, 0.1, 0.1).item() == pytest.approx(LN2)


def test_robust_dpo_is_unbiased_under_flipped_labels() -> None:
    margin, noise = value(3.7), 0.3
    kept, flipped = (preference.robust_dpo_loss(sign * margin, 0.1, noise) for sign in (1, -1))
    assert ((1 - noise) * kept + noise * flipped).item() == pytest.approx(preference.dpo_loss(margin, 0.1).item())


def test_the_other_losses_where_their_value_is_known() -> None:
    assert preference.ipo_loss(ZERO, 0.1).item() == pytest.approx(25)
    assert preference.slic_loss(ZERO, 0.1).item() == 1.0
    assert preference.slic_loss(value(10.0), 0.1).item() == 0.0
    assert preference.nca_loss(ZERO, ZERO).item() == pytest.approx(2 * LN2)
    assert preference.simpo_loss(value(-0.7), value(-0.7), 2.0, 1.0).item() == pytest.approx(1.31326, abs=1e-5)
    assert preference.orpo_ratio_loss(value(-0.7), value(-0.7)).item() == pytest.approx(LN2)
    one = torch.ones(1)
    assert labelled.kto_loss(value(0.4), one, 0.1, 0.4, 1.0, 1.0).item() == pytest.approx(0.5)
    assert labelled.kto_loss(value(0.4), 0 * one, 0.1, 0.4, 1.0, 1.0).item() == pytest.approx(0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_odds_keep_their_digits_at_both_ends(dtype: torch.dtype) -> None:
    logprobs = torch.tensor([-50.0, -5.0, -0.6932, -0.6931, -1e-3, -1e-6, 0.0], dtype=dtype, requires_grad=True)
    found = preference.log_odds(logprobs)
    exact = [p - math.log(-math.expm1(p)) for p in logprobs.tolist()[:-1]]
    assert found[:-1].tolist() == pytest.approx(exact, rel=1e-5, abs=1e-7)
    found.sum().backward()
    assert logprobs.grad is not None
    assert bool(found.isfinite().all())
    assert bool(logprobs.grad.isfinite().all())


def test_implicit_cross_entropy_starts_at_ln_2_with_the_same_gradient_everywhere() -> None:
    """Where policy and reference are equal: loss ln 2, and -beta / 2 for each token of a right response."""
    logprobs = torch.randn(5, requires_grad=True)
    terms = Terms(
        logprobs,
        torch.tensor([0, 0, 0, 1, 1]),
        torch.ones(2),
        labels=torch.tensor([1.0, 0.0]),
        reference=logprobs.detach().clone(),
    )
    loss = labelled.ImplicitCE(beta=0.05).loss(terms, Totals(tokens=5, sequences=2))
    assert loss.value.item() == pytest.approx(LN2)
    loss.value.backward()
    assert logprobs.grad is not None
    assert (2 * logprobs.grad).tolist() == pytest.approx([-0.025] * 3 + [0.025] * 2)
    assert loss.measures["reward accuracy"] == (1.0, 2.0)  # Two ties.


def test_implicit_cross_entropy_survives_rewards_whose_sigmoid_rounds_to_one() -> None:
    """A sigmoid first, as in the released code, gives -log(0)."""
    reward = torch.tensor([200.0], requires_grad=True)
    loss = labelled.implicit_ce_loss(reward, torch.zeros(1))
    assert loss.item() == pytest.approx(200.0)
    loss.sum().backward()
    assert reward.grad is not None
    assert reward.grad.item() == pytest.approx(1.0)


def test_soft_labels_mix_the_two_sides() -> None:
    reward = torch.tensor([0.8])
    right, wrong = (labelled.implicit_ce_loss(reward, torch.tensor([label])).item() for label in (1.0, 0.0))
    assert labelled.implicit_ce_loss(reward, torch.tensor([0.25])).item() == pytest.approx(0.25 * right + 0.75 * wrong)


def test_a_ratio_of_one_has_the_plain_policy_gradient() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    advantages = torch.tensor([1.0, -2.0, 0.5])
    terms = Terms(logprobs, torch.tensor([0, 0, 1]), torch.ones(2), old=logprobs.detach(), advantages=advantages)
    totals = Totals(tokens=3, sequences=2)
    policy_gradient.PPOClip().loss(terms, totals).value.backward()
    clipped, logprobs.grad = logprobs.grad, None
    policy_gradient.Reinforce().loss(terms, totals).value.backward()
    assert clipped is not None and logprobs.grad is not None
    assert clipped.tolist() == pytest.approx(logprobs.grad.tolist())
    assert clipped.tolist() == pytest.approx((-advantages / 3).tolist())


def test_clip_higher_lets_unlikely_tokens_rise_further() -> None:
    ratio, advantage = torch.tensor([1.25, 1.25, 0.7, 0.7]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert policy_gradient.clipped_surrogate(ratio, advantage, 0.2, 0.2).tolist() == pytest.approx(
        [-1.2, 1.25, -0.7, 0.8]
    )
    assert policy_gradient.clipped_surrogate(ratio, advantage, 0.2, 0.28).tolist() == pytest.approx(
        [-1.25, 1.25, -0.7, 0.8]
    )


def test_aggregates_weigh_long_responses_differently() -> None:
    """One token against four: their weights in the step's loss."""
    terms = Terms(torch.zeros(5), torch.tensor([0, 1, 1, 1, 1]), torch.ones(2))
    losses, totals = torch.tensor([1.0, 0, 0, 0, 0]), Totals(tokens=5, sequences=2)
    for how, expected in (("token_mean", 1 / 5), ("sequence_mean", 1 / 2), ("constant", 1 / 20)):
        found = policy_gradient.aggregated(terms, totals, losses, how, 10)  # type: ignore[arg-type]
        assert found.item() == pytest.approx(expected)


def test_the_divergence_is_never_negative_and_its_mean_is_the_true_one() -> None:
    torch.manual_seed(0)
    own, other = torch.randn(2, 6).log_softmax(dim=1)
    expected = (own.exp() * (own - other)).sum()
    estimate = policy_gradient.divergence(own, other)
    assert bool((estimate >= 0).all())
    assert (own.exp() * estimate).sum().item() == pytest.approx(expected.item(), rel=1e-5)


def random_terms(seed: int) -> Terms:
    """Six sequences of two to five tokens, three pairs, eight targets."""
    torch.manual_seed(seed)
    sequences = torch.repeat_interleave(torch.arange(6), torch.tensor([3, 2, 5, 2, 4, 3]))
    count = len(sequences)
    return Terms(
        -torch.rand(count, dtype=torch.float64) - 0.1,
        sequences,
        torch.rand(6, dtype=torch.float64) + 0.5,
        labels=torch.rand(6, dtype=torch.float64),
        reference=-torch.rand(count, dtype=torch.float64) - 0.1,
        old=-torch.rand(count, dtype=torch.float64) - 0.1,
        advantages=torch.randn(count, dtype=torch.float64),
        pairs=torch.tensor([[0, 1], [3, 2], [4, 5]]),
        values=torch.randn(8, dtype=torch.float64),
        targets=torch.rand(8, dtype=torch.float64),
        value_sequences=torch.tensor([0, 0, 1, 2, 3, 4, 4, 5]),
    )


def part(terms: Terms, sequences: list[int]) -> Terms:
    """Some of the sequences as a forward pass of their own, in this order."""
    where = torch.cat([(terms.sequences == i).nonzero().flatten() for i in sequences])
    places = {i: place for place, i in enumerate(sequences)}
    assert terms.pairs is not None and terms.value_sequences is not None
    pairs = [[places[a], places[b]] for a, b in terms.pairs.tolist() if a in places]
    told = torch.cat([(terms.value_sequences == i).nonzero().flatten() for i in sequences])
    per_token = ("logprobs", "reference", "old", "advantages")
    return replace(
        terms,
        **{name: getattr(terms, name)[where] for name in per_token},
        sequences=torch.tensor([places[i] for i in terms.sequences[where].tolist()]),
        weights=terms.weights[sequences],
        labels=None if terms.labels is None else terms.labels[sequences],
        pairs=torch.tensor(pairs),
        values=terms.values[told] if terms.values is not None else None,
        targets=terms.targets[told] if terms.targets is not None else None,
        value_sequences=torch.tensor([places[i] for i in terms.value_sequences[told].tolist()]),
    )


OPTIONS: dict[str, dict[str, Any]] = {
    "dpo": {"nll": 1.0, "smoothing": 0.1},
    "nll": {"normalise": "sequences"},
    "bce": {"labels": "hard"},
    "ppo_clip": {"kl": 0.1, "aggregate": "sequence_mean"},
    "reinforce": {"aggregate": "constant"},
}


@pytest.mark.parametrize("kind", [*TABLES["objective"]])
@pytest.mark.parametrize("changed", [False, True])
def test_how_a_step_is_cut_over_passes_and_ranks_changes_nothing(kind: str, changed: bool) -> None:
    objective = instantiate("objective", Component(kind, OPTIONS.get(kind, {}) if changed else {}))
    terms, totals = random_terms(0), Totals(tokens=19, sequences=6, pairs=3, divergence=0.2, values=8)
    fitted = "values" if "values" in objective.needs else "logprobs"
    whole: torch.Tensor = getattr(terms, fitted).clone().requires_grad_()
    once = objective.loss(replace(terms, **{fitted: whole}), totals)
    once.value.backward()
    parts: torch.Tensor = getattr(terms, fitted).clone().requires_grad_()
    cut = [objective.loss(part(replace(terms, **{fitted: parts}), own), totals) for own in ([2, 3], [0, 1, 5, 4])]
    total = torch.stack([one.value for one in cut]).sum()
    total.backward()
    assert total.item() == pytest.approx(once.value.item(), rel=1e-12)
    assert whole.grad is not None and parts.grad is not None
    assert bool(whole.grad.abs().sum() > 0)
    torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-12, atol=1e-12)
    for name, (mean, count) in once.measures.items():
        if name != "divergence":
            assert sum(float(one.measures[name].total) for one in cut) == pytest.approx(float(mean)), name
            assert sum(one.measures[name].over for one in cut) == pytest.approx(count), name


@pytest.mark.parametrize("kind", [*TABLES["objective"]])
def test_an_objective_reads_what_it_says_it_needs(kind: str) -> None:
    objective = instantiate("objective", Component(kind))
    optional = {"labels", "reference", "old", "advantages", "pairs", "values"}
    unread: dict[str, Any] = dict.fromkeys(optional - objective.needs)
    if "values" in unread:
        unread |= {"targets": None, "value_sequences": None}
    bare = replace(random_terms(0), **unread)
    assert math.isfinite(objective.loss(bare, Totals(19, 6, 3, 0.1)).value.item())


@pytest.mark.parametrize("kind", [*TABLES["objective"]])
def test_a_step_without_a_token_that_carries_loss_is_no_failure(kind: str) -> None:
    objective = instantiate("objective", Component(kind))
    none = torch.zeros(0)
    ids = torch.zeros(0, dtype=torch.long)
    empty = Terms(none, ids, none, none, none, none, none, torch.zeros(0, 2).long(), none, none, ids)
    assert objective.loss(empty, Totals(0, 0)).value.item() == 0.0


def test_accuracy_counts_ties_as_half() -> None:
    terms = replace(random_terms(0), logprobs=torch.zeros(19), reference=torch.zeros(19))
    found = paired.DPO().loss(terms, Totals(19, 6, 3)).measures["reward accuracy"]
    assert float(found.total) / found.over == 0.5
