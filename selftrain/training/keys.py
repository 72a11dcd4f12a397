"""A forward pass over what is new of several rows, behind the keys and values of what each has read before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from selftrain.models.heads import ValueModel


APART = {True: 1e-3, False: 0.1}
"""How far states read in pieces may be from those read at once, as a share: in fp32, and in fewer bits. Where positions
or masks are wrong they have little in common."""


class Row(NamedTuple):
    """One path of a batch, in parts: each has its ``ids`` and, once it is read, as ``block`` their keys and values
    ``[2 * layers, heads, tokens, dim]``."""

    old: Sequence[Any]
    """What was read, in order."""
    new: Sequence[Any]
    """What is to be read behind it."""

    @property
    def back(self) -> int:
        return sum(len(part.ids) for part in self.old)

    @property
    def tokens(self) -> int:
        return sum(len(part.ids) for part in self.new)


@torch.inference_mode()
def read_rows(model: ValueModel, rows: Sequence[Row]) -> list[list[float]]:
    """Read the new parts of each row: their blocks are filled in.

    Returns:
        The value at the last token of each new part, in [0, 1].
    """
    hidden, fresh = forward(model.backbone, rows)
    places = [(at, end - 1) for at, row in enumerate(rows) for _, end in _spans(row.new)]
    index = torch.tensor(places, device=hidden.device)
    values = iter(model.normalised(model.read(hidden[index[:, 0], index[:, 1]])).tolist())
    for at, row in enumerate(rows):
        for part, (begin, end) in zip(row.new, _spans(row.new), strict=True):
            part.block = fresh[:, at, :, begin:end].clone()
    return [[next(values) for _ in row.new] for row in rows]


def forward(backbone: Any, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Hidden states ``[B, N, H]`` of the new tokens, right-padded, and their keys and values
    ``[2 * layers, B, heads, N, dim]``.

    What was read stands left of them, with a gap behind it where another row has read more; a mask hides the gaps, and
    positions go on where the row was.
    """
    back, width = max(row.back for row in rows), max(row.tokens for row in rows)
    device = backbone.device
    mask = torch.zeros(len(rows), back + width, dtype=torch.long)
    ids, positions = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(2))
    for at, row in enumerate(rows):
        mask[at, : row.back] = 1
        mask[at, back : back + row.tokens] = 1
        ids[at, : row.tokens] = torch.tensor([token for part in row.new for token in part.ids])
        positions[at] = (row.back + torch.arange(width)).clamp(max=row.back + row.tokens - 1)
    cache = gathered(backbone.config, rows, back)
    out = backbone(
        ids.to(device),
        attention_mask=mask.to(device),
        position_ids=positions.to(device),
        past_key_values=cache,
        use_cache=True,
    )
    both = [kept[:, :, back:] for kept in _held(cache)]
    return out.last_hidden_state, torch.stack(both)


def gathered(config: Any, rows: Sequence[Row], back: int) -> DynamicCache:
    """A cache of what each row has read, ``back`` positions wide."""
    cache = DynamicCache(config=config)
    blocks = [part.block for row in rows for part in row.old]
    if not blocks:
        return cache
    layers, heads, _, dim = blocks[0].shape
    whole = blocks[0].new_zeros(layers, len(rows), heads, back, dim)
    for at, row in enumerate(rows):
        for part, (begin, end) in zip(row.old, _spans(row.old), strict=True):
            whole[:, at, :, begin:end] = part.block
    for place, layer in enumerate(cast(list[Any], cache.layers)):
        layer.lazy_initialization(whole[2 * place], whole[2 * place + 1])
        layer.keys, layer.values = whole[2 * place], whole[2 * place + 1]
    return cache


def _held(cache: DynamicCache) -> list[Tensor]:
    """Keys and values of each layer."""
    layers = cast(list[Any], cache.layers)
    return [kept for layer in layers for kept in (layer.keys, layer.values)]


class _Piece:
    """A part of nothing but tokens."""

    def __init__(self, ids: tuple[int, ...]) -> None:
        self.ids = ids
        self.block: Tensor | None = None


@torch.inference_mode()
def check_growing(backbone: Any) -> str | None:
    """Why paths cannot be read piece by piece by this model; None where they can.

    Looks at how its layers remember, and compares two rows of different lengths, read in two pieces, with the whole.
    """
    name = type(backbone).__name__
    layers = DynamicCache(config=backbone.config).layers
    if any(type(layer) is not DynamicLayer for layer in layers):
        return f"{name} remembers more than keys and values of every token (a window, or a state)"
    size = int(backbone.config.get_text_config().vocab_size)
    tokens = [[place % size for place in range(count)] for count in (5, 8)]
    caches = [DynamicCache(config=backbone.config) for _ in tokens]
    whole = [
        backbone(torch.tensor([own], device=backbone.device), past_key_values=cache, use_cache=True).last_hidden_state
        for own, cache in zip(tokens, caches, strict=True)
    ]
    if len({kept.shape for kept in _held(caches[0])}) != 1:
        return f"the layers of {name} differ in the shape of their keys and values"
    rows = [Row([], [_Piece(tuple(own[: len(own) // 2]))]) for own in tokens]
    _, fresh = forward(backbone, rows)
    for at, row in enumerate(rows):
        row.new[0].block = fresh[:, at, :, : row.tokens].clone()
    grown = [Row(row.new, [_Piece(tuple(own[len(own) // 2 :]))]) for row, own in zip(rows, tokens, strict=True)]
    hidden, _ = forward(backbone, grown)
    ends = [(hidden[at, row.tokens - 1].float(), whole[at][0, -1].float()) for at, row in enumerate(grown)]
    allowed = APART[backbone.dtype == torch.float32]
    if not all(float((ours - own).norm()) <= allowed * float(own.norm()) for ours, own in ends):
        return f"{name} reads a path in pieces otherwise than as a whole"
    return None


def _spans(parts: Sequence[Any]) -> list[tuple[int, int]]:
    """Where each part begins and ends, from the beginning of the first."""
    found, begin = [], 0
    for part in parts:
        found.append((begin, begin + len(part.ids)))
        begin += len(part.ids)
    return found
