"""Mistakes that released code made, each written down as it was made, and what tells it from what stands here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from selftrain.advantages.base import Advantage, Group, Rollout, to_go
from selftrain.advantages.group import RLOO
from selftrain.advantages.prime import PrimeRLOO, centred
from selftrain.config import instantiate
from selftrain.objectives.labelled import implicit_ce_loss
from selftrain.objectives.nll import NLL
from selftrain.objectives.paired import Sides
from selftrain.objectives.policy_gradient import PPOClip, Reinforce
from selftrain.objectives.values import BCE, MSE, StepPreference
from selftrain.registry import TABLES, resolve
from selftrain.schema import Component
from selftrain.training.data import Batching, MicroBatch, micro_batches, totals
from selftrain.training.engine import Objective
from selftrain.types import Example

Vector = NDArray[np.float64]
PAD, END, VOCABULARY = 0, 1, 20
BATCHINGS: tuple[Batching, ...] = ("bucketed", "packed")
ADVANTAGES: list[Advantage] = [instantiate("advantage", Component(kind)) for kind in TABLES["advantage"]]


def examples(shapes: Sequence[tuple[int, int]] = ((3, 4), (2, 6), (5, 1))) -> list[Example]:
    """Prompts of 2 to 9, responses of 10 and more and the end token."""
    made = []
    for i, (prompt, response) in enumerate(shapes):
        ids = (*(10 + (i + t) % 9 for t in range(response - 1)), END)
        own = Example(f"e{i}", f"p{i}", "own", tuple(2 + (i + t) % 8 for t in range(prompt)), ids, label=float(i % 2))
        values = tuple(-0.5 - 0.1 * t for t in range(response))
        made.append(replace(own, reference_logprobs=values, old_logprobs=values, advantages=(1.0 + i,) * response))
    return made


def logits(batch: MicroBatch) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(*batch.input_ids.shape, VOCABULARY, requires_grad=True)


def loss(objective: Objective, batch: MicroBatch, scores: Tensor, index: Tensor | None = None) -> Tensor:
    """Args:
    index: positions whose next token is read, where other than the batch's.
    """
    rows = scores.reshape(-1, VOCABULARY)[batch.positions.index if index is None else index].log_softmax(dim=1)
    logprobs = rows.gather(1, batch.positions.targets[:, None]).squeeze(1)
    return objective.loss(replace(batch.terms, logprobs=logprobs), totals([batch])).value


def read_from(batch: MicroBatch, objective: Objective, index: Tensor | None = None) -> list[int]:
    """The token behind each position whose logits move the loss; pad behind the last one of a row."""
    scores = logits(batch)
    loss(objective, batch, scores, index).backward()
    assert scores.grad is not None
    ids = batch.input_ids
    behind = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], PAD)], dim=1)
    return sorted(behind[scores.grad.abs().sum(dim=2) > 0].tolist())


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("kind", ["nll", "implicit_ce", "reinforce"])
def test_a_prompt_mask_that_is_off_by_one(kind: str, batching: Batching) -> None:
    """The mask of the prompt must be shifted with the labels: one too early teaches the prompt's last token, one too
    late leaves out the response's first and reads what follows its end. No prompt or pad logit may move a loss, and the
    end token's must."""
    own = examples()
    objective = instantiate("objective", Component(kind))
    (batch,) = micro_batches(own, batching=batching, max_tokens=1000, pad=PAD)
    taught = sorted(token for one in own for token in one.response_ids)
    right = batch.positions.index
    assert read_from(batch, objective) == taught
    assert taught.count(END) == len(own)
    for wrong in (right - 1, right + 1):
        assert read_from(batch, objective, wrong.clamp(max=batch.input_ids.numel() - 1)) != taught


def in_pairs(own: Sequence[Example]) -> list[Example]:
    """A chosen one and a rejected one in turn."""
    return [
        replace(one, pair_id=f"{i // 2}", role="rejected" if i % 2 else "chosen", label=1.0 - i % 2)
        for i, one in enumerate(own)
    ]


OF_TOKENS = [kind for kind in TABLES["objective"] if resolve("objective", kind) not in (MSE, BCE, StepPreference)]


@pytest.mark.parametrize("kind", OF_TOKENS)
def test_a_dropped_end_token(kind: str) -> None:
    """verl's recipe cut the last token of each response off its process rewards: whether the response ended then has
    no part in what is learnt."""
    own = in_pairs(examples([(3, 4), (2, 6), (4, 3), (1, 2)]))
    cut = [replace(one, loss_mask=(*(True for _ in one.response_ids[1:]), False)) for one in own]
    objective = instantiate("objective", Component(kind))
    found = []
    for these in (own, cut):
        (batch,) = micro_batches(these, batching="bucketed", max_tokens=1000, pad=PAD)
        found.append(read_from(batch, objective).count(END))
    assert found == [4, 0]


def process() -> list[Vector]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=length) for length in (3, 5, 4, 7)]


