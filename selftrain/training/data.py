"""Examples to batches: which examples make a step, and the tensors they become.

``bucketed`` puts examples of like length side by side, right-padded; ``packed`` lays them end to end in one row and
tells them apart by position ids that start again from 0. In both, a token's loss depends on its own example alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from selftrain.models.logprobs import Positions
from selftrain.types import Example

POOL = 64
"""Steps whose examples are sorted together by length."""
Batching = Literal["bucketed", "packed"]


@dataclass(frozen=True)
class MicroBatch:
    """Tensors of one forward pass.

    Attributes:
        input_ids: ``[B, T]``.
        position_ids: ``[B, T]`` for packed rows, else None.
        positions: the ``N`` tokens that carry loss.
        weights: ``[N]`` weight of each.
        sequences: ``[N]`` which of the step's examples each belongs to.
        tokens: real tokens, without padding.
    """

    input_ids: Tensor
    position_ids: Tensor | None
    positions: Positions
    weights: Tensor
    sequences: Tensor
    tokens: int


def length(example: Example) -> int:
    return len(example.prompt_ids) + len(example.response_ids)


def schedule(lengths: Sequence[int], batch_size: int, steps: int, seed: int) -> Iterator[list[int]]:
    """Indices of the examples of each step; every example comes once before any comes again.

    Within a pool of steps examples are sorted by length, so that a step pads little; the steps of a pool come in
    random order, so that lengths do not drift. A pool never reaches into the next epoch.
    """
    return islice(_steps(lengths, batch_size, np.random.default_rng(seed)), steps)


def _steps(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    rest: list[int] = []
    while True:
        epoch = rng.permutation(len(lengths)).tolist()
        missing = -len(rest) % batch_size
        rest, epoch = [*rest, *epoch[:missing]], epoch[missing:]
        if len(rest) == batch_size:
            yield rest
            rest = []
        whole = len(epoch) - len(epoch) % batch_size
        for start in range(0, whole, POOL * batch_size):
            pool = sorted(epoch[start : min(whole, start + POOL * batch_size)], key=lambda i: lengths[i])
            batches = [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
            yield from (batches[place] for place in rng.permutation(len(batches)).tolist())
        rest.extend(epoch[whole:])


def epochs_to_steps(examples: int, batch_size: int, epochs: float) -> int:
    return max(1, round(examples * epochs / batch_size))


def micro_batches(
    examples: Sequence[Example], *, batching: Batching, max_tokens: int, pad: int, device: str | torch.device = "cpu"
) -> list[MicroBatch]:
    """Cut the examples of one step into forward passes of at most ``max_tokens`` (padding counted, one example
    always fits)."""
    order = sorted(range(len(examples)), key=lambda i: (length(examples[i]), i))
    groups: list[list[int]] = []
    for index in order:
        group = groups[-1] if groups else []
        size = length(examples[index])
        taken = sum(length(examples[i]) for i in group) if batching == "packed" else size * len(group)
        if group and taken + size <= max_tokens:
            group.append(index)
        else:
            groups.append([index])
    lay_out = _packed if batching == "packed" else _padded
    return [lay_out(examples, group, pad, device) for group in groups]


def _padded(examples: Sequence[Example], group: list[int], pad: int, device: str | torch.device) -> MicroBatch:
    width = max(length(examples[i]) for i in group)
    rows = [[*examples[i].prompt_ids, *examples[i].response_ids] for i in group]
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)
    return _micro_batch(examples, group, [place * width for place in range(len(group))], ids, None)


def _packed(examples: Sequence[Example], group: list[int], pad: int, device: str | torch.device) -> MicroBatch:
    sizes = [length(examples[i]) for i in group]
    ids = torch.tensor(
        [[t for i in group for t in (*examples[i].prompt_ids, *examples[i].response_ids)]], device=device
    )
    positions = torch.cat([torch.arange(size) for size in sizes])[None].to(ids.device)
    starts = [0, *np.cumsum(sizes)[:-1].tolist()]
    return _micro_batch(examples, group, starts, ids, positions)


def _micro_batch(
    examples: Sequence[Example], group: list[int], starts: list[int], ids: Tensor, position_ids: Tensor | None
) -> MicroBatch:
    index: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    sequences: list[int] = []
    for i, start in zip(group, starts, strict=True):
        example = examples[i]
        first = start + len(example.prompt_ids)
        for offset, token in enumerate(example.response_ids):
            if example.loss_mask is None or example.loss_mask[offset]:
                index.append(first + offset - 1)
                targets.append(token)
                weights.append(example.weight)
                sequences.append(i)
    device = ids.device
    return MicroBatch(
        ids,
        position_ids,
        Positions(_ids(index, device), _ids(targets, device)),
        torch.tensor(weights, dtype=torch.float32, device=device),
        _ids(sequences, device),
        sum(length(examples[i]) for i in group),
    )


def _ids(values: list[int], device: torch.device) -> Tensor:
    """Whole numbers also where there are none: a list of nothing would become floats."""
    return torch.tensor(values, dtype=torch.long, device=device)
