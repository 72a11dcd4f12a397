"""Asking a sampler in a test: requests of plain prompts, and answers by their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selftrain.sampling.base import ALL, Answers, Completion, Place, Request, Sampler
from selftrain.schema import Sampling
from selftrain.seeds import derive
from selftrain.types import Problem


def ask(tokenizer: Any, prompt: str, n: int, settings: Sampling, purpose: str = "") -> Request:
    return Request(
        Problem(f"t/train/{prompt}", "t", "train", prompt, "34"),
        tuple(tokenizer.encode(prompt)),
        tuple(derive(prompt, purpose, index) for index in range(n)),
        settings,
        purpose,
        text=prompt,
    )


def collect(sampler: Sampler, work: Sequence[Request], answers: Answers = ALL) -> dict[Place, Completion]:
    found: dict[Place, Completion] = {}
    for completions in sampler.sample(work, answers):
        for completion in completions:
            place = (completion.request, completion.index)
            assert place not in found, "a sample came twice"
            found[place] = completion
    return found
