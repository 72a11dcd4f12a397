"""The check of a GPU, tried on a CPU: its count of operations, its processes, and the checks that are cheap here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
CHEAP = ["about", "speed Qwen3-8B", "training", "attention", "loss memory", "sampling", "scoring", "4 bits", "vllm"]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("TRANSFORMERS_VERBOSITY", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


@pytest.mark.parametrize(
    ("name", "published"),
    [("Qwen2.5-0.5B", 494e6), ("Qwen2.5-1.5B", 1.544e9), ("Qwen3-0.6B", 596e6), ("Qwen3-8B", 8.191e9)],
)
def test_shapes_are_those_of_the_published_models(name: str, published: float) -> None:
    """And what multiplies in them is counted parameter by parameter."""
    from model_flops import SHAPES

    from selftrain.models.adapters import linear_layers, skeleton

    shape = SHAPES[name]
    model: Any = skeleton(shape.config())
    assert model.num_parameters() == pytest.approx(published, rel=1e-3)
    layers = sum(model.get_submodule(layer).weight.numel() for layer in linear_layers(model))
    assert shape.layer * shape.num_hidden_layers == layers
    assert shape.head == model.get_output_embeddings().weight.numel()


def test_operations_are_6_per_parameter_and_token_and_12_per_pair_that_attends() -> None:
    from model_flops import Shape, training_flops

    shape = Shape("qwen3", 8, 16, 3, 4, 2, 5, True, vocab_size=100)
    parameters = 3 * 8 * (20 + 10 + 10 + 20 + 16 * 3) + 8 * 100
    length = 7
    once = training_flops(shape, [length], length)
    assert once == 6 * parameters * length + 12 * 3 * 4 * 5 * (length * (length + 1) // 2)
    # PaLM's 12 L H Q T per token counts the pairs that causal attention leaves out too.
    attention = once - 6 * parameters * length
    assert 2 * attention == 12 * 3 * 4 * 5 * length * (length + 1)
    assert training_flops(shape, [length] * 3, 3 * length) == 3 * once
    assert once - training_flops(shape, [length], 5) == 6 * 800 * 2


def test_operations_are_those_that_pytorch_counts() -> None:
    """All pairs are computed by the plain attention it counts; the embedding multiplies nothing."""
    import torch
    from gpu_checks.place import TINY, Place, random_model
    from model_flops import training_flops
    from torch.utils.flop_counter import FlopCounterMode

    model = random_model(TINY, Place("cpu", True))
    model.set_attn_implementation("eager")
    length = 16
    with FlopCounterMode(display=False) as counted:
        model(torch.arange(length)[None]).logits.sum().backward()
    causal = training_flops(TINY, [length], length)
    others = 12 * TINY.num_hidden_layers * TINY.num_attention_heads * TINY.head_dim * (length * (length - 1) // 2)
    assert counted.get_total_flops() == pytest.approx(causal + others, rel=0.02)


def test_every_cheap_check_runs_on_a_cpu() -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu_check.py"), "--cpu", "--only", *CHEAP]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BENCHMARKS.parent)
    told = json.loads(done.stdout)
    checks = told["checks"]
    statuses = {name: own["status"] for name, own in checks.items()}
    assert statuses == {name: "skipped" if name in ("4 bits", "vllm") else "ok" for name in CHEAP}, done.stderr
    assert done.returncode == 0 and told["device"] == "cpu" and "goals" not in told
    assert checks["training"]["as it is"]["repeats bit for bit"] and checks["scoring"]["largest difference"] > 0
    assert checks["speed Qwen3-8B"]["packed"]["tokens"] == 128 and checks["speed Qwen3-8B"]["attention"] == "sdpa"
    assert checks["attention"]["varlen"]["largest difference"] < 0.1


@pytest.mark.parametrize("stage", [2, 3])
def test_one_rank_of_deepspeed_learns_what_the_plain_engine_does(stage: int) -> None:
    """In this process, whose ranks begin with DeepSpeed imported."""
    from gpu_checks.fits import zero
    from gpu_checks.place import Place

    found = zero(stage)(Place("cpu", True))
    assert len(found["losses"]) == len(found["plain"]) == 4
    assert found["largest share apart"] < 0.01


def test_a_check_that_fails_hangs_or_dies_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_check
    from gpu_checks import CHECKS
    from gpu_checks.place import Place

    def fails(place: Place) -> Any:
        raise ValueError("two\nlines")

    chosen: dict[str, Any] = {
        "fails": (fails, 60),
        "hangs": (lambda place: time.sleep(60), 1),
        "dies": (lambda place: os._exit(3), 60),
        "works": (lambda place: {"tokens": 1}, 60),
        "cannot": (lambda place: {"skipped": "no card"}, 60),
    }
    for name, one in chosen.items():
        monkeypatch.setitem(CHECKS, name, one)
    began = time.monotonic()
    found = gpu_check.run(Place("cpu", True), [*chosen])
    assert [own["status"] for own in found.values()] == [
        "failed: ValueError: two",
        "not done in 1 s",
        "failed: the process ended with 3",
        "ok",
        "skipped",
    ]
    assert time.monotonic() - began < 40
    assert gpu_check.run(Place("cpu", True), []) == {}


def test_goals_are_met_by_the_best_that_was_measured() -> None:
    import gpu_check

    figures = {"utilisation": 0.3, "tokens per second": 5}
    found: dict[str, Any] = {
        "speed Qwen3-8B": {"status": "ok", "packed": figures},
        "speed Qwen3-8B compiled": {"status": "ok", "packed": {**figures, "utilisation": 0.4}},
        "speed Qwen3-0.6B": {"status": "failed"},
    }
    assert gpu_check.goals(found) == {
        "speed Qwen3-8B: utilisation": {"goal": 0.35, "measured": 0.4},
        "speed Qwen3-0.6B: tokens per second": {"goal": 26_000, "measured": None},
    }
