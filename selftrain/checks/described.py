"""What is wrong with a model that the config describes, before anything of it is written."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from selftrain.config import ConfigError
from selftrain.registry import nearest
from selftrain.schema import RunConfig
from selftrain.session import Session

PLACE = "model.architecture"
SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
"""Fields of nearly every transformers config that are at least 1; some families call them otherwise and map these."""
TRIED = 50_000_000
"""Parameters up to which a model is made in a moment."""
FROM_ALPHABET = ("vocab_size", "pad_token_id", "eos_token_id", "bos_token_id")


def described_config(config: RunConfig) -> Any:
    """The transformers config of `model.architecture`.

    Raises:
        ConfigError: it has a key its family does not know, or a value that cannot be.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    fields = dict(config.model.architecture or {})
    try:
        found = AutoConfig.for_model(fields.pop("model_type", ""), **fields)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, StrictDataclassError) as error:
        raise ConfigError(f"{PLACE}: {said(error)}") from error
    _check_keys(fields, found)
    _check_sizes(found.get_text_config(), fields)
    return found


def _check_keys(fields: dict[str, Any], found: Any) -> None:
    """transformers keeps what it does not know as an attribute that nothing reads, and takes its default instead."""
    from transformers import PreTrainedConfig

    known = {*vars(PreTrainedConfig()), *(field.name for field in dataclasses.fields(found))}
    for name in fields:
        # What the class renames or converts, such as rope_theta, is no attribute of that name afterwards.
        if name in vars(found) and name not in known and not _read_by_model(name, type(found)):
            close = nearest(name, {*known, *found.attribute_map} - set(FROM_ALPHABET))
            hint = close if close.startswith("did you mean") else "remove it"
            raise ConfigError(f"{PLACE}.{name}: a config of model_type {found.model_type} has no such key; {hint}")
    for name in FROM_ALPHABET:
        if name in fields:
            raise ConfigError(f"{PLACE}.{name}: follows from model.alphabet; remove it")


def _read_by_model(name: str, kind: type) -> bool:
    """Whether code asks for a field that the config class does not declare, as Qwen2's does for head_dim."""
    from transformers import modeling_rope_utils

    word = re.compile(rf"config\.{re.escape(name)}\b|(config, |\.get\(|\.pop\(|\[)\"{re.escape(name)}\"")
    files = (*Path(inspect.getfile(kind)).parent.glob("*.py"), Path(inspect.getfile(modeling_rope_utils)))
    return any(word.search(file.read_text()) for file in files)


def _check_sizes(found: Any, given: dict[str, Any]) -> None:
    values = {name: getattr(found, name, None) for name in SIZES}
    for name, value in values.items():
        if isinstance(value, int) and value < 1:
            raise ConfigError(f"{PLACE}.{name}: must be at least 1, got {value}")
    heads, groups = values["num_attention_heads"], values["num_key_value_heads"]
    if isinstance(heads, int) and isinstance(groups, int) and heads % groups:
        default = "" if "num_key_value_heads" in given else ", its default,"
        raise ConfigError(
            f"{PLACE}.num_key_value_heads: must divide num_attention_heads, got {groups}{default} for {heads} heads"
        )


def check_described(session: Session) -> None:
    """Make the described model once and let it read a token, a large one without weights: the start of the run would
    fail where this does. Nothing is made again where the run has one, or for a model with a path.

    Raises:
        ConfigError: its fields do not fit together.
    """
    if session.config.model.path is not None or session.run.start.exists():
        return
    import torch

    from selftrain.models import small

    fields, tokenizer = dict(session.config.model.architecture or {}), session.tokenizer
    try:
        with torch.device("meta"):
            shape = small.random_model(fields, tokenizer, 0)
        if shape.num_parameters() <= TRIED:
            model: Any = small.random_model(fields, tokenizer, 0)
            with torch.inference_mode():
                model(input_ids=torch.zeros(1, 1, dtype=torch.long))
    except Exception as error:  # The code of any family of models may raise anything for what it did not expect.
        raise ConfigError(f"{PLACE}: no model can be made of these fields: {said(error)}") from error


def said(error: Exception) -> str:
    """An error of a library as one line."""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())}"[:300]
