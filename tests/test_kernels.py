"""What fits compute with: options are speed alone, those that are not here are refused, and results stay the same."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from selftrain import cli
from selftrain.checks.kernels import check_kernels
from selftrain.config import ConfigError, load_config
from selftrain.models import attention, options
from selftrain.models.logprobs import Positions, batch_logprobs, cut_logprobs
from selftrain.objectives.nll import NLL
from selftrain.objectives.terms import Mean, Tally, read_numbers
from selftrain.planning import fingerprints
from selftrain.schema import Kernels, Optim
from selftrain.training import kernels
from selftrain.training.data import MicroBatch, micro_batches, moved
from selftrain.training.engine import Step, TorchEngine
from selftrain.types import Example

PACKED = Optim(lr=1e-3, warmup=0.0, dtype="float32", batching="packed", gradient_checkpointing=True)
QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(6):
        prompt, response = (tuple(rng.integers(3, 19, rng.integers(2, 9)).tolist()) for _ in range(2))
        made.append(Example(f"e{number}", f"p{number}", "own", prompt, response))
    return made


def batches(examples: list[Example]) -> list[MicroBatch]:
    return micro_batches(examples, batching="packed", max_tokens=40, pad=0)


def steps(tiny: Path, examples: list[Example], chosen: Kernels, optim: Optim = PACKED) -> list[Step]:
    engine = TorchEngine(tiny, NLL(), optim, steps=3, device="cpu", kernels=chosen)
    return [engine.step(batches(examples)) for _ in range(2)]


def assert_alike(found: list[Step], expected: list[Step], tolerance: float) -> None:
    assert expected[0].loss != pytest.approx(expected[1].loss, rel=1e-3)
    for one, other in zip(found, expected, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=tolerance)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=10 * tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_varlen_makes_the_steps_of_sdpa(tiny: Path, examples: list[Example], dtype: Any, tolerance: float) -> None:
    optim = replace(PACKED, dtype=dtype)
    expected = steps(tiny, examples, Kernels(), optim)
    assert_alike(steps(tiny, examples, Kernels(attention="varlen"), optim), expected, tolerance)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_layers_make_the_steps_of_plain_ones(tiny: Path, examples: list[Example]) -> None:
    torch._dynamo.reset()
    expected = steps(tiny, examples, Kernels())
    assert_alike(steps(tiny, examples, Kernels(compile=True)), expected, 1e-5)


def test_on_a_cpu_auto_is_what_it_was(tiny: Path) -> None:
    engine = TorchEngine(tiny, NLL(), PACKED, steps=1, device="cpu")
    assert attention.in_use(engine.model) == "sdpa" and kernels.candidates(engine.model, torch.bfloat16) == ["sdpa"]


def test_auto_takes_the_first_that_works(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = ["flash_attention_3", "flash_attention_2", "varlen", "sdpa"]
    monkeypatch.setattr(kernels, "candidates", lambda model, compute: tried)
    for optim, expected in ((PACKED, "varlen"), (replace(PACKED, batching="bucketed"), "sdpa")):
        engine = TorchEngine(tiny, NLL(), optim, steps=1, device="cpu")
        assert attention.in_use(engine.model) == expected


@pytest.mark.parametrize("name", attention.FLASH)
def test_flash_attention_that_is_not_here_is_an_error(tiny: Path, name: Any) -> None:
    with pytest.raises(ValueError, match=rf"launch\.kernels\.attention: {name} cannot be had: there is no NVIDIA GPU"):
        TorchEngine(tiny, NLL(), PACKED, steps=1, device="cpu", kernels=Kernels(attention=name))


def test_cut_cross_entropy_gets_every_token_and_no_filter(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package needs a GPU: in its place stands a function with its signature that computes plainly."""

    def linear(e: Any, c: Any, targets: Any, *, reduction: str, filter_eps: float | None = -1.0, **others: bool) -> Any:
        assert e.dtype == c.dtype and filter_eps is None and others == {"accum_e_fp32": True, "accum_c_fp32": True}
        return cross_entropy(e @ c.T, targets, reduction=reduction)

    package: Any = ModuleType("cut_cross_entropy")
    package.linear_cross_entropy = linear
    monkeypatch.setitem(sys.modules, "cut_cross_entropy", package)
    engine = TorchEngine(tiny, NLL(), PACKED, steps=1, device="cpu")
    ids = torch.arange(3, 15)[None]
    positions = Positions(torch.arange(11), ids[0, 1:])
    plain = batch_logprobs(engine.model, ids, None, positions, 0.7)
    assert torch.allclose(batch_logprobs(engine.model, ids, None, positions, 0.7, cut=True), plain, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cut_logprobs(torch.randn(4, 32), engine.model.get_output_embeddings().weight, ids[0, :4])
    assert found.dtype == torch.float32 and found.shape == (4,)


HERE: dict[str, Any] = {"gpu": True, "has": lambda package: True}


@pytest.mark.parametrize(
    ("name", "has", "gpu", "reason"),
    [
        ("flash_attention_2", True, False, "there is no NVIDIA GPU here"),
        ("flash_attention_3", False, True, "not installed: pip install flash-attn-3"),
        ("nf4", False, True, "not installed: pip install bitsandbytes accelerate"),
        ("cut_cross_entropy", True, True, None),
        ("compile", False, True, "on a GPU it needs Triton, which PyTorch's CUDA builds bring along: install one"),
        ("compile", True, True, None),
    ],
)
def test_what_is_lacking_is_said(name: str, has: bool, gpu: bool, reason: str | None) -> None:
    assert options.lacking(name, lambda package: has, gpu) == reason


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            ["launch.kernels.attention=flash_attention_2"],
            r"launch\.kernels\.attention: flash_attention_2 cannot be had",
        ),
        (
            ["launch.kernels.loss=cut_cross_entropy"],
            r"launch\.kernels\.loss: cut_cross_entropy cannot be had: there is",
        ),
        (["learners.policy.lora.base=nf4"], r"learners\.policy\.lora\.base: nf4 cannot be had"),
    ],
)
def test_what_cannot_be_had_is_refused_before_a_run(changes: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_kernels(load_config(QUICKSTART, changes))


def test_what_computes_in_bfloat16_is_refused_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftrain.checks.kernels.lacking", lambda name: None)
    config = load_config(QUICKSTART, ["launch.kernels.loss=cut_cross_entropy", "learners.policy.optim.dtype=float32"])
    with pytest.raises(ConfigError, match=r"computes in bfloat16, and learners\.policy\.optim\.dtype is float32"):
        check_kernels(config)


def test_kernels_make_no_stage_stale_and_a_base_in_4_bits_does() -> None:
    chosen = ["launch.kernels.attention=varlen", "launch.kernels.compile=true", "launch.kernels.loss=cut_cross_entropy"]
    base = ["learners.policy.lora.r=4"]
    plain, other, rounded = (
        load_config(QUICKSTART, [*base, *more]) for more in ([], chosen, ["learners.policy.lora.base=nf4"])
    )
    for stage in (fingerprints.grow, fingerprints.score, fingerprints.evaluate):
        assert stage(plain) == stage(other)
    assert fingerprints.improve(plain, "policy") == fingerprints.improve(other, "policy")
    assert fingerprints.improve(plain, "policy") != fingerprints.improve(rounded, "policy")


def test_doctor_tells_what_can_be_had(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in options.OPTIONS)
    assert "flash_attention_2  there is no NVIDIA GPU here (launch.kernels.attention)" in told


def test_a_micro_batch_moves_as_a_whole(examples: list[Example]) -> None:
    (batch,) = micro_batches(examples, batching="packed", max_tokens=999, pad=0)
    assert moved(batch, "cpu") is batch
    there = moved(batch, "meta")
    assert there.lengths == batch.lengths == tuple(len(e.prompt_ids) + len(e.response_ids) for e in ordered(examples))
    tensors = [getattr(part, f.name) for part in (there, there.terms) for f in fields(part)]
    tensors += [there.positions.index, there.positions.targets]
    devices = {tensor.device.type for tensor in tensors if isinstance(tensor, torch.Tensor)}
    assert devices == {"meta"} and batch.input_ids.device.type == "cpu"


def ordered(examples: list[Example]) -> list[Example]:
    return sorted(examples, key=lambda one: len(one.prompt_ids) + len(one.response_ids))


def test_numbers_are_read_together_and_to_the_last_bit() -> None:
    whole, exact = torch.tensor([3], dtype=torch.int64), torch.tensor(0.1, dtype=torch.float64)
    assert (
        read_numbers([torch.tensor(0.1), 2.0, whole, exact]) == [torch.tensor(0.1).item(), 2.0, 3.0, 0.1]
        and read_numbers([]) == []
    )
    tally = Tally()
    tally.add({"a": Mean(torch.tensor(1.5), torch.tensor(2.0)), "b": Mean(1.0, 0.0)})
    tally.add({"a": Mean(0.5, 2.0)})
    assert tally.totals == {"a": [2.0, 4.0], "b": [1.0, 0.0]} and tally.means() == {"a": 0.5}