def keeps_differences(found: Sequence[Vector]) -> bool:
    """A baseline is one number for a response: what its tokens differ by is what they earned."""
    return all(np.allclose(np.diff(a), np.diff(b)) for a, b in zip(found, process(), strict=True))


def scaled_by_the_group(rewards: Sequence[Vector]) -> list[Vector]:
    """PRIME's code: K / (K - 1) r_t - sum_j mean(r^j) / (K - 1)."""
    count, means = len(rewards), sum(float(own.mean()) for own in rewards)
    return [own * count / (count - 1) - means / (count - 1) for own in rewards]


def test_token_rewards_scaled_by_the_size_of_the_group() -> None:
    paper, code = centred(process(), "paper"), scaled_by_the_group(process())
    assert keeps_differences(paper)
    assert not keeps_differences(code)
    # Returns at the first token, which is all an outcome has, do not tell the two apart.
    assert [to_go(own)[0] for own in paper] == pytest.approx([to_go(own)[0] for own in code])
    for own, other in zip(centred(process(), "code"), code, strict=True):
        np.testing.assert_allclose(own, other)


def groups() -> list[list[Rollout]]:
    rng = np.random.default_rng(1)
    return [[Rollout(float(i % 2), rng.normal(size=3 + i, scale=1 + g)) for i in range(4)] for g in range(4)]


def by_rank(advantage: Advantage, every: Sequence[Group], ranks: int) -> list[list[Vector]]:
    """Each rank on its own part of the batch."""
    share = len(every) // ranks
    return [own for r in range(ranks) for own in advantage.advantages(every[r * share : (r + 1) * share])]


@pytest.mark.parametrize("advantage", [PrimeRLOO(whiten=False), PrimeRLOO()], ids=["normalise", "whiten"])
def test_a_normaliser_of_each_rank(advantage: Advantage) -> None:
    """PRIME's code divides by the largest return of a rank's part, so that advantages change with the ranks there
    are; here all are computed before the batch is cut."""
    whole = advantage.advantages(groups())
    assert all(np.allclose(a, b) for x, y in zip(by_rank(advantage, groups(), 1), whole, strict=True)
               for a, b in zip(x, y, strict=True))  # fmt: skip
    moved = max(float(abs(a - b).max()) for x, y in zip(by_rank(advantage, groups(), 2), whole, strict=True)
                for a, b in zip(x, y, strict=True))  # fmt: skip
    assert moved > 0.05


def test_a_mean_of_the_means_of_forward_passes() -> None:
    """Gradient accumulation once averaged each pass by its own tokens, so that tokens of short passes counted more."""
    own = examples()
    objective = NLL()
    batches = micro_batches(own, batching="bucketed", max_tokens=1, pad=PAD)
    scores = [logits(batch) for batch in batches]
    logprobs = [
        s.reshape(-1, VOCABULARY)[b.positions.index].log_softmax(dim=1).gather(1, b.positions.targets[:, None])
        for s, b in zip(scores, batches, strict=True)
    ]
    parts = [
        objective.loss(replace(b.terms, logprobs=p.squeeze(1)), totals(batches)).value.item()
        for p, b in zip(logprobs, batches, strict=True)
    ]
    expected = -torch.cat(logprobs).mean().item()
    of_each = [loss(objective, batch, s).item() for s, batch in zip(scores, batches, strict=True)]
    assert sum(parts) == pytest.approx(expected, rel=1e-6)
    assert abs(sum(of_each) / len(of_each) - expected) > 0.05


def sigmoid_first(reward: Tensor, label: Tensor) -> Tensor:
    """Both official implementations of implicit PRMs."""
    return binary_cross_entropy(reward.sigmoid(), label, reduction="none")


@pytest.mark.parametrize("reward, label", [(30.0, 0.0), (120.0, 0.0), (-120.0, 1.0)])
def test_a_sigmoid_before_the_cross_entropy(reward: float, label: float) -> None:
    """In fp32 s(r) rounds to 1 beyond 17 nats: the loss then stops at 100 and the gradient, s(r) - l, at 0."""
    values: list[tuple[float, float]] = []
    for function in (implicit_ce_loss, sigmoid_first):
        leaf = torch.tensor([reward], requires_grad=True)
        found = function(leaf, torch.tensor([label]))
        (slope,) = torch.autograd.grad(found.sum(), leaf)
        values.append((found.item(), slope.item()))
    right, wrong = values
    assert right == pytest.approx((abs(reward), 1.0 - 2.0 * label))
    assert wrong[0] == 100.0 or wrong[0] != pytest.approx(abs(reward), rel=1e-3)
    assert wrong[1] != pytest.approx(right[1], abs=0.5)


def halves(values: Tensor) -> Sides:
    """The first half of a concatenated batch is the chosen ones."""
    chosen, rejected = values.chunk(2)
    return Sides(chosen, rejected)


