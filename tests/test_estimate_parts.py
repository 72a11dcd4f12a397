"""Parts of an estimate: what a GPU holds in each way to compute, what lies on disk, and what a probe measures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selftrain.artifacts import RunDir
from selftrain.checks.estimate import Asked, Estimate, estimate
from selftrain.checks.probe import probe
from selftrain.config import load_config
from selftrain.estimating import memory
from selftrain.estimating.hardware import PROFILES
from selftrain.estimating.launch import Placed
from selftrain.estimating.memory import Sampler, Trainer, chunk, deepspeed_states, torch_states
from selftrain.estimating.shapes import Shape, known, shape_of
from selftrain.estimating.speed import sampling_speed
from selftrain.models import logprobs
from selftrain.report.estimates import memory_lines
from selftrain.session import Session

SMOKE, TINY = Path(__file__).resolve().parent.parent / "configs" / "smoke.yaml", Path(__file__).with_name("tiny.yaml")
VLLM = ("grow.draft.sampler={kind: vllm}", "grow.draft.max_tokens=1024")


@pytest.fixture(scope="module")
def seven() -> Shape:
    return shape_of(known("Qwen/Qwen2.5-7B"))


def test_a_chunk_of_logits_is_as_large_as_the_loss_takes_it(seven: Shape) -> None:
    assert (memory.CHUNK_LOGITS, memory.CHUNK_LOGITS_GPU) == (logprobs.CHUNK_LOGITS, logprobs.CHUNK_LOGITS_GPU)
    vocabulary, trainer = seven.vocabulary, Trainer(micro_tokens=8192)
    gradients = 2 * 2 * vocabulary * seven.hidden
    assert chunk(seven, trainer) == 12 * (2**27 // vocabulary) * vocabulary + gradients
    assert chunk(seven, replace(trainer, gpu=False, bf16=False)) == 12 * (2**24 // vocabulary) * vocabulary + (
        2 * gradients
    )
    assert chunk(seven, replace(trainer, micro_tokens=100)) == 12 * 100 * vocabulary
    assert chunk(seven, replace(trainer, trained=1000)) == 12 * (2**27 // vocabulary) * vocabulary


def test_a_gpu_keeps_no_rounded_weights_where_activations_are_computed_again(seven: Shape) -> None:
    assert sum(torch_states(seven, Trainer(checkpointing=True)).values()) == 16 * seven.parameters
    assert sum(torch_states(seven, Trainer(checkpointing=True, gpu=False)).values()) == 18 * seven.parameters


def test_zero_1_in_bf16_has_the_sum_of_gradients_whole_on_every_rank(seven: Shape) -> None:
    """What `BF16_Optimizer` holds, in bytes for each of its parameters."""
    bf16, fp32 = (deepspeed_states(seven, Trainer("deepspeed", 8, 1, bf16=bf16)) for bf16 in (True, False))
    assert bf16["gradients"] == (2 + 4) * seven.parameters
    assert fp32["gradients"] == 4 * seven.parameters + 4 * seven.parameters // 8


def test_deepspeed_in_fp32_holds_fp32_weights(seven: Shape) -> None:
    for zero, divided in ((1, 1), (2, 1), (3, 8)):
        own = deepspeed_states(seven, Trainer("deepspeed", 8, zero, bf16=False))
        gathered = 4 * seven.largest if zero == 3 else 0
        assert own["weights"] == 4 * seven.parameters // divided + gathered
        assert own["optimizer"] == 12 * (seven.parameters // 8)


def test_many_responses_read_the_experts_of_all_their_tokens() -> None:
    mixture = shape_of(known("Qwen/Qwen3-30B-A3B"))
    assert mixture.share == 8 / 128 and mixture.met(1) == pytest.approx(mixture.active)
    embedded = 151_936 * 2048
    assert mixture.met(256) == pytest.approx(mixture.parameters - embedded, rel=1e-3)
    dense = shape_of(known("Qwen/Qwen2.5-7B"))
    assert dense.met(256) == dense.active
    # A step of 256 responses reads all weights, and their cache.
    machine, sampler = PROFILES["H200"], Sampler(141e9, sequences=256)
    speed = sampling_speed(mixture, machine, sampler, 1, 100, 200)
    read = 2 * (mixture.met(256) + 256 * 200 * mixture.kv_values)
    assert speed == pytest.approx(256 * 0.6 * 4.8e12 / read)


def found(tmp_path: Path, *given: str, **asked: Any) -> Estimate:
    with Session(load_config(SMOKE, list(given)), RunDir(tmp_path)) as session:
        return estimate(session, Asked(**asked))


def test_an_engine_without_room_for_one_response_does_not_fit(tmp_path: Path) -> None:
    small = replace(PROFILES["H100"], memory=18.1e9)
    where = {"shape": "Qwen/Qwen2.5-7B", "hardware": small, "placed": Placed("deepspeed", 64, 3, offload="parameters")}
    own = found(tmp_path, *VLLM, "evaluate.sampler={kind: vllm}", **where)
    sampling = own.memory[-1]
    assert sampling.total <= own.room and "not one fits" in sampling.told  # type: ignore[operator]
    assert not own.fits
    said = "\n".join(memory_lines(own))
    assert "sampling has no room for one response" in said and "it fits" not in said


def test_where_fits_stand_lies_on_disk_beside_what_is_written_anew(tmp_path: Path) -> None:
    assert "unfinished fits" not in found(tmp_path).disk
    own = found(tmp_path, "launch.train.save_every=10")
    assert own.disk["unfinished fits"] == 2 * 12 * own.shape.parameters


def test_an_adapter_is_reckoned_on_a_model_that_is_described(tmp_path: Path) -> None:
    own = found(tmp_path, "learners.policy.lora={r: 4}", "loop.iterations=1")
    assert own.disk["checkpoints"] < 2 * 4 * own.shape.parameters
    # As on one whose shape alone is given.
    named = ("model={path: nobody/knows, architecture: null, alphabet: null}", "warmup=null")
    assert found(tmp_path, *named, "learners.policy.lora={r: 4}", shape="Qwen/Qwen2.5-0.5B").disk["checkpoints"] > 0


def test_a_probe_measures_the_ranks_and_engines_of_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selftrain.sampling.fleet import Fleet
    from selftrain.training.zero.engine import DeepSpeedEngine

    steps, fleets = [], []
    step = DeepSpeedEngine.step

    def noted(own: DeepSpeedEngine, *args: Any, **kwargs: Any) -> Any:
        steps.append(own.shares)
        return step(own, *args, **kwargs)

    def counted(options: Any, checkpoint: Path, places: Any, *args: Any) -> Any:
        fleets.append(len(places))
        return Fleet(options, checkpoint, places, *args)

    monkeypatch.setattr(DeepSpeedEngine, "step", noted)
    monkeypatch.setattr("selftrain.planning.engine.Fleet", counted)
    launch = ("launch.train={engine: deepspeed, processes: 2, save_every: 1}", "launch.sample.replicas=2")
    config = load_config(TINY, [f"run.folder={tmp_path}", "run.reuse=false", *launch])
    with Session(config, RunDir(tmp_path / "probe")) as session:
        measured = probe(session)
    assert steps == [2] * 6 and fleets == [2]
    assert min(measured.speeds.sample or 0, measured.speeds.train or 0) > 10


def test_trainers_that_stay_are_there_while_the_engine_draws(tmp_path: Path) -> None:
    where = {"shape": "Qwen/Qwen2.5-7B", "hardware": PROFILES["B200"]}
    stays = Placed(keep="run")
    given = (*VLLM, "evaluate.sampler={kind: vllm}", "learners.policy.init=previous", "launch.keep=run")
    beside = found(tmp_path, *given, **where, placed=stays)
    needs = {need.what: need for need in beside.memory}
    assert list(needs) == ["warm-up of policy", "fit of policy", "sampling", "sampling beside trainers that stay"]
    parameters = beside.shape.parameters
    both, sampling = needs["sampling beside trainers that stay"], needs["sampling"]
    assert both.total - sampling.total == (6 + 8) * parameters and not beside.fits
    # Those that begin anew from the base are gone by then.
    assert len(found(tmp_path, *given[:2], "launch.keep=run", **where, placed=stays).memory) == 3


def test_a_warm_up_takes_what_its_own_settings_say(tmp_path: Path) -> None:
    given = ("warmup.policy.optim.micro_tokens=100000", "warmup.policy.optim.batch_size=1000")
    warmup, fit, _ = found(tmp_path, *given).memory
    assert (warmup.what, fit.what) == ("warm-up of policy", "fit of policy")
    assert warmup.parts["activations"] > 3 * fit.parts["activations"]
