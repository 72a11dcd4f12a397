"""Shapes of common open models, for machines that do not reach the hub: the fields of their ``config.json`` that say
how large they are. ``tests/test_shapes.py`` holds the numbers of parameters their publishers state."""

from __future__ import annotations

import re
from typing import Any


def _dense(kind: str, vocabulary: int, hidden: int, wide: int, layers: int, heads: int, kv: int, **more: Any) -> Any:
    return {
        "model_type": kind,
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "tie_word_embeddings": False,
        **more,
    }


TIED: dict[str, Any] = {"tie_word_embeddings": True}
QWEN3: dict[str, Any] = {"head_dim": 128}
CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-0.5B": _dense("qwen2", 151936, 896, 4864, 24, 14, 2, **TIED),
    "Qwen/Qwen2.5-1.5B": _dense("qwen2", 151936, 1536, 8960, 28, 12, 2, **TIED),
    "Qwen/Qwen2.5-3B": _dense("qwen2", 151936, 2048, 11008, 36, 16, 2, **TIED),
    "Qwen/Qwen2.5-7B": _dense("qwen2", 152064, 3584, 18944, 28, 28, 4),
    "Qwen/Qwen2.5-14B": _dense("qwen2", 152064, 5120, 13824, 48, 40, 8),
    "Qwen/Qwen2.5-32B": _dense("qwen2", 152064, 5120, 27648, 64, 40, 8),
    "Qwen/Qwen2.5-72B": _dense("qwen2", 152064, 8192, 29568, 80, 64, 8),
    "Qwen/Qwen3-0.6B": _dense("qwen3", 151936, 1024, 3072, 28, 16, 8, **QWEN3, **TIED),
    "Qwen/Qwen3-1.7B": _dense("qwen3", 151936, 2048, 6144, 28, 16, 8, **QWEN3, **TIED),
    "Qwen/Qwen3-4B": _dense("qwen3", 151936, 2560, 9728, 36, 32, 8, **QWEN3, **TIED),
    "Qwen/Qwen3-8B": _dense("qwen3", 151936, 4096, 12288, 36, 32, 8, **QWEN3),
    "Qwen/Qwen3-14B": _dense("qwen3", 151936, 5120, 17408, 40, 40, 8, **QWEN3),
    "Qwen/Qwen3-32B": _dense("qwen3", 151936, 5120, 25600, 64, 64, 8, **QWEN3),
    "Qwen/Qwen3-30B-A3B": _dense(
        "qwen3_moe",
        *(151936, 2048, 6144, 48, 32, 4),
        **QWEN3,
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=768,
    ),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": _dense("qwen2", 151936, 1536, 8960, 28, 12, 2),
    "meta-llama/Llama-3.1-8B": _dense("llama", 128256, 4096, 14336, 32, 32, 8),
    "meta-llama/Llama-3.1-70B": _dense("llama", 128256, 8192, 28672, 80, 64, 8),
    "meta-llama/Llama-3.2-1B": _dense("llama", 128256, 2048, 8192, 16, 32, 8, head_dim=64, **TIED),
    "meta-llama/Llama-3.2-3B": _dense("llama", 128256, 3072, 8192, 28, 24, 8, head_dim=128, **TIED),
    "mistralai/Mistral-7B-v0.3": _dense("mistral", 32768, 4096, 14336, 32, 32, 8, head_dim=128),
}
"""By name on the hub."""
SAME = {
    r"Qwen/Qwen2\.5-(Math|Coder)-([\d.]+B)": r"Qwen/Qwen2.5-\2",
    r"deepseek-ai/DeepSeek-R1-Distill-Qwen-([\d.]+B)": r"Qwen/Qwen2.5-\1",
    r"deepseek-ai/DeepSeek-R1-Distill-Llama-([\d.]+B)": r"meta-llama/Llama-3.1-\1",
    r"meta-llama/(?:Meta-)?Llama-3(?:\.3)?-(8B|70B)": r"meta-llama/Llama-3.1-\1",
}
"""Other models of these shapes."""


def family(name: str) -> str:
    """The name under which a model's shape stands: tuned ones have the shape of their base.

    Raises:
        KeyError: there is none.
    """
    if name in CONFIGS:
        return name
    plain = re.sub(r"-(Instruct|Base)(?=-|$)|-2507$", "", name)
    for pattern, same in SAME.items():
        plain = re.sub(f"{pattern}$", same, plain)
    if plain not in CONFIGS:
        raise KeyError(name)
    return plain
