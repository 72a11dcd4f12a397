"""Attention over packed rows, one sequence after another.

transformers' ``sdpa`` keeps packed sequences apart by a mask of ``[1, 1, T, T]``: 64 MiB at 8,192 tokens, and with a
mask neither flash kernels nor grouped keys can be used. Kernels for sequences of varying lengths need the places where
sequences begin, and no mask. ``varlen`` is such an implementation of transformers' attention interface: on a GPU
PyTorch's own FlashAttention-2 (`torch.nn.attention.varlen`), elsewhere one call for each sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

VARLEN = "varlen"
FLASH = ("flash_attention_2", "flash_attention_3")
HALF = (torch.float16, torch.bfloat16)


def use(model: Any, name: str) -> None:
    """Let a model that is loaded compute with an implementation of transformers' or with `VARLEN`."""
    if name == VARLEN:
        from transformers import AttentionInterface, AttentionMaskInterface

        AttentionInterface.register(VARLEN, varlen)
        AttentionMaskInterface.register(VARLEN, no_mask)
    model.set_attn_implementation(name)


def in_use(model: Any) -> str:
    return str(model.config.get_text_config()._attn_implementation)


def suits_varlen(model: Any) -> bool:
    """Whether a model's attention is nothing but causal: no windows, no caps, no dropout, and taken from transformers'
    interface."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ()
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return bool(
        model._supports_attention_backend
        and getattr(config, "is_causal", True)
        and all(kind == "full_attention" for kind in kinds)
        and not windowed
        and not getattr(config, "attn_logit_softcapping", None)
        and not (getattr(config, "attention_dropout", 0.0) or getattr(config, "attn_pdrop", 0.0))
    )


def told(model: Any, position_ids: Tensor | None, lengths: Sequence[int] = ()) -> dict[str, Any]:
    """What a model is told of a packed row beside its position ids, by the names of transformers' flash attention.

    Args:
        position_ids: ``[1, T]``, which start again from 0 with each sequence; None where rows are not packed.
        lengths: of the sequences. Where they are not given they are read off the position ids, for which a GPU is
            waited for.
    """
    if position_ids is None or in_use(model) not in (VARLEN, *FLASH):
        return {}
    sizes = lengths or _lengths(position_ids)
    ends = torch.tensor([0, *accumulate(sizes)], dtype=torch.int32)
    if position_ids.is_cuda:
        ends = ends.pin_memory().to(position_ids.device, non_blocking=True)
    longest = max(sizes)
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}


def _lengths(position_ids: Tensor) -> list[int]:
    starts = (position_ids.reshape(-1) == 0).nonzero().reshape(-1).tolist()
    return [end - start for start, end in pairwise([*starts, position_ids.numel()])]


def no_mask(*, attention_mask: Tensor | None = None, **asked: Any) -> Tensor | None:
    """None where a row begins with its own first token and nothing is padded on the left: causal attention alone, or
    `varlen` is told where sequences begin; else the mask of ``sdpa``."""
    from transformers.masking_utils import sdpa_mask

    if attention_mask is None and asked["q_length"] == asked["kv_length"]:
        return None
    return sdpa_mask(attention_mask=attention_mask, **asked)


def varlen(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each sequence of a packed row; of rows that are not packed that of ``sdpa``.

    Args:
        query: ``[B, heads, T, D]``; key and value may have fewer heads, which groups of the query's share.
        cu_seq_lens_q: where sequences begin, and T: ``[S + 1]``; None: nothing is packed.

    Returns:
        ``[B, T, heads, D]``, and no weights.
    """
    if cu_seq_lens_q is None or attention_mask is not None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **others)
        return found[0], None
    device = query.device.type
    if torch.is_autocast_enabled(device):
        query, key, value = (one.to(torch.get_autocast_dtype(device)) for one in (query, key, value))
    if query.is_cuda and query.dtype in HALF and max_length_q is not None:
        return _flash(query, key, value, cu_seq_lens_q, max_length_q, scaling), None
    parts = _apart(query, key, value, cu_seq_lens_q.tolist(), scaling)
    return torch.cat([*parts], dim=2).transpose(1, 2).contiguous(), None


def _flash(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: int, scale: float | None) -> Tensor:
    """``[1, heads, T, D]`` to ``[1, T, heads, D]``."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (one[0].transpose(0, 1) for one in (query, key, value))
    grouped = query.shape[1] != key.shape[1]
    found = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scale, window_size=(-1, 0), enable_gqa=grouped)
    out: Tensor = found if isinstance(found, Tensor) else found[0]
    return out[None]


def _apart(query: Tensor, key: Tensor, value: Tensor, ends: Sequence[int], scale: float | None) -> Iterator[Tensor]:
    grouped = query.shape[1] != key.shape[1]
    for begin, end in pairwise(ends):
        q, k, v = (one[:, :, begin:end] for one in (query, key, value))
        yield scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped)
