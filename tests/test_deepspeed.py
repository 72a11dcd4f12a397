"""The trainer in several processes: the steps of a single process, whatever is divided among them and however."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fitting import EXAMPLES, FEW, OPTIM, STEPS, Single, assert_same, assert_same_steps, batch, steps, weights

from selftrain.files import replacing
from selftrain.models import checkpoint
from selftrain.models.head_form import HeadForm
from selftrain.models.small import random_model
from selftrain.objectives.nll import NLL
from selftrain.objectives.paired import DPO
from selftrain.objectives.values import MSE
from selftrain.schema import Lora, Optim, Trainer
from selftrain.training import state
from selftrain.training.data import cut, length, micro_batches
from selftrain.training.engine import Objective, TorchEngine
from selftrain.training.group import Group
from selftrain.training.zero.engine import SERVE, DeepSpeedEngine, filled, start_of
from selftrain.types import Example

DIVIDED = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
"""So that ZeRO-3 divides small parameters too."""


@pytest.fixture(scope="module")
def groups() -> Iterator[list[Group]]:
    opened: list[Group] = []
    yield opened
    for one in opened:
        one.close()


@pytest.fixture
def group(groups: list[Group]) -> Group:
    """Two processes that all tests of this file share, but for those that follow one which ended them."""
    if not groups or not groups[-1]:
        groups.append(Group(SERVE, 2))
    return groups[-1]


Open = Callable[..., DeepSpeedEngine]


@pytest.fixture
def two(group: Group, tiny: Path, tmp_path: Path) -> Iterator[Open]:
    """Opens an engine in both processes."""
    engines = []
    (tmp_path / "deepspeed.json").write_text(json.dumps(DIVIDED))

    def opened(
        zero: int = 2,
        objective: Objective | None = None,
        optim: Optim = OPTIM,
        source: Path = tiny,
        start: dict[str, Any] | None = None,
        **trainer: Any,
    ) -> DeepSpeedEngine:
        chosen = Trainer("deepspeed", 2, zero, config=str(tmp_path / "deepspeed.json"), **trainer)
        fit = objective or NLL()
        begins = start_of(source, fit, optim, **(start or {}))
        engines.append(DeepSpeedEngine(begins, fit, optim, steps=STEPS, trainer=chosen, group=group))
        return engines[-1]

    yield opened
    for engine in engines:
        if group:
            engine.close()


@pytest.fixture(scope="module")
def single(tiny: Path) -> Single:
    return Single(tiny, NLL(), EXAMPLES, STEPS)


def test_ranks_have_like_shares_and_as_many_passes() -> None:
    laid = [
        micro_batches(batch(number), batching="bucketed", max_tokens=100, pad=0, shares=2) for number in range(STEPS)
    ]
    sizes = [[sum(one.tokens for one in own if one.share == share) for share in (0, 1)] for own in laid]
    assert all(abs(one - other) <= 50 for one, other in sizes) and any(one != other for one, other in sizes)
    assert [sum(own) for own in sizes] == [sum(map(length, batch(number))) for number in range(STEPS)]
    counts = [[sum(one.share == share for one in own) for share in (0, 1)] for own in laid]
    assert any(one != other for one, other in counts), "in some steps a rank has less to compute"
    assert [[*map(bool, share)] for share in filled([[laid[0][0]], [], [*laid[0][:2]]])] == [
        [True, False],
        [False, False],
        [True, True],
    ]
    whole = micro_batches(batch(0), batching="bucketed", max_tokens=100, pad=0)
    assert [one.examples.tolist() for one in whole] == cut(batch(0), batching="bucketed", max_tokens=100)


@pytest.mark.parametrize(
    ("zero", "offload", "again"),
    [(1, "none", False), (2, "none", True), (3, "none", False), (2, "optimizer", False), (3, "parameters", True)],
)
def test_steps_are_those_of_one_process(
    two: Open, single: Single, tmp_path: Path, zero: int, offload: str, again: bool
) -> None:
    engine = two(zero, optim=replace(OPTIM, gradient_checkpointing=again), offload=offload)
    assert_same_steps(steps(engine, range(STEPS)), single.taken)
    assert_same(weights(engine, single.after, tmp_path / "state"), single.after, single.before)
    apart = zip(engine.logprobs(EXAMPLES), single.engine.logprobs(EXAMPLES), strict=True)
    assert max(np.abs(own - wanted).max() for own, wanted in apart) < 1e-5
    laid = micro_batches(EXAMPLES, batching="bucketed", max_tokens=300, pad=0, shares=2)
    assert engine.evaluate(laid) == pytest.approx(single.engine.evaluate(laid), rel=1e-4)


def test_a_fit_goes_on_with_another_engine(two: Open, single: Single, tiny: Path, tmp_path: Path) -> None:
    """From one process to two with ZeRO-3, on with ZeRO-1, and back to one."""
    torch_engine = TorchEngine(tiny, NLL(), OPTIM, steps=STEPS, device="cpu")
    taken = steps(torch_engine, range(5))
    torch_engine.save_state(tmp_path / "a", state.ALL)
    for name, zero, numbers in (("a", 3, range(5, 10)), ("b", 1, range(10, 15))):
        engine = two(zero)
        engine.load_state(tmp_path / name)
        taken += steps(engine, numbers)
        engine.save_state(tmp_path / chr(ord(name) + 1), state.ALL)
    last = TorchEngine(tiny, NLL(), OPTIM, steps=STEPS, device="cpu")
    last.load_state(tmp_path / "c")
    taken += steps(last, range(15, STEPS))
    assert_same_steps(taken, single.taken)
    assert_same(last.weights(), single.after, single.before)


def test_a_fresh_optimizer_begins_anew(two: Open, single: Single, tmp_path: Path) -> None:
    for zero in (2, 3):
        engine = two(zero)
        engine.save_state(tmp_path / "start", state.WEIGHTS)
        steps(engine, range(7))
        engine.begin(STEPS)
        engine.load_state(tmp_path / "start")
        assert_same_steps(steps(engine, range(3)), single.taken[:3])


@pytest.mark.parametrize("zero", [2, 3])
def test_adapters_are_fitted_alike(two: Open, tiny: Path, tmp_path: Path, zero: int) -> None:
    start: dict[str, Any] = {"lora": Lora(r=4, alpha=8)}
    alone = Single(tiny, NLL(), EXAMPLES, **start)
    engine = two(zero, start=start)
    assert_same_steps(steps(engine, range(FEW)), alone.taken)
    assert_same(weights(engine, alone.after, tmp_path / "state"), alone.after, alone.before)
    engine.save(tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint" / "adapter_model.safetensors").exists()
    alone.engine.save(tmp_path / "alone")
    ours, theirs = (
        checkpoint.load_model(tmp_path / name, dtype="float32", device="cpu")(torch.arange(12)[None]).logits
        for name in ("checkpoint", "alone")
    )
    assert torch.allclose(ours, theirs, atol=1e-4)


def valued(example: Example) -> Example:
    """With targets at some of its tokens."""
    rng = random.Random(example.id)
    targets = [rng.random() if rng.random() < 0.4 else float("nan") for _ in example.response_ids]
    return replace(example, targets=(*targets[:-1], 1.0))


@pytest.mark.parametrize("zero", [1, 3])
def test_value_heads_are_fitted_alike(two: Open, tiny: Path, tmp_path: Path, zero: int) -> None:
    examples = [valued(one) for one in EXAMPLES]
    alone = Single(tiny, MSE(), examples, head=HeadForm())
    engine = two(zero, MSE(), start={"head": HeadForm()})
    assert_same_steps(steps(engine, range(FEW), examples), alone.taken)
    assert_same(weights(engine, alone.after, tmp_path / "state"), alone.after, alone.before)
    engine.save(tmp_path / "checkpoint")
    again = TorchEngine(tmp_path / "checkpoint", MSE(), OPTIM, steps=1, device="cpu")
    assert_same(again.weights(), alone.after, alone.before)


def pairs() -> list[Example]:
    found = []
    for number in range(30):
        rng = random.Random(number)
        for role in ("chosen", "rejected"):
            response = tuple(rng.randrange(16) for _ in range(rng.randint(1, 30)))
            reference = tuple(-rng.random() * 4 for _ in response)
            own: dict[str, Any] = {"pair_id": f"{number}", "role": role, "reference_logprobs": reference}
            found.append(Example(f"{number}{role}", f"p{number}", "own", (3, 4, number % 16), response, **own))
    return found


@pytest.mark.parametrize("zero", [2, 3])
def test_sequences_divided_among_ranks_give_the_same(two: Open, tiny: Path, tmp_path: Path, zero: int) -> None:
    """Ulysses at degree 2; with an objective that sums over a sequence, and one of single tokens."""
    preferred = [one for number in range(0, 60, 2) for one in pairs()[number : number + 2]]
    for name, objective, examples in (("nll", NLL(), EXAMPLES), ("dpo", DPO(), preferred)):
        alone = Single(tiny, objective, examples)
        engine = two(zero, objective, replace(OPTIM, gradient_checkpointing=zero == 3), sequence_parallel=2)
        assert_same_steps(steps(engine, range(FEW), examples), alone.taken)
        assert_same(weights(engine, alone.after, tmp_path / name), alone.after, alone.before)
        apart = zip(engine.logprobs(examples), alone.engine.logprobs(examples), strict=True)
        assert max(np.abs(own - wanted).max() for own, wanted in apart) < 1e-5
        engine.close()


@pytest.mark.parametrize("zero", [2, 3])
def test_mixtures_of_experts_are_fitted_alike(two: Open, tokenizer: Any, tmp_path: Path, zero: int) -> None:
    architecture = {
        **{"model_type": "qwen3_moe", "hidden_size": 32, "moe_intermediate_size": 16, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64},
        **{"num_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32, "initializer_range": 0.08},
    }
    checkpoint.save(random_model(architecture, tokenizer, seed=0), tokenizer, tmp_path / "moe")
    alone = Single(tmp_path / "moe", NLL(), EXAMPLES)
    engine = two(zero, source=tmp_path / "moe")
    assert_same_steps(steps(engine, range(FEW)), alone.taken)
    assert_same(weights(engine, alone.after, tmp_path / "state"), alone.after, alone.before)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_bf16_computes_and_fp32_is_kept(two: Open, tiny: Path, tmp_path: Path, zero: int) -> None:
    """Neither the weights a fit begins with nor small steps are rounded."""
    before = TorchEngine(tiny, NLL(), OPTIM, steps=1, device="cpu").weights()
    engine = two(zero, optim=replace(OPTIM, lr=1e-6, dtype="bfloat16"))
    start = weights(engine, before, tmp_path / "start")
    assert all(start[name].equal(tensor) for name, tensor in before.items())
    taken = steps(engine, range(3))
    after = weights(engine, before, tmp_path / "after")
    for name, tensor in before.items():
        assert 0 < (after[name] - tensor).abs().max() < 1e-5, name
    exact = steps(TorchEngine(tiny, NLL(), replace(OPTIM, lr=1e-6), steps=STEPS, device="cpu"), range(3))
    assert [one.loss for one in taken] == pytest.approx([one.loss for one in exact], rel=0.02)


def test_a_full_disk_is_told_and_ends_all_ranks(tiny: Path, tmp_path: Path) -> None:
    group = Group("limited:serve", 2)
    trainer = Trainer("deepspeed", 2, 3)
    engine = DeepSpeedEngine(start_of(tiny, NLL(), OPTIM), NLL(), OPTIM, steps=1, trainer=trainer, group=group)
    with pytest.raises(OSError, match="File too large"), replacing(tmp_path / "checkpoint") as folder:
        engine.save(folder)
    assert not group and list(tmp_path.iterdir()) == []


def test_a_model_no_rank_can_load_is_told(group: Group, two: Open, tmp_path: Path, tiny: Path) -> None:
    shutil.copytree(tiny, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").unlink()
    with pytest.raises(OSError, match="no file named"):
        two(source=tmp_path / "broken")
    assert not group
