"""Tokens per second from a model's shape and what the hardware can do: a fit is bound by arithmetic, sampling by how
fast weights and cache are read (Pope et al. 2022, "Efficiently Scaling Transformer Inference")."""

from __future__ import annotations

from dataclasses import dataclass

from selftrain.estimating.hardware import Hardware
from selftrain.estimating.memory import BF16, Sampler, together
from selftrain.estimating.shapes import Shape


@dataclass(frozen=True)
class Speeds:
    """Tokens per second of all GPUs together; None where it is not known."""

    sample: float | None = None
    """Tokens that are drawn."""
    train: float | None = None
    """Tokens that a fit reads, forward and backward."""
    score: float | None = None
    """Tokens of a forward pass alone."""

    @property
    def scoring(self) -> float | None:
        """Where nothing is said of it: a forward pass is a third of a step."""
        return self.score or (3 * self.train if self.train else None)


def forward_flops(shape: Shape, length: float) -> float:
    """Operations per token of a sequence: two per parameter that it meets, and its attention to half of the others."""
    return 2 * shape.active + 2 * shape.layers * shape.attention * length


def training_flops(shape: Shape, length: float, checkpointing: bool) -> float:
    """A backward pass is two forward passes; with checkpointing one more computes the activations again."""
    return (4 if checkpointing else 3) * forward_flops(shape, length)


def training_speed(shape: Shape, machine: Hardware, gpus: int, length: float, checkpointing: bool) -> float:
    return gpus * machine.flops * machine.utilisation / training_flops(shape, length, checkpointing)


def scoring_speed(shape: Shape, machine: Hardware, gpus: int, length: float) -> float:
    return gpus * machine.flops * machine.utilisation / forward_flops(shape, length)


def sampling_speed(
    shape: Shape, machine: Hardware, sampler: Sampler, replicas: int, prompt: float, drawn: float
) -> float:
    """While all replicas are full: every step reads the weights and the cache of the responses that grow together."""
    half = prompt + drawn / 2
    rows = max(1, together(shape, sampler, half))
    read = BF16 * (shape.met(rows) + rows * half * shape.kv_values) / sampler.tensor_parallel
    computed = rows * forward_flops(shape, half) / sampler.tensor_parallel
    reading = read / (machine.bandwidth * machine.bandwidth_share)
    seconds = max(reading, computed / (machine.flops * machine.utilisation))
    return replicas * rows / seconds
