"""Shapes of published models, and how much a training step of them has to compute.

PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B): 6 N + 12 L H Q T floating-point operations per token,
forward and backward, for N parameters that multiply, L layers of H heads of size Q, and a context of T. Here a token's
context is what it sees under causal attention of its own packed sequence, itself included, half as much as there; and
the output head counts for the tokens it is read of. What gradient checkpointing computes again is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

PEAK = 989e12
"""Operations per second of an H100 or H200 SXM in dense bf16 (NVIDIA's data sheets)."""


@dataclass(frozen=True)
class Shape:
    """A decoder with grouped keys and a gated MLP, by the fields of its config."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    tie_word_embeddings: bool
    vocab_size: int = 151_936
    max_position_embeddings: int = 32_768

    @property
    def layer(self) -> int:
        """Parameters of one layer that multiply: no norms, no biases."""
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        return self.hidden_size * (2 * queries + 2 * keys + 3 * self.intermediate_size)

    @property
    def head(self) -> int:
        return self.hidden_size * self.vocab_size

    def config(self) -> Any:
        from transformers import AutoConfig

        fields = {key: value for key, value in vars(self).items() if key != "model_type"}
        return AutoConfig.for_model(self.model_type, **fields, bos_token_id=None, eos_token_id=1, pad_token_id=0)

    def halved(self) -> Shape:
        return replace(self, num_hidden_layers=self.num_hidden_layers // 2)


SHAPES = {
    "Qwen2.5-0.5B": Shape("qwen2", 896, 4864, 24, 14, 2, 64, True),
    "Qwen2.5-1.5B": Shape("qwen2", 1536, 8960, 28, 12, 2, 128, True),
    "Qwen3-0.6B": Shape("qwen3", 1024, 3072, 28, 16, 8, 128, True),
    "Qwen3-8B": Shape("qwen3", 4096, 12288, 36, 32, 8, 128, False),
}


def training_flops(shape: Shape, lengths: Sequence[int], read: int) -> int:
    """Of a forward and backward pass over sequences of these lengths.

    Args:
        read: tokens whose logits are computed.
    """
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    layers = shape.num_hidden_layers
    attention = 12 * layers * shape.num_attention_heads * shape.head_dim * pairs
    return 6 * (layers * shape.layer * sum(lengths) + shape.head * read) + attention
