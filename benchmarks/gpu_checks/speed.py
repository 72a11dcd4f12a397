"""How fast a shape is trained: tokens per second, and the share of the card's peak that its operations are."""

from __future__ import annotations

import gc
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
import torch._inductor.config
from model_flops import PEAK, Shape, training_flops

from gpu_checks.place import OPTIM, Found, Place, laid, random_model, trainer
from selftrain.models import attention
from selftrain.schema import Kernels, Optim


def speed(name: str, *, again: bool = False, compiled: bool = False) -> Callable[[Place], Found]:
    """Tokens per second and model FLOP utilisation of training a shape at one packed row a step."""

    def check(place: Place) -> Found:
        shape = place.shape(name)
        kernels = Kernels(compile=compiled)
        if compiled and place.device == "cpu":
            torch._inductor.config.compile_threads = 1  # Others would have to start first.
        optim = replace(OPTIM, gradient_checkpointing=again)
        with suppress(torch.OutOfMemoryError):
            return _measured(place, shape, kernels, optim)
        gc.collect()
        torch.cuda.empty_cache()
        return {"note": "the whole model and its optimizer do not fit: half the layers"} | _measured(
            place, shape.halved(), kernels, optim
        )

    return check


def _measured(place: Place, shape: Shape, kernels: Kernels, optim: Optim) -> Found:
    place.peak()
    model = random_model(shape, place)
    with tempfile.TemporaryDirectory() as folder:
        engine = trainer(model, optim, kernels, Path(folder))
    found: Found = {
        "parameters": model.num_parameters(),
        "layers": shape.num_hidden_layers,
        "attention": attention.in_use(model),
        "compiled": kernels.compile,
        "gradient checkpointing": optim.gradient_checkpointing,
    }
    del model
    layouts = {"packed": place.lengths, "one sequence": (sum(place.lengths),)}
    for layout, lengths in [*layouts.items()][: 1 if place.tiny else 2]:
        batches = laid(lengths, shape)
        seconds = []
        for _ in range(2 if place.tiny else 8):
            began = time.perf_counter()
            step = engine.step(batches)
            seconds.append(time.perf_counter() - began)
        if not math.isfinite(step.loss):
            raise ValueError(f"the loss is {step.loss}")
        typical = statistics.median(seconds[-5:])
        work = training_flops(shape, lengths, step.loss_tokens)
        found[layout] = {
            "tokens per second": round(step.tokens / typical),
            "utilisation": round(work / typical / PEAK, 4),
            "seconds per step": round(typical, 4),
            "first step": round(seconds[0], 2),
            "tokens": step.tokens,
            "peak bytes": place.peak(),
        }
    engine.close()
    return found
