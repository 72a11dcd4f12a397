"""The memory model beside what is really kept: tensors saved for the backward pass, DeepSpeed's own estimators."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from selftrain.estimating.memory import (
    Sampler,
    Trainer,
    cached_tokens,
    deepspeed_states,
    host,
    layer_bytes,
    passes,
    sampling,
    together,
    torch_states,
    training,
)
from selftrain.estimating.network import sequence_traffic, step_traffic, weights_traffic
from selftrain.estimating.shapes import Shape, known, shape_of

TOKENS = 256


def architecture(kind: str, **fields: Any) -> Any:
    from transformers import AutoConfig

    sizes = {"hidden_size": 128, "intermediate_size": 416, "num_attention_heads": 4, "num_key_value_heads": 2}
    every = {**sizes, "head_dim": 32, "vocab_size": 64, "num_hidden_layers": 2, **fields}
    return AutoConfig.for_model(kind, **every)


def saved(kind: str, layers: int, dtype: torch.dtype, autocast: bool, checkpointing: bool) -> int:
    """Bytes that a forward pass keeps, without the weights."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_config(architecture(kind, num_hidden_layers=layers), dtype=dtype)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    mode = torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext()
    with mode, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.base_model(torch.zeros(1, TOKENS, dtype=torch.long), use_cache=False)
    sizes = [tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights]
    copies = 2 * sum(p.numel() for p in model.model.layers.parameters() if p.dim() > 1) if autocast else 0
    return sum(sizes) - (0 if checkpointing else copies)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("how", ["autocast", "float32", "bfloat16"])
def test_a_layer_keeps_as_many_bytes_of_a_token_as_are_reckoned(kind: str, how: str) -> None:
    dtype = torch.bfloat16 if how == "bfloat16" else torch.float32
    three, one = (saved(kind, layers, dtype, how == "autocast", False) for layers in (3, 1))
    trainer = Trainer("deepspeed" if how == "bfloat16" else "torch", bf16=how != "float32")
    assert (three - one) / 2 / TOKENS == pytest.approx(layer_bytes(shape_of(architecture(kind)), trainer), rel=0.01)


@pytest.mark.parametrize("how", ["autocast", "bfloat16"])
def test_a_checkpointed_layer_keeps_its_input(how: str) -> None:
    dtype = torch.bfloat16 if how == "bfloat16" else torch.float32
    three, one = (saved("qwen2", layers, dtype, how == "autocast", True) for layers in (3, 1))
    trainer = Trainer("deepspeed" if how == "bfloat16" else "torch", checkpointing=True, micro_tokens=TOKENS)
    shape = shape_of(architecture("qwen2", num_hidden_layers=3))
    kept = passes(shape, trainer)["activations"] - TOKENS * layer_bytes(shape, trainer)
    assert (three - one) / 2 == pytest.approx(kept / 3, rel=0.01)


@pytest.fixture(scope="module")
def seven() -> Shape:
    return shape_of(known("Qwen/Qwen2.5-7B"))


def states(shape: Shape, **options: Any) -> int:
    found = deepspeed_states(shape, Trainer(engine="deepspeed", **options))
    return found["weights"] + found["gradients"] + found["optimizer"]


