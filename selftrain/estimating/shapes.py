"""The shape of a decoder-only language model: what memory, time and network are reckoned from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.config import ConfigError
from selftrain.estimating.known import CONFIGS, family
from selftrain.models.adapters import ALL, adapted_layers, linear_layers, skeleton
from selftrain.registry import nearest


@dataclass(frozen=True)
class Shape:
    """Counts of parameters are exact: those of the model as transformers builds it, tied ones once."""

    parameters: int
    active: int
    """Parameters that a token meets: without the experts it is not sent to, and without the input embeddings."""
    largest: int
    """Parameters of the largest single module: what ZeRO-3 gathers at once."""
    layers: int
    hidden: int
    intermediate: int
    """Width of the feed-forward part that a token meets, all its experts together."""
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    qk_norm: bool = False
    """Whether queries and keys are normalised."""
    experts: int = 0
    """Parameters of all experts together."""
    share: float = 1.0
    """Of the experts, those that a token is sent to."""

    @property
    def kv_values(self) -> int:
        """Numbers that a token leaves in the key-value cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    def met(self, tokens: float) -> float:
        """Parameters that one of so many tokens meets, were each sent to experts at random: what a step reads."""
        missed: float = (1 - self.share) ** tokens
        return self.active + self.experts * (1 - missed - self.share)

    @property
    def attention(self) -> int:
        """Width of all queries of a layer."""
        return self.heads * self.head_dim


def shape_of(config: Any) -> Shape:
    """Of a transformers config, by building the model without weights."""
    text = config.get_text_config()
    model: Any = skeleton(config)
    heads = int(text.num_attention_heads)
    names = dict(model.named_parameters())
    experts = sum(value.numel() for name, value in names.items() if ".experts." in name)
    chosen = getattr(text, "num_experts_per_tok", None) or 1
    share = chosen / (getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None) or chosen)
    total = sum(value.numel() for value in names.values())
    embedded = model.get_input_embeddings().weight
    tied = model.get_output_embeddings().weight is embedded
    width = text.moe_intermediate_size * chosen if experts else text.intermediate_size
    return Shape(
        parameters=total,
        active=round(total - experts * (1 - share)) - (0 if tied else embedded.numel()),
        largest=max(sum(p.numel() for p in module.parameters(recurse=False)) for module in model.modules()),
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        intermediate=int(width),
        heads=heads,
        kv_heads=int(getattr(text, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(text, "head_dim", None) or text.hidden_size // heads),
        vocabulary=int(text.vocab_size),
        qk_norm=any(name.endswith("q_norm.weight") for name in names),
        experts=experts,
        share=share,
    )


def adapter_parameters(config: Any, r: int, targets: tuple[str, ...]) -> int:
    """Parameters of a LoRA adapter of this rank: r (in + out) for each layer it is on."""
    model: Any = skeleton(config)
    layers = adapted_layers(linear_layers(model), targets or (ALL,))
    return sum(r * sum(model.get_submodule(name).weight.shape) for name in layers)


def known(name: str) -> Any:
    """The transformers config of a common open model, by its name on the hub, without the hub.

    Raises:
        KeyError: it is none of those that are known.
    """
    return from_fields(CONFIGS[family(name)])


def given(place: str) -> Any:
    """The transformers config of a ``config.json``, of a folder that holds one, or of a known name.

    Raises:
        ConfigError: it is none of these.
    """
    path = Path(place)
    path = path / "config.json" if path.is_dir() else path
    if path.is_file():
        try:
            fields = json.loads(path.read_text())
            return from_fields(fields)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"--shape {place}: no config of a model: {' '.join(str(error).split())[:200]}") from error
    try:
        return known(place)
    except KeyError:
        raise ConfigError(f"--shape {place}: no such file, and no known model ({nearest(place, CONFIGS)})") from None


def from_fields(fields: Mapping[str, Any]) -> Any:
    """A transformers config from the fields of a ``config.json``."""
    from transformers import AutoConfig

    own = dict(fields)
    return AutoConfig.for_model(own.pop("model_type"), **own)
