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


def differences(examples: Sequence[Example], own: Sequence[NDArray[float32]]) -> list[NDArray[float64] | None]:
    """log p by the trainer minus by the sampler, ``[L]`` each, 0 where no loss is; None where none was recorded."""
    return [
        None if one.old_logprobs is None else _difference(one, mine) for one, mine in zip(examples, own, strict=True)
    ]


def _difference(example: Example, own: NDArray[float32]) -> NDArray[float64]:
    places = learnt(example)
    difference = np.zeros(len(own))
    difference[places] = (np.asarray(own, np.float64) - np.asarray(example.old_logprobs))[places]
    return difference


def told(examples: Sequence[Example], found: Sequence[NDArray[float64] | None]) -> dict[str, float]:
    """Over all tokens that carry loss and were recorded: the mean and the largest absolute difference, and the
    divergence KL(sampler || trainer), estimated by exp(d) - 1 - d."""
    known = [own[learnt(one)] for one, own in zip(examples, found, strict=True) if own is not None]
    every = np.concatenate(known or [np.zeros(0)])
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
    ratio = np.exp(np.minimum(difference, np.log(gap.bound)))
    return ratio if gap.correct == "truncate" else np.where(difference <= np.log(gap.bound), ratio, 0.0)


def on_own_terms(
    examples: Sequence[Example], own: Sequence[NDArray[float32]], gap: Gap
) -> tuple[list[Example], dict[str, float]]:
    """Examples with the trainer's log-probabilities as the old ones, their advantages corrected for the gap where the
    sampler recorded its own; and the size of the gap."""
    found = differences(examples, own)
    corrected = []
    for one, mine, difference in zip(examples, own, found, strict=True):
        advantages = one.advantages
        if difference is not None and advantages is not None:
            advantages = tuple((np.asarray(advantages) * weights(difference, gap)).tolist())
        corrected.append(replace(one, old_logprobs=tuple(mine.tolist()), advantages=advantages))
    return corrected, told(examples, found)
