"""What `gpu_check.py` runs, each in a process of its own: functions of a `Place` that return what they found.

A check that cannot be done here returns why, as ``skipped``; one that fails raises.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from gpu_checks.answers import sampling, scoring, through_vllm
from gpu_checks.fits import four_bits, training, zero
from gpu_checks.kernels import attentions, loss_memory
from gpu_checks.place import Found, Place
from gpu_checks.speed import speed
from selftrain.machine import environment
from selftrain.models.options import OPTIONS, lacking


def about(place: Place) -> Found:
    """The card, versions, and what can be had."""
    found: Found = {**environment(), "options": {name: lacking(name) or "can be had" for name in OPTIONS}}
    if place.device != "cpu":
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "memory": card.total_memory, "cuda": torch.version.cuda}
    return found


CHECKS: dict[str, tuple[Callable[[Place], Found], int]] = {
    "about": (about, 30),
    "speed Qwen3-8B": (speed("Qwen3-8B", again=True), 90),
    "speed Qwen3-0.6B": (speed("Qwen3-0.6B"), 60),
    "training": (training, 60),
    "attention": (attentions, 60),
    "loss memory": (loss_memory, 60),
    "sampling": (sampling, 60),
    "scoring": (scoring, 60),
    "speed Qwen2.5-0.5B": (speed("Qwen2.5-0.5B"), 60),
    "speed Qwen2.5-1.5B": (speed("Qwen2.5-1.5B"), 60),
    "speed Qwen3-8B compiled": (speed("Qwen3-8B", again=True, compiled=True), 120),
    "speed Qwen3-0.6B compiled": (speed("Qwen3-0.6B", compiled=True), 90),
    "zero 2": (zero(2), 90),
    "zero 3": (zero(3), 90),
    "4 bits": (four_bits, 60),
    "vllm": (through_vllm, 120),
}
"""By name, the most telling first: the check, and the seconds it may take."""
