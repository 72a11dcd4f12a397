"""The gap between the log-probabilities the sampler recorded and those the trainer computes for the same tokens.

Two programs round differently, and with quantised weights or another attention they differ for good; ratios to the
sampler's numbers are then wrong in a way no clip shows. The trainer's own are used in ratios, and what remains of the
difference is corrected by importance weights, bounded (Yao et al. 2025, "Your Efficient RL Framework Secretly Brings
You Off-Policy RL Training").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from selftrain.schema import Gap
from selftrain.training.data import learnt
from selftrain.types import Example

if TYPE_CHECKING:
    from numpy import float32, float64
    from numpy.typing import NDArray


def differences(examples: Sequence[Example], own: Sequence[NDArray[float32]]) -> list[NDArray[float64]] | None:
    """log p by the trainer minus by the sampler, ``[L]`` each, 0 where no loss is; None where one was not recorded."""
    found = []
    for example, mine in zip(examples, own, strict=True):
        if example.old_logprobs is None:
            return None
        places = learnt(example)
        difference = np.zeros(len(mine))
        difference[places] = (np.asarray(mine, np.float64) - np.asarray(example.old_logprobs))[places]
        found.append(difference)
    return found


def told(examples: Sequence[Example], found: Sequence[NDArray[float64]]) -> dict[str, float]:
    """Over all tokens that carry loss: the mean and the largest absolute difference, and the divergence
    KL(sampler || trainer), estimated by exp(d) - 1 - d."""
    every = np.concatenate([own[learnt(one)] for one, own in zip(examples, found, strict=True)] or [np.zeros(0)])
    if not len(every):
        return {}
    return {
        "gap mean": float(abs(every).mean()),
        "gap max": float(abs(every).max()),
        "gap kl": float((np.expm1(every) - every).mean()),
    }


def weights(difference: NDArray[float64], gap: Gap) -> NDArray[float64]:
    """Importance weight p_trainer / p_sampler of each token: cut off at the bound, or 0 beyond it."""
    if gap.correct == "none":
        return np.ones_like(difference)
    ratio = np.exp(difference)
    return np.minimum(ratio, gap.bound) if gap.correct == "truncate" else np.where(ratio <= gap.bound, ratio, 0.0)


def on_own_terms(
    examples: Sequence[Example], own: Sequence[NDArray[float32]], gap: Gap
) -> tuple[list[Example], dict[str, float]]:
    """Examples with the trainer's log-probabilities as the old ones, their advantages corrected for the gap where the
    sampler recorded its own; and the size of the gap."""
    found = differences(examples, own)
    if found is None:
        return [replace(one, old_logprobs=tuple(mine.tolist())) for one, mine in zip(examples, own, strict=True)], {}
    corrected = []
    for one, mine, difference in zip(examples, own, found, strict=True):
        advantages = np.asarray(one.advantages) * weights(difference, gap)
        corrected.append(replace(one, old_logprobs=tuple(mine.tolist()), advantages=tuple(advantages.tolist())))
    return corrected, told(examples, found)
