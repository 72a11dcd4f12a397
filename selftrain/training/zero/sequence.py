"""Sequence parallelism: each of several ranks holds a stretch of every sequence, and in attention some of its heads.

DeepSpeed's Ulysses (Jacobs et al. 2023, arXiv 2309.14509), whose attention stands in for that of transformers. What is
read of a sequence is put together again before the objective sees it, on every rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Size, Tensor, distributed

CORE = "sdpa"
"""The attention of transformers that is wrapped: that which models are loaded with."""


class Sequences:
    """How sequences are divided; a context manager, inside which attention is.

    Args:
        size: ranks that share a sequence; 1: each has whole ones.
        backbone: the transformers model.

    Raises:
        ValueError: its heads cannot be dealt out to so many ranks.
    """

    def __init__(self, size: int, backbone: Any) -> None:
        self.size = size
        self.groups: Any = None
        """DeepSpeed's process groups."""
        self.first = True
        """Whether this is the rank that tells what its sequences cost."""
        self._config = backbone.config.get_text_config()
        self._place = 0

    def __enter__(self) -> Sequences:
        if self.size > 1:
            import deepspeed.runtime.sequence_parallel.parallel_state_sp as groups
            from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

            groups.initialize_sequence_parallel(self.size)
            self.groups = groups
            self._place = groups.get_sequence_parallel_rank()
            self.first = self._place == 0
            self._core = ALL_ATTENTION_FUNCTIONS[CORE]
            ALL_ATTENTION_FUNCTIONS[CORE] = self._attention()
        return self

    def __exit__(self, *_: object) -> None:
        if self.groups is not None:
            from deepspeed.utils import groups
            from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

            ALL_ATTENTION_FUNCTIONS[CORE] = self._core
            self.groups._release_sequence_parallel_groups()
            groups.mpu = None

    def _attention(self) -> Callable[..., Any]:
        """Attention over whole sequences, with this rank's heads. DeepSpeed's own way to put it in place is for
        batches of one size."""
        from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF

        config = self._config
        heads, shared = config.num_attention_heads, config.num_key_value_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        ulysses = UlyssesSPAttentionHF(
            attn=self._core,
            batch_size=1,
            attn_head_count=heads,
            attn_head_size=width,
            kv_head_count=shared,
            num_hidden_layers=config.num_hidden_layers,
            process_group=self.groups.get_sequence_parallel_group(),
            seq_length_is_variable=True,
        )

        def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, *args: Any, **kw: Any) -> Any:
            rows = len(query)
            ulysses.batch_size = rows
            ulysses.required_query_shape = Size([1, rows, heads, width])
            ulysses.required_key_value_shape = Size([1, rows, shared, width])
            ulysses.required_context_shape = Size([1, rows, width * heads // self.size])
            # Its mask is for this rank's stretch alone; without one attention is causal over the whole.
            return ulysses(module, query, key, value, None, *args, **kw)

        return attention

    def cut(self, inputs: tuple[Tensor | None, ...]) -> tuple[tuple[Tensor | None, ...], Callable[[Tensor], Tensor]]:
        """This rank's stretch of what `Learnt.inputs` gives, and what puts together what each rank reads of its own."""
        if self.size == 1:
            return inputs, lambda read: read
        ids, _, index, *rest = inputs
        assert ids is not None and index is not None
        rows, width = ids.shape
        stretch = -(-width // self.size)
        begin = self._place * stretch
        ids = torch.nn.functional.pad(ids, (0, stretch * self.size - width))[:, begin : begin + stretch]
        positions = torch.arange(begin, begin + stretch, device=ids.device).expand(rows, stretch)
        column = index % width
        owner = column // stretch
        own = owner == self._place
        local = (index // width * stretch + column % stretch)[own]
        told = [one[own] if one is not None else None for one in rest]
        return (ids, positions, local, *told), lambda read: self._together(read, owner)

    def _together(self, read: Tensor, owner: Tensor) -> Tensor:
        group = self.groups.get_sequence_parallel_group()
        whole: Tensor = _Gathered.apply(read, owner, self._place, self.size, group)  # type: ignore[no-untyped-call]
        return whole


class _Gathered(torch.autograd.Function):
    """What all ranks read, in its order; a rank's loss, which is of all of it, goes back to what it read itself."""

    @staticmethod
    def forward(ctx: Any, read: Tensor, owner: Tensor, place: int, size: int, group: Any) -> Tensor:
        ctx.own = owner == place
        counts = torch.bincount(owner, minlength=size)
        padded = torch.nn.functional.pad(read, (0, int(counts.max()) - len(read)))
        every = [torch.empty_like(padded) for _ in range(size)]
        distributed.all_gather(every, padded, group=group)
        whole = read.new_empty(len(owner))
        for rank, part in enumerate(every):
            whole[owner == rank] = part[: counts[rank]]
        return whole

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0][ctx.own], None, None, None, None
