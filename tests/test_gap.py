"""The gap between the sampler's log-probabilities and the trainer's: measured where loss is, corrected once."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from selftrain.objectives.policy_gradient import PPOClip
from selftrain.schema import Gap, Optim
from selftrain.training.data import micro_batches, totals
from selftrain.training.fit import Fit, fit
from selftrain.training.gap import differences, on_own_terms, told, weights
from selftrain.training.scoring import Scorer
from selftrain.types import Example


def example(old: list[float] | None, mask: list[bool] | None = None, advantage: float = 2.0) -> Example:
    count = 4 if old is None else len(old)
    return Example(
        "e",
        "p",
        "own",
        (5, 6),
        (7,) * (count - 1) + (1,),
        loss_mask=None if mask is None else tuple(mask),
        advantages=(advantage,) * count,
        old_logprobs=None if old is None else tuple(old),
    )


def own(*values: float) -> Any:
    return np.array(values, np.float32)


def test_differences_are_the_trainers_minus_the_samplers() -> None:
    masked = example([-1.0, -50.0, -2.0], [True, False, True])
    found = differences([masked, example(None)], [own(-0.5, 0.0, -3.0), own(0, 0, 0, 0)])
    assert found[0] is not None and found[0].tolist() == [0.5, 0.0, -1.0]
    assert found[1] is None


def test_the_estimate_of_the_divergence_is_that_of_the_two_distributions() -> None:
    """Tokens in the shares in which the sampler draws them: the mean of the estimates is KL(sampler || trainer)."""
    sampler, trainer = np.array([6, 3, 1]) / 10, np.array([0.3, 0.3, 0.4])
    drawn = [token for token, count in enumerate((6, 3, 1)) for _ in range(count)]
    old, mine = (np.log([model[token] for token in drawn]) for model in (sampler, trainer))
    one = example([float(value) for value in old])
    found = told([one], differences([one], [own(*mine)]))
    assert found["gap kl"] == pytest.approx(float((sampler * np.log(sampler / trainer)).sum()), rel=1e-6)
    assert abs(found["gap kl"] - float((trainer * np.log(trainer / sampler)).sum())) > 0.05
    assert found["gap mean"] == pytest.approx(float(abs(mine - old).mean()), rel=1e-6)
    assert found["gap max"] == pytest.approx(math.log(4), rel=1e-6)


def test_only_what_carries_loss_and_was_recorded_is_told_of() -> None:
    every = [example([-1.0, -50.0], [True, False]), example(None)]
    assert told(every, differences(every, [own(-1.5, 0.0), own(0, 0, 0, 0)]))["gap max"] == 0.5
    assert told([example(None)], [None]) == {}


@pytest.mark.parametrize(
    "correct, expected",
    [("none", [1.0] * 5), ("truncate", [0.5, 1.0, 1.9, 2.0, 2.0]), ("mask", [0.5, 1.0, 1.9, 0.0, 0.0])],
)
def test_weights(correct: Literal["none", "truncate", "mask"], expected: list[float]) -> None:
    """Also where the ratio is beyond what a number can hold."""
    difference = np.array([math.log(0.5), 0.0, math.log(1.9), math.log(2.5), 1e4])
    assert weights(difference, Gap(correct, bound=2.0)).tolist() == pytest.approx(expected)


def gradient(example: Example, logprobs: list[float]) -> list[float]:
    """Of the clipped surrogate by the log-probabilities, which the sum over tokens is of."""
    (batch,) = micro_batches([example], batching="bucketed", max_tokens=100, pad=0)
    leaf = torch.tensor(logprobs, requires_grad=True)
    value = PPOClip().loss(replace(batch.terms, logprobs=leaf), totals([batch])).value * len(logprobs)
    (found,) = torch.autograd.grad(value, leaf)
    return [float(value) for value in found]


def test_advantages_are_corrected_exactly_once() -> None:
    """At the first step the ratio to the trainer's own numbers is 1 and the gradient -w A. With the sampler's numbers
    left in the ratio it would be -w^2 A, and where the ratio alone held them, clipped."""
    mine, recorded = [-1.0, -1.0, -1.0], [-1.0 - math.log(1.15), -1.0, -1.0 + math.log(1.15)]
    (corrected,), _ = on_own_terms([example(recorded)], [own(*mine)], Gap("truncate", bound=2.0))
    assert gradient(corrected, mine) == pytest.approx([-2 * 1.15, -2.0, -2 / 1.15])
    twice = replace(corrected, old_logprobs=tuple(recorded))
    assert gradient(twice, mine) == pytest.approx([-2 * 1.15**2, -2.0, -2 / 1.15**2])
    again, measured = on_own_terms([corrected], [own(*mine)], Gap())
    assert again[0].advantages == corrected.advantages
    assert measured["gap max"] == 0.0


def test_tokens_outside_the_loss_mask_stay_as_they_are() -> None:
    one = example([-1.0, -9.0, -1.0], [True, False, True])
    (found,), measured = on_own_terms([one], [own(-1.0 + math.log(3), 0.0, -1.0)], Gap("mask", bound=2.0))
    assert found.advantages == pytest.approx((0.0, 2.0, 2.0))
    assert found.loss_mask == one.loss_mask
    assert measured["gap max"] == pytest.approx(math.log(3))


def test_a_response_without_recorded_numbers_leaves_the_others_corrected() -> None:
    """Such as one that a stop string ended, whose end token was not sampled."""
    every = [example([-1.0, -1.0]), example(None)]
    (first, second), measured = on_own_terms(every, [own(-2.0, -1.0), own(-1, -2, -3, -4)], Gap())
    assert first.advantages == pytest.approx((2 * math.exp(-1), 2.0))
    assert second.advantages == (2.0,) * 4
    assert second.old_logprobs == (-1.0, -2.0, -3.0, -4.0)
    assert measured["gap mean"] == pytest.approx(0.5)


def test_a_fit_tells_the_gap_and_starts_at_a_ratio_of_one(tiny: Path, tmp_path: Path) -> None:
    one = example([0.0, 0.0, 0.0])
    with Scorer(tiny, dtype="float32", device="cpu") as scorer:
        (mine,) = scorer.logprobs([one])
    recorded = replace(one, old_logprobs=tuple((mine - 0.1).tolist()))
    optim = Optim(dtype="float32", steps=2, batch_size=1, lr=1e-3, schedule="constant", warmup=0.0)
    list(fit([recorded], Fit(tiny, tmp_path / "out", tmp_path / "log", PPOClip(), optim, seed=0)))
    log = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert log[0]["gap mean"] == pytest.approx(0.1, abs=1e-4)
    assert log[0]["ratio"] == pytest.approx(1, abs=1e-4)
    assert log[0]["loss"] == pytest.approx(-2 * math.exp(0.1), rel=1e-3)
    assert log[1]["ratio"] > 1.0