@pytest.mark.parametrize("ranks", [8, 32])
def test_states_of_zero_are_those_of_deepspeeds_own_estimators(seven: Shape, ranks: int) -> None:
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as third
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as second

    total, where = seven.parameters, {"num_gpus_per_node": 8, "num_nodes": ranks // 8}
    _, gpu = second(total, cpu_offload=False, **where)
    assert states(seven, processes=ranks, zero=2) == pytest.approx(gpu, rel=1e-6)
    _, gpu = second(total, cpu_offload=True, **where)
    assert states(seven, processes=ranks, zero=2, offload="optimizer") == gpu
    for offload in ("none", "optimizer", "parameters"):
        cpu, gpu, _ = third(
            total,
            seven.largest,
            cpu_offload=offload != "none",
            cpu_offload_params=offload == "parameters",
            additional_buffer_factor=1,
            **where,
        )
        # Without offload they leave out the bf16 gradients, which their estimator of stage 2 counts.
        gradients = 2 * total // ranks if offload == "none" else 0
        found = states(seven, processes=ranks, zero=3, offload=offload)
        assert found == pytest.approx(gpu + gradients, rel=1e-6)
        outside = 8 * host(seven, Trainer("deepspeed", ranks, 3, offload))
        # They count 16 or 18 bytes a parameter; the gradients are there in both types.
        assert offload == "none" or cpu <= outside <= 1.13 * cpu


def test_what_is_divided_shrinks_with_the_ranks_and_the_rest_does_not(seven: Shape) -> None:
    twelve = 12 * seven.parameters  # The sum of gradients stays whole.
    assert states(seven, processes=8) == 2 * seven.parameters + 6 * seven.parameters + 12 * seven.parameters
    first, many = (states(seven, processes=ranks, zero=1) for ranks in (8, 64))
    assert first - many == pytest.approx(twelve * (1 / 8 - 1 / 64), rel=1e-6) and many > 4 * seven.parameters
    assert sum(torch_states(seven, Trainer()).values()) == 18 * seven.parameters
    adapter = training(seven, Trainer(trained=20_000_000, checkpointing=True))
    assert adapter["weights"] == 2 * seven.parameters + 4 * 20_000_000 and adapter["optimizer"] == 8 * 20_000_000


def test_ranks_that_share_a_sequence_hold_a_part_of_its_activations(seven: Shape) -> None:
    whole = Trainer("deepspeed", 8, 3, micro_tokens=16_384, longest=33_000, checkpointing=True)
    alone = passes(seven, whole)["activations"]
    shared = passes(seven, Trainer(**{**vars(whole), "sequence_parallel": 4}))["activations"]
    assert whole.tokens == 33_000 and shared == pytest.approx(alone / 4, rel=1e-3)


def test_the_cache_takes_what_weights_leave_of_an_engine(seven: Shape) -> None:
    sampler = Sampler(memory=80e9, sequences=256, length=4096)
    parts = sampling(seven, sampler)
    assert sum(parts.values()) == pytest.approx(0.9 * 80e9, rel=1e-9)
    assert cached_tokens(seven, sampler) == parts["cache"] // 57_344
    assert together(seven, sampler) == parts["cache"] // 57_344 // 4096 < 256
    assert together(seven, sampler, 500) == 256
    assert sampling(seven, Sampler(memory=12e9))["cache"] == 0 and together(seven, Sampler(memory=12e9)) == 0


def test_bytes_over_the_network_are_those_of_the_papers(seven: Shape) -> None:
    size = 2 * seven.parameters
    trainer = {stage: Trainer("deepspeed", 64, stage) for stage in (0, 1, 2, 3)}
    sent = {stage: step_traffic(seven, own, passes=1).total / size for stage, own in trainer.items()}
    assert sent == pytest.approx({0: 2 * 63 / 64, 1: 2 * 63 / 64, 2: 2 * 63 / 64, 3: 3 * 63 / 64})
    assert step_traffic(seven, trainer[3], 4).total == 4 * step_traffic(seven, trainer[3], 1).total
    assert step_traffic(seven, trainer[1], 4).total == step_traffic(seven, trainer[1], 1).total
    assert weights_traffic(seven, 8) == 8 * size
    shared = Trainer("deepspeed", 8, 3, sequence_parallel=4, micro_tokens=4000)
    # Queries, keys, values and the output, of 1,000 tokens, to three of four; forward and backward.
    assert sequence_traffic(seven, shared) == 2 * 28 * 2 * (2 * 3584 + 2 * 512) * 1000 * 3 / 4
    assert sequence_traffic(seven, trainer[3]) == 0
