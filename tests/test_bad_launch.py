"""Where a run is to happen, and cannot: one line before anything heavy starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from selftrain import machine
from selftrain.checks.launch import check_heads_divide, check_interpreters, check_replicas
from selftrain.checks.writers import check_samplers
from selftrain.cli import main
from selftrain.config import ConfigError, load_config
from selftrain.schema import RunConfig

TINY = Path(__file__).parent / "tiny.yaml"


def config(*overrides: str) -> RunConfig:
    return load_config(TINY, list(overrides))


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: ("0", "1", "2", "3"))


def vllm(ranks: int) -> list[str]:
    return ["grow.draft.sampler=vllm", f"grow.draft.sampler.tensor_parallel_size={ranks}"]


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([*vllm(2), "launch.sample.replicas=3"], r"sample\.replicas: 3 replicas of 2 GPU\(s\) each need 6, and there"),
        (vllm(8), r"draft\.sampler\.tensor_parallel_size: an engine needs 8 GPUs, and there are 4"),
        (["launch.score_processes=5"], r"^launch\.score_processes: 5 for 4 GPUs, one each; set it to 4$"),
        (["launch.sample.replicas=5"], r"sample\.replicas: 5 replicas of 1 GPU\(s\) each need 5, and there are 4"),
        (["grow.draft.sampler.device=cuda:1", "launch.sample.replicas=2"], r"draft\.sampler\.device: cuda:1 is one"),
    ],
)  # fmt: skip
def test_more_than_there_is(overrides: Sequence[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_replicas(config(*overrides))


@pytest.mark.usefixtures("four")
def test_what_there_is_room_for() -> None:
    check_replicas(config(*vllm(2)))
    check_replicas(config(*vllm(2), "launch.sample.replicas=2", "launch.keep=run", "launch.sample.sleep=2"))


@pytest.mark.usefixtures("four")
def test_a_dry_run_tells_what_another_machine_would_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = ["launch.sample.replicas=8", "launch.score_processes=8", "launch.train={engine: deepspeed, processes: 8}"]
    asked = ["run", str(TINY), f"run.folder={tmp_path}", *many]
    assert main([*asked, "--dry-run"]) == 0
    plan, lacking = capsys.readouterr().out.split("not on this machine, where a run is refused:\n")
    assert "launch: 8 engines draw; 8 processes of DeepSpeed fit, ZeRO-2" in plan
    named = [line.partition(":")[0] for line in lacking.splitlines()]
    assert named == ["  launch.score_processes", "  launch.sample.replicas", "  launch.train.processes"]
    assert main(asked) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not any(tmp_path.iterdir())


def test_sleep_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match=r"launch\.sample\.sleep: an engine gives up the memory of a GPU, and"):
        check_replicas(config("launch.sample.sleep=1", "launch.keep=run"))
    check_replicas(config("launch.sample.sleep=0", "launch.keep=run"))
    with pytest.raises(ConfigError, match=r"launch\.sample\.sleep: must be 0, 1 or 2, got 3"):
        config("launch.sample.sleep=3")


@pytest.mark.parametrize(
    ("ranks", "groups", "said"),
    [(3, 8, "3 does not divide the 8 attention heads of .*; choose one of 1, 2, 4, 8$"),
     (2, 3, "2 does not divide the 8 attention heads in 3 groups of"), (4, 2, None), (2, 4, None)],
)  # fmt: skip
def test_ranks_that_do_not_divide_the_heads(ranks: int, groups: int, said: str | None) -> None:
    from transformers import Qwen3Config

    def policy() -> Any:
        return Qwen3Config(num_attention_heads=8, num_key_value_heads=groups)

    asked = config(*vllm(ranks))
    if said is None:
        check_heads_divide(asked, policy)
        return
    with pytest.raises(ConfigError, match=rf"grow\.draft\.sampler\.tensor_parallel_size: {said}"):
        check_heads_divide(asked, policy)


def script(folder: Path, body: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("exit 3", "has no selftrain that works: it says nothing"),
        (f"exec {sys.executable} -I -S \"$@\"", "has no selftrain that works: ModuleNotFoundError: No module named"),
        ("echo '\"0.0.1\"'", r"has selftrain 0\.0\.1, and this is .*; install the same"),
    ],
)  # fmt: skip
def test_an_interpreter_that_cannot_run_a_stage(body: str, said: str, tmp_path: Path) -> None:
    named = script(tmp_path, body)
    with pytest.raises(ConfigError, match=rf"launch\.python\.improve: '{named}' {said}"):
        check_interpreters(config("launch.place=processes", f"launch.python.improve={named}"))


def test_interpreters_that_lead_nowhere(tmp_path: Path) -> None:
    place = "launch.place=processes"
    with pytest.raises(ConfigError, match=r"launch\.python\.grow: there is no '/nowhere/python'"):
        check_interpreters(config(place, "launch.python.grow=/nowhere/python"))
    with pytest.raises(ConfigError, match=r"launch\.python\.grov: no such stage \(did you mean 'grow'\?\)"):
        check_interpreters(config(place, f"launch.python.grov={sys.executable}"))
    with pytest.raises(ConfigError, match=r"launch\.python\.grow: a stage of this process runs under its interp"):
        check_interpreters(config(f"launch.python.grow={sys.executable}"))


def test_an_interpreter_of_a_stage_that_the_run_does_not_have() -> None:
    """A learner's name that is not one would leave its stage to the run's own interpreter."""
    place = "launch.place=processes"
    with pytest.raises(ConfigError, match=r"launch\.python\.improve-polic: no such stage \(did you mean 'improve-pol"):
        check_interpreters(config(place, f"launch.python.improve-polic={sys.executable}"))
    check_interpreters(config(place, f"launch.python.improve-policy={sys.executable}"))


@pytest.mark.usefixtures("four")
def test_an_engine_that_ends_does_not_sleep() -> None:
    with pytest.raises(ConfigError, match=r"launch\.sample\.sleep: with launch\.keep: stage engines end before a fit"):
        check_replicas(config("launch.sample.sleep=2"))


def test_an_engine_that_is_not_installed_is_lacking_here_and_no_such_device_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    with pytest.raises(ConfigError, match=r"^grow\.draft\.sampler\.device: "):
        check_samplers(config("grow.draft.sampler.device=gpu"), told.append)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_samplers(config("grow.draft.sampler=vllm"), told.append)
    assert [one.partition(";")[0] for one in told] == ["grow.draft.sampler.kind: vllm is not installed here"]


def test_nothing_stays_where_each_stage_is_a_process() -> None:
    with pytest.raises(
        ConfigError, match=r"launch\.keep: with launch\.place: processes a stage ends with all it holds"
    ):
        check_replicas(config("launch.place=processes", "launch.keep=run"))
