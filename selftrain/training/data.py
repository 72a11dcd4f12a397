"""Examples to batches: the tensors that those of a step become.

``bucketed`` puts examples of like length side by side, right-padded; ``packed`` lays them end to end in one row and
tells them apart by position ids that start again from 0. In both, a token's loss depends on its own example alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, is_dataclass, replace
from math import isnan
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from selftrain.models.logprobs import Positions
from selftrain.objectives.terms import Terms, Totals
from selftrain.types import Example

Batching = Literal["bucketed", "packed"]


@dataclass(frozen=True)
class MicroBatch:
    """Tensors of one forward pass.

    Attributes:
        input_ids: ``[B, T]``.
        position_ids: ``[B, T]`` for packed rows, else None.
        positions: the ``N`` tokens that carry loss.
        value_positions: ``[M]`` flat positions in ``[B * T]`` of the tokens that have a target.
        terms: what the objective sees of them, without the log-probabilities.
        examples: ``[S]`` which of the step's examples each sequence is.
        tokens: real tokens, without padding.
        lengths: of the sequences of a packed row; else nothing.
        share: which of several ranks computes it.
    """

    input_ids: Tensor
    position_ids: Tensor | None
    positions: Positions
    value_positions: Tensor
    terms: Terms
    examples: Tensor
    tokens: int
    lengths: tuple[int, ...] = ()
    share: int = 0


def moved(batch: MicroBatch, device: str | torch.device) -> MicroBatch:
    """A micro-batch on a device. A GPU takes it from pinned memory, after what it has been asked to do so far and
    without being waited for."""
    kind = torch.device(device).type
    if kind == batch.input_ids.device.type:
        return batch
    return _moved(batch, device, pin=kind == "cuda")  # type: ignore[no-any-return]


def _moved(value: Any, device: str | torch.device, pin: bool) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{name: _moved(own, device, pin) for name, own in vars(value).items()})
    if not isinstance(value, Tensor):
        return value
    return (value.pin_memory() if pin else value).to(device, non_blocking=pin)


def totals(batches: Sequence[MicroBatch], divergence: float = 0.0) -> Totals:
    """Sizes of a step that is cut into these."""
    pairs = sum(len(batch.terms.pairs) for batch in batches if batch.terms.pairs is not None)
    return Totals(
        sum(len(batch.positions.targets) for batch in batches),
        sum(len(batch.terms.sequences.unique()) for batch in batches),
        pairs,
        divergence,
        sum(len(batch.value_positions) for batch in batches),
    )


def units(examples: Sequence[Example]) -> list[list[int]]:
    """Indices of the examples that are learnt together, in order: ``[chosen, rejected]`` of a pair, or one alone.

    Raises:
        ValueError: a pair lacks one of its sides, or an example does not say which it is.
    """
    sides = _sides(examples)
    for (_, pair), both in sides.items():
        if len(both["chosen"]) != len(both["rejected"]):
            raise ValueError(f"pair {pair} is not made of one chosen and one rejected example")
    pairs = [[*pair] for both in sides.values() for pair in zip(both["chosen"], both["rejected"], strict=True)]
    alone = [[index] for index, example in enumerate(examples) if example.pair_id is None]
    return sorted([*pairs, *alone], key=min)


def _sides(examples: Sequence[Example]) -> dict[tuple[str, str], dict[str, list[int]]]:
    """The places of both sides of each pair; a pair that comes again in a small epoch has several of each."""
    found: dict[tuple[str, str], dict[str, list[int]]] = {}
    for index, example in enumerate(examples):
        if example.pair_id is not None:
            both = found.setdefault((example.source, example.pair_id), {"chosen": [], "rejected": []})
            if example.role not in both:
                raise ValueError(f"example {example.id} is of a pair, and its role is neither chosen nor rejected")
            both[example.role].append(index)
    return found


def length(example: Example) -> int:
    return len(example.prompt_ids) + len(example.response_ids)


def micro_batches(
    examples: Sequence[Example],
    *,
    batching: Batching,
    max_tokens: int,
    pad: int,
    device: str | torch.device = "cpu",
    shares: int = 1,
) -> list[MicroBatch]:
    """Cut the examples of one step into forward passes of at most ``max_tokens`` (padding counted; one example, or one
    pair, always fits).

    Args:
        shares: ranks that compute them; each has about as many tokens.

    Raises:
        ValueError: a prompt is empty, so that nothing stands before the first token of its response.
    """
    form = _packed if batching == "packed" else padded
    laid = []
    for share, own in enumerate(dealt(examples, shares)):
        groups = cut([examples[i] for i in own], batching=batching, max_tokens=max_tokens)
        found = (form(examples, [own[i] for i in group], pad, device) for group in groups)
        laid += [replace(batch, share=share) for batch in found]
    return laid


def dealt(examples: Sequence[Example], shares: int) -> list[list[int]]:
    """Indices of the examples of each share, pairs together: the longest first, each to the share with the fewest
    tokens (Graham 1969, "Bounds on Multiprocessing Timing Anomalies"; at most 4/3 of the best there is)."""
    if shares == 1:
        return [[*range(len(examples))]]
    found: list[list[int]] = [[] for _ in range(shares)]
    tokens = [0] * shares
    sizes = {tuple(unit): sum(length(examples[i]) for i in unit) for unit in units(examples)}
    for unit in sorted(sizes, key=lambda unit: (-sizes[unit], unit)):
        least = tokens.index(min(tokens))
        found[least].extend(unit)
        tokens[least] += sizes[unit]
    return [sorted(own) for own in found]


def cut(examples: Sequence[Example], *, batching: Batching, max_tokens: int) -> list[list[int]]:
    """Indices of the examples of each forward pass, those of like length side by side, the short ones first."""
    sizes = [length(example) for example in examples]
    order = sorted(units(examples), key=lambda unit: (max(sizes[i] for i in unit), unit))
    groups: list[list[int]] = []
    taken = 0
    for unit in order:
        own = sum(sizes[i] for i in unit)
        # The longest comes last, and all of a pass are padded to it.
        count = len(unit) + (len(groups[-1]) if groups else 0)
        size = taken + own if batching == "packed" else max(sizes[i] for i in unit) * count
        if groups and size <= max_tokens:
            groups[-1].extend(unit)
            taken += own
        else:
            groups.append([*unit])
            taken = own
    return groups


def padded(examples: Sequence[Example], group: list[int], pad: int, device: str | torch.device) -> MicroBatch:
    """A forward pass over some of the examples, a row for each."""
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
    return replace(_micro_batch(examples, group, starts, ids, positions), lengths=tuple(sizes))


def _micro_batch(
    examples: Sequence[Example], group: list[int], starts: list[int], ids: Tensor, position_ids: Tensor | None
) -> MicroBatch:
    index: list[int] = []
    targets: list[int] = []
    sequences: list[int] = []
    valued: list[tuple[int, float, int]] = []
    for place, (i, start) in enumerate(zip(group, starts, strict=True)):
        example = examples[i]
        if not example.prompt_ids:
            raise ValueError(f"example {example.id} has a prompt without a token; remove it")
        places = learnt(example)
        first = start + len(example.prompt_ids) - 1
        index.extend(first + offset for offset in places)
        targets.extend(example.response_ids[offset] for offset in places)
        sequences.extend([place] * len(places))
        # A log-probability is read one token ahead of what it is of; a value at the token that ends the step.
        valued.extend((first + 1 + offset, target, place) for offset, target in told(example))
    device = ids.device
    chosen = [examples[i] for i in group]
    return MicroBatch(
        ids,
        position_ids,
        Positions(_ids(index, device), _ids(targets, device)),
        _ids([position for position, _, _ in valued], device),
        replace(
            _terms(chosen, _ids(sequences, device)),
            targets=_floats([target for _, target, _ in valued], device),
            value_sequences=_ids([place for _, _, place in valued], device),
        ),
        _ids(group, device),
        sum(map(length, chosen)),
    )


def learnt(example: Example) -> Sequence[int]:
    """Places in the response that carry loss."""
    every = range(len(example.response_ids))
    return every if example.loss_mask is None else [place for place in every if example.loss_mask[place]]


def told(example: Example) -> list[tuple[int, float]]:
    """Places in the response that have a target, and the targets; what a value head is told nothing of is NaN."""
    return [(place, target) for place, target in enumerate(example.targets or ()) if not isnan(target)]


def _terms(examples: Sequence[Example], sequences: Tensor) -> Terms:
    device = sequences.device
    return Terms(
        logprobs=_floats([], device),
        sequences=sequences,
        weights=_floats([example.weight for example in examples], device),
        labels=_known([example.label for example in examples], device),
        reference=_per_token(examples, lambda example: example.reference_logprobs, device),
        old=_per_token(examples, lambda example: example.old_logprobs, device),
        advantages=_per_token(examples, lambda example: example.advantages, device),
        pairs=_pairs(examples, device),
    )


def _known(values: Sequence[float | None], device: torch.device) -> Tensor | None:
    known = [value for value in values if value is not None]
    return _floats(known, device) if known and len(known) == len(values) else None


def _per_token(
    examples: Sequence[Example], of: Callable[[Example], Sequence[float] | None], device: torch.device
) -> Tensor | None:
    """Where every example has such values: those of the tokens that carry loss."""
    every = [(example, values) for example in examples if (values := of(example)) is not None]
    if len(every) < len(examples) or not every:
        return None
    return _floats([values[place] for example, values in every for place in learnt(example)], device)


def _pairs(examples: Sequence[Example], device: torch.device) -> Tensor | None:
    every = _sides(examples).values()
    pairs = [pair for both in every for pair in zip(both["chosen"], both["rejected"], strict=True)]
    return torch.tensor(pairs, dtype=torch.long, device=device) if pairs else None


def _floats(values: Iterable[float], device: torch.device) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32, device=device)


def _ids(values: list[int], device: torch.device) -> Tensor:
    """Whole numbers also where there are none: a list of nothing would become floats."""
    return torch.tensor(values, dtype=torch.long, device=device)
