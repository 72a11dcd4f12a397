"""Small value models for tests: random weights, a head that says something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from selftrain.models.head_form import HeadForm
from selftrain.models.heads import ValueModel, load_value_model, save_value_model
from selftrain.models.small import character_tokenizer, random_model

ALPHABET = "0123456789+-= .abcdefghijk\n"
LINEAR = HeadForm()
QWEN: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "initializer_range": 0.3,
}


def causal(folder: Path, architecture: dict[str, Any] = QWEN, seed: int = 0) -> Path:
    """A causal language model of random weights with a tokenizer of characters."""
    tokenizer = character_tokenizer(ALPHABET, 256)
    random_model(architecture, tokenizer, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def value_model(base: Path, form: HeadForm = LINEAR, seed: int = 0, dtype: str = "float32") -> ValueModel:
    """One whose head is random too, so that its values differ."""
    model = load_value_model(base, form, dtype=dtype, device="cpu").eval()
    with torch.no_grad():
        torch.nn.init.normal_(
            last_layer(model).weight,
            std=0.3,
            generator=torch.Generator().manual_seed(seed),
        )
    return model


def last_layer(model: ValueModel) -> torch.nn.Linear:
    *_, last = model.head.children()
    assert isinstance(last, torch.nn.Linear)
    return last


def saved(folder: Path, base: Path, form: HeadForm = LINEAR, seed: int = 0) -> Path:
    save_value_model(value_model(base, form, seed), character_tokenizer(ALPHABET, 256), folder)
    return folder
