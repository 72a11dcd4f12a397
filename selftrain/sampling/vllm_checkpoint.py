"""What a vLLM engine takes from a checkpoint: weights, which it can change, and a layout, which it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.sampling.vllm_engine import Weights

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks vLLM makes room for."""
NOTES = ("_name_or_path", "transformers_version", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id")
"""What a config says that no engine is built by; which tokens end a text is compared by itself."""


def weights_of(checkpoint: Path) -> tuple[Weights, int]:
    """What an engine loads for a checkpoint, and the rank it must make room for; 0 for one without an adapter."""
    from selftrain.models.adapters import adapter_base, settings_of

    base = adapter_base(checkpoint)
    if base is None:
        return Weights(str(checkpoint)), 0
    rank = int((settings_of(checkpoint) or {})["r"])
    return Weights(str(base), str(checkpoint)), next((room for room in RANKS if room >= rank), rank)


def reading(weights: Weights) -> dict[str, str]:
    """Fields of vLLM's EngineArgs: an adapter is read and ended as it was trained, not as its base."""
    if weights.adapter is None:
        return {}
    ends = {"generation_config": weights.adapter} if _says_how_it_ends(weights.adapter) else {}
    return {"tokenizer": weights.adapter, **ends}


@dataclass(frozen=True)
class Layout:
    """What an engine reads of a checkpoint when it starts: it can take over weights only where this is equal."""

    config: dict[str, Any]
    """Architecture, context and dtype."""
    tokenizer: str
    ends: frozenset[int]
    """Tokens that end a text."""


def layout_of(weights: Weights, tokenizer: Any) -> Layout:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(weights.model)
    built = {key: value for key, value in config.to_dict().items() if key not in NOTES}
    own = weights.adapter or weights.model
    named = _generation_config(own if _says_how_it_ends(own) else weights.model, config).eos_token_id
    several = named if isinstance(named, list) else [named]
    ends = frozenset(token for token in (*several, tokenizer.eos_token_id) if token is not None)
    return Layout(built, _spelling(tokenizer), ends)


def context_length(checkpoint: str, longest: int | None) -> int:
    """Tokens of prompt and response together."""
    from transformers import AutoConfig

    from selftrain.models.checkpoint import positions

    own = positions(AutoConfig.from_pretrained(checkpoint))
    return min(length for length in (own, longest, 1 << 30) if length is not None)


def _says_how_it_ends(folder: str) -> bool:
    return (Path(folder) / "generation_config.json").exists()


def _generation_config(checkpoint: str, config: Any) -> Any:
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(checkpoint)
    except OSError:  # It has none; vLLM then does the same.
        return GenerationConfig.from_model_config(config)


def _spelling(tokenizer: Any) -> str:
    """All that decides how a tokenizer reads and writes; how its files happen to be laid out does not count."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    written = core.to_str() if core is not None else repr(sorted(tokenizer.get_vocab().items()))
    return f"{type(tokenizer).__name__} {tokenizer.eos_token_id} {written}"
