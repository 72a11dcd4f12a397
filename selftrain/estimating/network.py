"""Bytes over the network: what a GPU sends in a step of a fit, and what goes from trainers to samplers.

Volumes of ZeRO are those of Rajbhandari et al. 2020, section 7; of sequence parallelism, those of Jacobs et al. 2023,
"DeepSpeed Ulysses", section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from selftrain.estimating.memory import BF16, Trainer
from selftrain.estimating.shapes import Shape


@dataclass(frozen=True)
class Traffic:
    """Bytes that each GPU sends in an optimizer step, by what they are."""

    gradients: float
    weights: float
    sequences: float

    @property
    def total(self) -> float:
        return self.gradients + self.weights + self.sequences


def step_traffic(shape: Shape, trainer: Trainer, passes: int) -> Traffic:
    """Of one optimizer step.

    Args:
        passes: forward and backward passes of each process in it.
    """
    ranks, size = trainer.processes, BF16 * shape.parameters
    others = (ranks - 1) / ranks
    # Stage 2 reduces after every pass, the others once; without ZeRO an all-reduce sends each number twice.
    gradients = size * others * (passes if trainer.zero >= 2 else 1 if trainer.zero else 2)
    # Stages 1 and 2 gather the weights after the step, stage 3 before every forward and every backward pass.
    weights = size * others * (0 if not trainer.zero else 2 * passes if trainer.zero == 3 else 1)
    return Traffic(gradients, weights, passes * sequence_traffic(shape, trainer))


def sequence_traffic(shape: Shape, trainer: Trainer) -> float:
    """Of one pass: queries, keys, values and what attention makes of them change places between those that share a
    sequence; forward, backward, and once more where activations are computed again."""
    share = trainer.sequence_parallel
    if share == 1:
        return 0.0
    exchanged = 2 * shape.attention + 2 * shape.kv_heads * shape.head_dim
    times = 3 if trainer.checkpointing else 2
    return times * shape.layers * BF16 * exchanged * trainer.tokens * (share - 1) / share


def weights_traffic(shape: Shape, replicas: int) -> int:
    """Bytes that reach the samplers of a new policy: each replica loads it whole."""
    return BF16 * shape.parameters * replicas
