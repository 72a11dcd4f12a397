"""What tests of scoring share: responses to score, and checkpoints that give them other numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftrain.models.checkpoint import load_model, load_tokenizer, save
from selftrain.types import Example

END = 1
"""Of the tiny model, whose vocabulary has 19 tokens or more."""


def answer(prompt: tuple[int, ...], response: tuple[int, ...]) -> Example:
    return Example("e", "p", "draft", prompt, response)


def _answers() -> list[Example]:
    rng = random.Random(0)
    ids = [tuple(rng.randrange(16) for _ in range(rng.randint(1, 30))) for _ in range(200)]
    return [answer(prompt, response) for prompt, response in zip(ids[::2], ids[1::2], strict=True)]


ANSWERS = _answers()
"""A hundred, of 1 to 30 tokens behind prompts of as many."""


def nudged(checkpoint: Path, folder: Path) -> Path:
    """Another checkpoint of the same architecture."""
    import torch

    model = load_model(checkpoint, dtype="float32", device="cpu")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    save(model, load_tokenizer(checkpoint), folder)
    return folder


def adapter_of(checkpoint: Path, folder: Path) -> Path:
    """An adapter on a checkpoint that changes it."""
    import torch

    from selftrain.models import adapters
    from selftrain.schema import Lora

    model = load_model(checkpoint, dtype="float32", device="cpu")
    torch.manual_seed(2)
    wrapper: Any = adapters.trainable(model, Lora(r=4, alpha=8), None)
    with torch.no_grad():
        for name, parameter in wrapper.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    save(model, load_tokenizer(checkpoint), folder, adapters.Adapter(wrapper, checkpoint))
    return folder


def log_ratios(policy: Path, reference: Path, examples: Sequence[Example]) -> list[Any]:
    """log p of every token under one checkpoint, minus that under another, in fp32."""
    from selftrain.training.scoring import Scorer

    with Scorer(policy, dtype="float32") as own, Scorer(reference, dtype="float32") as other:
        pairs = zip(own.logprobs(examples), other.logprobs(examples), strict=True)
        return [mine - theirs for mine, theirs in pairs]


def assert_equal(found: Sequence[Any], expected: Sequence[Any]) -> None:
    """Bit for bit."""
    assert [own.tobytes() for own in found] == [wanted.tobytes() for wanted in expected]
