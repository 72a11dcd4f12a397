"""A key-value cache that grows in place: transformers' own copies everything at every step."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

HEADROOM = 64
"""Positions by which a full buffer grows at least."""


class GrowingLayer(DynamicLayer):
    """Keys and values ``[rows, heads, length, dim]`` as views into buffers with room to grow."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._buffers = (key_states[:, :, :0], value_states[:, :, :0])
        length = self.get_seq_length()
        after = length + key_states.shape[-2]
        if after > self._buffers[0].shape[-2]:
            self._buffers = (
                _enlarged(self._buffers[0][:, :, :length], key_states, after),
                _enlarged(self._buffers[1][:, :, :length], value_states, after),
            )
        keys, values = self._buffers
        keys[:, :, length:after] = key_states
        values[:, :, length:after] = value_states
        self.keys, self.values = keys[:, :, :after], values[:, :, :after]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        length = self.get_seq_length()
        kept = [buffer[:, :, :length].index_select(0, beam_idx) for buffer in self._buffers]
        self._buffers = (_enlarged(kept[0], kept[0], length), _enlarged(kept[1], kept[1], length))
        self.keys, self.values = self._buffers[0][:, :, :length], self._buffers[1][:, :, :length]


def _enlarged(old: Tensor, new: Tensor, after: int) -> Tensor:
    """A buffer like ``new`` with room beyond ``after`` positions, ``old`` at its beginning."""
    rows, heads, _, dim = new.shape
    buffer = new.new_empty(rows, heads, after + max(HEADROOM, after // 2), dim)
    buffer[:, :, : old.shape[2]] = old
    return buffer


def growing_cache(config: Any) -> DynamicCache:
    """A cache for a model of this config; layers with a state of another kind keep transformers' own class."""
    cache = DynamicCache(config=config)
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer  # type: ignore[no-untyped-call]
        for layer in cache.layers
    ]
    return cache