@pytest.mark.parametrize("batching", BATCHINGS)
def test_pairs_taken_for_the_halves_of_a_batch(batching: Batching) -> None:
    """Batches are laid out by length; which is whose other side is written beside them."""
    own = in_pairs(examples([(3, 4), (3, 9), (2, 6), (2, 1), (4, 4), (4, 5)]))
    (batch,) = micro_batches(own, batching=batching, max_tokens=1000, pad=PAD)
    labels = batch.terms.labels
    assert labels is not None
    assert Sides.of(batch.terms, labels).margin.tolist() == [1.0] * 3
    assert halves(labels).margin.tolist() != [1.0] * 3


@pytest.mark.parametrize("objective", [NLL(), Reinforce(), PPOClip()], ids=lambda one: type(one).__name__)
def test_truncated_tokens_in_the_denominator_alone(objective: Objective) -> None:
    """TRL #6369: what a mask takes out of the sum stays in the number it is divided by, so that the loss shrinks with
    the share of truncated responses."""
    own = examples()
    masked = [own[0], replace(own[1], loss_mask=(False,) * len(own[1].response_ids)), own[2]]
    (batch,) = micro_batches(masked, batching="bucketed", max_tokens=1000, pad=PAD)
    (without,) = micro_batches([own[0], own[2]], batching="bucketed", max_tokens=1000, pad=PAD)
    scores = logits(batch)
    rows = [batch.examples.tolist().index(i) for i in (0, 2)]
    order = [{0: 0, 1: 2}[i] for i in without.examples.tolist()]
    kept = scores[[rows[{0: 0, 2: 1}[i]] for i in order], : without.input_ids.shape[1]]
    expected = loss(objective, without, kept).item()
    assert loss(objective, batch, scores).item() == pytest.approx(expected, rel=1e-6)
    counted = replace(totals([batch]), tokens=sum(len(one.response_ids) for one in own))
    logprobs = scores.reshape(-1, VOCABULARY)[batch.positions.index].log_softmax(dim=1)
    chosen = logprobs.gather(1, batch.positions.targets[:, None]).squeeze(1)
    diluted = objective.loss(replace(batch.terms, logprobs=chosen), counted).value.item()
    assert diluted == pytest.approx(expected * 5 / 11, rel=1e-6)


PER_SEQUENCE = [NLL(normalise="sequences"), Reinforce(aggregate="sequence_mean"), PPOClip(aggregate="constant")]


@pytest.mark.parametrize("objective", PER_SEQUENCE, ids=str)
def test_responses_that_are_masked_whole_in_the_denominator(objective: Objective) -> None:
    """The same of a mean over responses: one that carries no loss is none of them."""
    own = examples([(3, 4), (3, 4)])
    masked = [own[0], replace(own[1], loss_mask=(False,) * 4)]
    found = []
    for these in (own[:1], masked):
        (batch,) = micro_batches(these, batching="bucketed", max_tokens=1000, pad=PAD)
        found.append(loss(objective, batch, logits(batch)[:1].expand(len(these), -1, -1)).item())
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def one_by_one(rewards: Sequence[float]) -> list[float]:
    """verl's loop: without others there is nothing to take off."""
    return [r - (sum(rewards) - r) / (len(rewards) - 1) if len(rewards) > 1 else r for r in rewards]


def test_a_group_of_one_keeps_its_raw_reward() -> None:
    assert one_by_one([1, 0]) == [1, -1] and one_by_one([1.0]) == [1.0]
    for advantage in ADVANTAGES:
        alone = [Rollout(1.0, np.zeros(3), greedy=1.0)]
        others = [Rollout(float(i % 2), np.zeros(3), greedy=float(i % 2)) for i in range(2)]
        assert advantage.advantages([alone])[0][0].tolist() == [0.0] * 3
        if isinstance(advantage, RLOO):
            assert [own[0] for own in advantage.advantages([others])[0]] == [-1.0, 1.0]


def by_the_others(rewards: Sequence[float]) -> list[float]:
    """(r_i - mean of the others) / (their deviation + 1e-6): NeMo-RL #1518."""
    rest: list[list[float]] = [[*rewards[:i], *rewards[i + 1 :]] for i in range(len(rewards))]
    return [float((r - np.mean(own)) / (np.std(own) + 1e-6)) for r, own in zip(rewards, rest, strict=True)]


@pytest.mark.parametrize("rewards", [[1.0, 0.0, 0.0, 0.0], [0.35, 0.35, 0.35, 0.0], [0.1] * 7 + [0.7]])
def test_a_baseline_and_a_deviation_of_the_others(rewards: list[float]) -> None:
    """The one that differs has others that are all alike: its advantage is divided by nothing, or by what rounding
    leaves (NeMo-RL #4161)."""

    def bounded(values: Sequence[float]) -> bool:
        return max(map(abs, values)) < 10

    assert not bounded(by_the_others(rewards))
    for advantage in ADVANTAGES:
        found = advantage.advantages([[Rollout(reward, np.zeros(2), greedy=0.0) for reward in rewards]])
        assert bounded([float(own[0]) for own in found[0]])
        assert any(own[0] != 0 for own in found[0])
