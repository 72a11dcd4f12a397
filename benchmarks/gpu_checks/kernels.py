"""Ways to compute the same: implementations of attention, and of the loss at a full vocabulary."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from model_flops import Shape
from torch import Tensor

from gpu_checks.place import Found, Place, laid, random_model
from selftrain.models import attention, logprobs
from selftrain.models.options import lacking
from selftrain.training.data import MicroBatch, moved


def attentions(place: Place) -> Found:
    """Each implementation over one packed row, in bf16: time, memory, and how far it is from sdpa with its mask."""
    shape = place.shape("Qwen3-0.6B")
    shape = shape if place.tiny else replace(shape, num_hidden_layers=4)
    model = random_model(shape, place, spread=0.05)
    batch = _row(shape, place)
    names = ["sdpa", attention.VARLEN, *(name for name in attention.FLASH if lacking(name) is None)]
    found: Found = {name: lacking(name) for name in attention.FLASH if lacking(name)}
    expected: Tensor | None = None
    for name in names:
        attention.use(model, name)
        values, row = place.timed(lambda: _read(model, batch))
        expected = values if expected is None else expected
        difference = float((values - expected).abs().max())
        found[name] = row | {"largest difference": difference}
        if difference > 0.5:
            raise ValueError(f"{name} computes something else than sdpa: {found}")
    return found


def loss_memory(place: Place) -> Found:
    """The loss of one row at the full vocabulary: all logits at once, in chunks of several sizes, by the package."""
    shape = replace(place.shape("Qwen2.5-0.5B"), num_hidden_layers=1)
    model = random_model(shape, place)
    batch = _row(shape, place)
    found: Found = {}
    losses: list[Tensor] = []
    for bits in (24, 10) if place.tiny else (31, 24, 26, 27, 28):
        logprobs.CHUNK_LOGITS = logprobs.CHUNK_LOGITS_GPU = 2**bits
        values, row = place.timed(lambda: _read(model, batch))
        found["all at once" if not losses else f"chunks of 2^{bits}"] = row
        losses.append(values)
    if (reason := lacking("cut_cross_entropy")) is None:
        values, found["cut_cross_entropy"] = place.timed(lambda: _read(model, batch, cut=True))
        losses.append(values)
    else:
        found["cut_cross_entropy"] = reason
    found["largest difference"] = max(float((own - losses[0]).abs().max()) for own in losses)
    if found["largest difference"] > 0.1:
        raise ValueError(f"the ways to compute the loss do not agree: {found}")
    return found


def _row(shape: Shape, place: Place) -> MicroBatch:
    """One packed row, where it is computed."""
    (batch,) = laid(place.lengths, shape)
    return moved(batch, place.device)


def _read(model: Any, batch: MicroBatch, **chosen: Any) -> Tensor:
    """Log-probabilities, and their gradient."""
    model.zero_grad(set_to_none=True)
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        found = logprobs.batch_logprobs(
            model, batch.input_ids, batch.position_ids, batch.positions, lengths=batch.lengths, **chosen
        )
    (-found.mean()).backward()
    return found.detach()
