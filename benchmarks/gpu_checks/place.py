"""Where checks run, and what they are made of: models with random weights, sequences, a trainer, a clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from model_flops import SHAPES, Shape
from torch import Tensor

from selftrain.models.checkpoint import save
from selftrain.models.small import character_tokenizer
from selftrain.objectives.nll import NLL
from selftrain.schema import Kernels, Optim
from selftrain.training.data import MicroBatch, micro_batches
from selftrain.training.engine import TorchEngine
from selftrain.training.learnt import LanguageModel
from selftrain.types import Example

TINY = Shape("qwen3", 32, 64, 2, 4, 2, 16, True, vocab_size=512, max_position_embeddings=512)
PACKED = (512, 512, 1024, 1024, 1024, 2048, 2048)
"""Sequences of one packed row of 8,192 tokens."""
PROMPT = 32
ALPHABET = "0123456789+-*= #"
OPTIM = Optim(lr=1e-4, warmup=0.0, schedule="constant", dtype="bfloat16", batching="packed")
Found = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where checks run, and how large."""

    device: str
    tiny: bool

    def shape(self, name: str) -> Shape:
        return TINY if self.tiny else SHAPES[name]

    @property
    def lengths(self) -> tuple[int, ...]:
        return (40, 41, 47) if self.tiny else PACKED

    def peak(self) -> int | None:
        """Largest bytes allocated since the last call; None on a CPU, where they are not counted."""
        if self.device == "cpu":
            return None
        bytes_ = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return int(bytes_)

    def wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def timed(self, run: Callable[[], Tensor]) -> tuple[Tensor, Found]:
        """What a function gives once it is warm; its median time, and the memory it takes."""
        run()
        self.peak()
        seconds = []
        for _ in range(1 if self.tiny else 5):
            self.wait()
            began = time.perf_counter()
            values = run()
            self.wait()
            seconds.append(time.perf_counter() - began)
        return values, {"seconds": round(statistics.median(seconds), 5), "peak bytes": self.peak()}


class Given(LanguageModel):
    """A model that is here already."""

    def __init__(self, model: Any) -> None:
        self.model = self.backbone = model
        self.adapter, self._temperature = None, 1.0


def random_model(shape: Shape, place: Place, dtype: torch.dtype = torch.float32, spread: float = 0.02) -> Any:
    """Random weights, made where they are to be."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = shape.config()
    config.initializer_range = spread
    with torch.device(place.device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")


def written(folder: Path, shape: Shape, place: Place) -> Path:
    """A checkpoint with random weights."""
    save(random_model(shape, place), character_tokenizer(ALPHABET, shape.max_position_embeddings), folder)
    return folder


def rows(lengths: Sequence[int], vocabulary: int) -> list[Example]:
    """Random sequences; all but the prompt carries loss."""
    draw = torch.Generator().manual_seed(0)
    every = [torch.randint(3, vocabulary, (length,), generator=draw).tolist() for length in lengths]
    return [
        Example(f"{number:04d}", f"{number:04d}", "own", tuple(ids[:PROMPT]), tuple(ids[PROMPT:]))
        for number, ids in enumerate(every)
    ]


def trainer(model: Any, optim: Optim, kernels: Kernels, folder: Path) -> TorchEngine:
    character_tokenizer(ALPHABET, 512).save_pretrained(folder)
    return TorchEngine(folder, NLL(), optim, steps=100, device=str(model.device), kernels=kernels, learnt=Given(model))


def laid(lengths: Sequence[int], shape: Shape) -> list[MicroBatch]:
    return micro_batches(rows(lengths, shape.vocab_size), batching="packed", max_tokens=sum(lengths), pad=0)
