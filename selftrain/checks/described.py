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

PLACE = "model.architecture"
FROM_ALPHABET = ("vocab_size", "pad_token_id", "eos_token_id", "bos_token_id")


def described_config(config: RunConfig) -> Any:
    """The transformers config of `model.architecture`.

    Raises:
        ConfigError: it has a key its family does not know, or a value of the wrong type.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    fields = dict(config.model.architecture or {})
    try:
        found = AutoConfig.for_model(fields.pop("model_type", ""), **fields)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, StrictDataclassError) as error:
        raise ConfigError(f"{PLACE}: {said(error)}") from error
    _check_keys(fields, found)
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


def said(error: Exception) -> str:
    """An error of a library as one line."""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())}"[:300]
