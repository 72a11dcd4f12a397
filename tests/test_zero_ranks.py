"""Ranks of the DeepSpeed trainer: what they hold as they begin, what they need to the end, how they end together."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fitting import EXAMPLES
from safetensors.torch import load_file
from seen import DYING, WHOLE

from selftrain.models.head_form import HeadForm
from selftrain.objectives.nll import NLL
from selftrain.objectives.values import MSE
from selftrain.schema import Optim, Trainer
from selftrain.training import state
from selftrain.training.data import micro_batches, totals
from selftrain.training.engine import Objective
from selftrain.training.fit import Fit, Resident, fit
from selftrain.training.group import Group
from selftrain.training.zero.engine import DeepSpeedEngine, start_of
from selftrain.workers import WorkerDied

OPTIM = Optim(lr=1e-3, steps=1, batch_size=4, dtype="float32")
VALUED = [replace(one, targets=(*(math.nan for _ in one.response_ids[1:]), 0.5)) for one in EXAMPLES[:8]]
"""With a target at the last token."""


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    opened = Group("seen:serve", 2)
    yield opened
    opened.close()


def opened(
    group: Group,
    source: Path,
    zero: int,
    objective: Objective | None = None,
    optim: Optim = OPTIM,
    offload: Any = "none",
    **start: Any,
) -> DeepSpeedEngine:
    chosen = objective or NLL()
    trainer = Trainer("deepspeed", 2, zero, offload)
    return DeepSpeedEngine(
        start_of(source, chosen, optim, **start), chosen, optim, steps=1, trainer=trainer, group=group
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_zero_3_never_has_the_whole_model_on_a_device(group: Group, tiny: Path, dtype: Any) -> None:
    for zero, whole in ((2, True), (3, False)):
        group.ask((WHOLE, ()))
        opened(group, tiny, zero, optim=replace(OPTIM, dtype=dtype)).close()
        assert [("Reading" in moved) for moved in group.ask((WHOLE, ()))] == [whole, whole]


@pytest.mark.parametrize("objective", [NLL(), MSE()], ids=["policy", "values"])
def test_ranks_that_stay_outlive_the_checkpoint_they_began_with(
    group: Group, tiny: Path, tmp_path: Path, objective: Objective
) -> None:
    """As `loop.keep` removes it some iterations later."""
    head = HeadForm() if "values" in objective.needs else None
    shutil.copytree(tiny, tmp_path / "0")
    resident = Resident(opened(group, tmp_path / "0", 3, objective, head=head))
    for number in (1, 2):
        source, target = tmp_path / f"{number - 1}", tmp_path / f"{number}"
        asked = Fit(source, target, tmp_path / "log", objective, OPTIM, seed=0, resident=resident)
        list(fit(VALUED, replace(asked, head=head if number == 1 else None)))
        shutil.rmtree(source)
        assert json.loads((target / "config.json").read_text())["model_type"] == "qwen3"
    assert load_file(tmp_path / "2" / "model.safetensors").keys()


@pytest.mark.parametrize(("zero", "offload"), [(1, "none"), (2, "optimizer"), (3, "none")])
def test_a_fit_in_bf16_goes_on_to_the_same_bits(
    group: Group, tiny: Path, tmp_path: Path, zero: int, offload: Any
) -> None:
    optim = replace(OPTIM, dtype="bfloat16")
    laid = micro_batches(VALUED, batching="bucketed", max_tokens=100, pad=0, shares=2)
    undisturbed = opened(group, tiny, zero, optim=optim, offload=offload)
    for step in range(4):
        if step == 2:
            undisturbed.save_state(tmp_path / "half", state.ALL)
        undisturbed.step(laid)
    undisturbed.save_state(tmp_path / "whole", state.ALL)
    again = opened(group, tiny, zero, optim=optim, offload=offload)
    again.load_state(tmp_path / "half")
    for _ in range(2):
        again.step(laid)
    again.save_state(tmp_path / "again", state.ALL)
    mine, whole = (load_file(tmp_path / name / "part-00000.safetensors") for name in ("again", "whole"))
    assert mine.keys() == whole.keys() and all(tensor.equal(whole[name]) for name, tensor in mine.items())


def test_a_rank_that_is_killed_ends_all_and_its_end_is_what_is_told(group: Group, tiny: Path) -> None:
    engine = opened(group, tiny, 2)
    laid = micro_batches(VALUED, batching="bucketed", max_tokens=100, pad=0, shares=2)
    asked = [(f"{DYING}step", (share, totals(laid), 1e-3, 0)) for share in engine._shared(laid)]
    with pytest.raises(WorkerDied, match="was killed by SIGKILL"):
        group.ask_each(asked)
    assert not group


def test_what_deepspeed_asserts_is_an_error_that_a_run_tells(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"overlap_comm": true}}')
    trainer = Trainer("deepspeed", 1, 1, config=str(tmp_path / "ds.json"))
    with pytest.raises(ValueError, match="DeepSpeed refuses these settings: managed_gradient_accumulation=False"):
        DeepSpeedEngine(start_of(tiny, NLL(), OPTIM), NLL(), OPTIM, steps=1, trainer=trainer)
