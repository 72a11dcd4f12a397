"""Loading and saving checkpoints in Hugging Face format."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(path: Path | str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(path))


def quiet() -> None:
    """No progress bars for loading and saving: a run shows its own."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def pick_device(device: str) -> str:
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def pick_dtype(dtype: str, device: str) -> torch.dtype:
    import torch

    if dtype == "auto":
        return torch.bfloat16 if device.startswith("cuda") else torch.float32
    return getattr(torch, dtype)  # type: ignore[no-any-return]


def load_model(path: Path | str, *, dtype: str = "auto", device: str = "auto") -> PreTrainedModel:
    """A causal language model from a folder or the hub, on its device.

    Args:
        dtype: float32, bfloat16 or auto (bfloat16 on a GPU, float32 elsewhere).
        device: a torch device or auto.
    """
    from transformers import AutoModelForCausalLM

    quiet()
    where = pick_device(device)
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(path), dtype=pick_dtype(dtype, where), attn_implementation="sdpa"
    )
    return model.to(where)  # type: ignore[no-any-return]


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids that end a response: those of the generation config and the tokenizer's end token."""
    named = model.generation_config.eos_token_id if model.generation_config else None
    several = named if isinstance(named, list) else [named]
    return frozenset(int(token) for token in [*several, tokenizer.eos_token_id] if token is not None)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write weights, config, generation config and tokenizer; the checkpoint stops by itself when served.

    Sampling settings are left out of the generation config: whoever serves the checkpoint chooses them.

    Raises:
        ValueError: what was written does not load back equal.
        OSError: the disk is full, or cannot be written.
    """
    from safetensors import SafetensorError
    from transformers import GenerationConfig

    quiet()
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.config.eos_token_id, model.config.pad_token_id = end, pad
    ends = sorted(end_tokens(model, tokenizer), key=lambda token: token != end)
    model.generation_config = GenerationConfig(
        eos_token_id=ends if len(ends) > 1 else end, pad_token_id=pad, bos_token_id=tokenizer.bos_token_id
    )
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:  # Rust's own kind, with the number of the system's error in its text.
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else 0, str(error), str(folder)) from error
    tokenizer.save_pretrained(folder)
    _check_reload(model, folder)


def _check_reload(model: PreTrainedModel, folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    written = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype).state_dict()
    for name, tensor in model.state_dict().items():
        if name not in written or not written[name].equal(tensor.cpu()):
            raise ValueError(f"{folder}: '{name}' does not load back as it was saved; the checkpoint is not used")
