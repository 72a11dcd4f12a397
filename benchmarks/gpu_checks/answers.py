"""Drawing responses and scoring them: tokens per second, and whether the same is answered again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu_checks.place import Found, Place, random_model, rows, written
from selftrain.models.options import installed
from selftrain.sampling.base import Request
from selftrain.schema import Sampling
from selftrain.training.scoring import score
from selftrain.types import Problem

APART = 0.5
"""Largest difference of a log-probability in bf16; those of random weights lie around -12."""


def _asked(count: int, **settings: Any) -> list[Request]:
    asked = Sampling(**settings)
    return [Request(Problem(str(at), "check", "train", ""), (3, 4, 5 + at % 8), (at,), asked) for at in range(count)]


def sampling(place: Place) -> Found:
    """The transformers sampler: tokens per second, and greedy answers twice."""
    from selftrain.sampling.transformers import Transformers

    shape, rows_, longest = place.shape("Qwen2.5-0.5B"), *((4, 8) if place.tiny else (256, 128))
    work = _asked(rows_, temperature=0, max_tokens=longest)
    with tempfile.TemporaryDirectory() as folder:
        sampler = Transformers(device=place.device, dtype="bfloat16").open(written(Path(folder), shape, place))
        answers, seconds = [], []
        for _ in range(3):
            began = time.perf_counter()
            done = sorted((one for part in sampler.sample(work) for one in part), key=lambda one: one.request)
            seconds.append(time.perf_counter() - began)
            answers.append([one.ids for one in done])
    if answers[1] != answers[2]:
        raise ValueError("the same requests, asked greedily, are answered otherwise the second time")
    return {"tokens per second": round(sum(map(len, answers[-1])) / min(seconds[1:])), "rows": rows_}


def scoring(place: Place) -> Found:
    """Log-probabilities of given responses in bf16: tokens per second, and how far they are from fp32."""
    shape = place.shape("Qwen2.5-0.5B")
    lengths = [40 + at % 7 for at in range(6)] if place.tiny else [200 + at for at in range(300)]
    examples = rows(lengths, shape.vocab_size)
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = random_model(shape, place).to(dtype).eval()
        values, row = place.timed(lambda model=model: _joined(score(model, examples)))  # type: ignore[misc]
        found[str(dtype)] = (values, row | {"tokens per second": round(sum(lengths) / row["seconds"])})
    exact, half = found.values()
    difference = float((exact[0] - half[0]).abs().max())
    if not difference < APART:
        raise ValueError(f"log-probabilities in bf16 are up to {difference} from those in fp32")
    return {name: row for name, (_, row) in found.items()} | {"largest difference": difference}


def _joined(values: Sequence[Any]) -> Tensor:
    return torch.cat([torch.from_numpy(own) for own in values])


def through_vllm(place: Place) -> Found:
    """Tokens per second through the real engine."""
    if place.device == "cpu":
        return {"skipped": "on a CPU: benchmarks/bench_grow.py measures it"}
    if not installed("vllm"):
        return {"skipped": "not installed: pip install 'selftrain[vllm]'"}
    from selftrain.sampling.vllm import VLLM

    work = _asked(1024, temperature=1.0, max_tokens=256)
    with tempfile.TemporaryDirectory() as folder:
        engine = VLLM().open(written(Path(folder), place.shape("Qwen2.5-0.5B"), place))
        try:
            began = time.perf_counter()
            done = [one for part in engine.sample(work) for one in part]
            seconds = time.perf_counter() - began
        finally:
            engine.close()
    if len(done) != len(work):
        raise ValueError(f"{len(work)} requests were answered {len(done)} times")
    tokens = sum(len(one.ids) for one in done)
    return {"tokens per second": round(tokens / seconds), "requests": len(work)}
