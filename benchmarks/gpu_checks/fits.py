"""Fits that learn: in bf16 and again the same, with DeepSpeed, on a base in 4 bits."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from model_flops import Shape

from gpu_checks.place import OPTIM, Found, Place, laid, random_model, rows, trainer, written
from selftrain.models.options import installed, lacking
from selftrain.objectives.nll import NLL
from selftrain.schema import Kernels, Lora, Trainer
from selftrain.training.fit import Fit, fit


def training(place: Place) -> Found:
    """The engine in bf16 learns a few sequences by heart; and does it again."""
    shape = place.shape("Qwen2.5-0.5B")
    lengths, steps = ((40, 47), 4) if place.tiny else ((128,) * 8, 12)
    found: Found = {}
    for exact in (False, True):
        torch.use_deterministic_algorithms(exact, warn_only=True)
        ends = [_learn(place, shape, lengths, steps) for _ in range(2)]
        name = "deterministic algorithms" if exact else "as it is"
        found[name] = {"repeats bit for bit": ends[0] == ends[1]}
        found["losses"] = [round(loss, 4) for loss in ends[0][0]]
    torch.use_deterministic_algorithms(False)
    return _falling(found)


def _learn(place: Place, shape: Shape, lengths: Sequence[int], steps: int) -> tuple[list[float], str]:
    with tempfile.TemporaryDirectory() as folder:
        engine = trainer(random_model(shape, place), replace(OPTIM, lr=1e-3), Kernels(), Path(folder))
    batches = laid(lengths, shape)
    losses = [engine.step(batches).loss for _ in range(steps)]
    digest = hashlib.sha256()
    for tensor in engine.weights().values():
        digest.update(tensor.numpy().tobytes())
    engine.close()
    return losses, digest.hexdigest()


def zero(stage: int) -> Callable[[Place], Found]:
    """One rank of DeepSpeed's ZeRO against the plain engine, over the same steps."""

    def check(place: Place) -> Found:
        if not installed("deepspeed"):
            return {"skipped": "not installed: pip install 'selftrain[deepspeed]'"}
        began = time.perf_counter()
        found = _falling({"losses": _fitted(place, trainer=Trainer("deepspeed", 1, stage))})
        seconds = time.perf_counter() - began
        losses, plain = found["losses"], _fitted(place)
        apart = max(abs(one - other) / abs(other) for one, other in zip(losses, plain, strict=True))
        if apart > 0.05:
            raise ValueError(f"ZeRO-{stage} learns otherwise than the plain engine: {losses} against {plain}")
        return {**found, "plain": plain, "largest share apart": apart, "seconds": round(seconds, 1)}

    return check


def four_bits(place: Place) -> Found:
    """An adapter on a base in 4 bits learns."""
    if (reason := lacking("nf4")) is not None:
        return {"skipped": reason}
    return _falling({"losses": _fitted(place, lora=Lora(base="nf4"))})


def _fitted(place: Place, **chosen: Any) -> list[float]:
    """The losses of a short fit from a checkpoint to a checkpoint."""
    shape = place.shape("Qwen2.5-0.5B")
    optim = replace(OPTIM, batching="bucketed", batch_size=4, steps=4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = written(folder / "start", shape, place)
        asked = Fit(source, folder / "end", folder / "log", NLL(), optim, 0, **chosen)
        return [step.last.loss for step in fit(rows([48 if place.tiny else 512] * 4, shape.vocab_size), asked)]


def _falling(found: Found) -> Found:
    """Raises ValueError where the loss does not fall."""
    losses = found["losses"]
    if not losses[-1] < losses[0]:
        raise ValueError(f"the loss does not fall: {losses}")
    return found
