"""What an objective sees of one forward pass, and what it gives back.

Values per token are ``[N]``: the tokens that carry loss, of all sequences of the pass end to end; prompts, padding and
tokens the policy did not write are not among them, the end token is. Values per sequence are ``[S]``; those of a value
head are ``[M]``: one for each target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Terms:
    """The tokens of one forward pass; what an objective does not ask for (``needs``) is None."""

    logprobs: Tensor
    """``[N]`` log p(token) under the model that is fitted, with its gradient; nats, fp32."""
    sequences: Tensor
    """``[N]`` which sequence each token belongs to, from 0 to S - 1."""
    weights: Tensor
    """``[S]``; multiplies the loss of a sequence."""
    labels: Tensor | None = None
    """``[S]`` in [0, 1]: how right a response is."""
    reference: Tensor | None = None
    """``[N]`` log p(token) under the reference, constant."""
    old: Tensor | None = None
    """``[N]`` log p(token) under the distribution sampled from, constant."""
    advantages: Tensor | None = None
    """``[N]``, constant."""
    pairs: Tensor | None = None
    """``[P, 2]`` sequences of each pair: the chosen one, then the rejected one."""
    values: Tensor | None = None
    """``[M]`` what the head puts out at the tokens that have a target, raw, with its gradient; fp32. Objectives that
    read it (``values`` among their needs) get no log-probabilities."""
    targets: Tensor | None = None
    """``[M]`` in [0, 1], constant."""
    value_sequences: Tensor | None = None
    """``[M]`` which sequence each target belongs to."""

    def sums(self, values: Tensor) -> Tensor:
        """``[N]`` to ``[S]``: the sum over each sequence's tokens; 0 for one that has none."""
        return values.new_zeros(len(self.weights)).index_add(0, self.sequences, values)

    def means(self, values: Tensor) -> Tensor:
        """``[N]`` to ``[S]``: the mean over each sequence's tokens; 0 for one that has none."""
        counts = self.sums(values.new_ones(len(values)))
        return self.sums(values) / counts.clamp(min=1.0)


@dataclass(frozen=True)
class Totals:
    """Sizes of the whole optimizer step, over all its forward passes and ranks."""

    tokens: int
    """Tokens that carry loss."""
    sequences: int
    """Sequences with such a token."""
    pairs: int = 0
    divergence: float = 0.0
    """KTO's z: the mean log-ratio of responses to prompts they do not answer, at least 0."""
    values: int = 0
    """Targets of a value head."""


class Mean(NamedTuple):
    """A mean whose parts can be added up."""

    total: Tensor | float
    over: Tensor | float
    """How many it is the sum of."""


class Loss(NamedTuple):
    """Part of a step's loss."""

    value: Tensor
    """The parts of all forward passes add up to the step's loss, however it is cut; 0 where nothing carries loss."""
    measures: Mapping[str, Mean] = {}
    """What is logged beside it."""


@dataclass
class Tally:
    """Means over the forward passes of a step. What lies on a GPU is read when it is asked for, at once."""

    parts: list[tuple[str, Mean]] = field(default_factory=list)

    def add(self, measures: Mapping[str, Mean]) -> None:
        self.parts += measures.items()

    @property
    def totals(self) -> dict[str, list[float]]:
        """Sum and count of each measure."""
        found: dict[str, list[float]] = {}
        numbers = read_numbers([number for _, mean in self.parts for number in mean])
        for (name, _), total, over in zip(self.parts, numbers[::2], numbers[1::2], strict=True):
            former = found.setdefault(name, [0.0, 0.0])
            former[0] += total
            former[1] += over
        return found

    def means(self) -> dict[str, float]:
        """Means of what was counted at all."""
        return {name: total / over for name, (total, over) in self.totals.items() if over}


def read_numbers(values: Sequence[Tensor | float]) -> list[float]:
    """Numbers and tensors of one element as numbers; a GPU is waited for once."""
    import torch

    held = [value.detach().double().reshape(()) for value in values if not isinstance(value, float | int)]
    read = iter(torch.stack(held).tolist() if held else [])
    return [float(value) if isinstance(value, float | int) else next(read) for value in values]
