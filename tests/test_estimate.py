"""`selftrain estimate`: counts, speeds and costs before a run, and what a run took beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selftrain.artifacts import RunDir
from selftrain.checks.estimate import Asked, estimate
from selftrain.checks.workload import Assumed, Workload
from selftrain.cli import main
from selftrain.config import ConfigError, load_config
from selftrain.estimating.disk import Kept, checkpoints, records
from selftrain.estimating.hardware import PROFILES, hardware
from selftrain.estimating.memory import Sampler
from selftrain.estimating.shapes import known, shape_of
from selftrain.estimating.speed import Speeds, forward_flops, sampling_speed, training_speed
from selftrain.estimating.work import Work, total_seconds
from selftrain.session import Session
from selftrain.spending.tokens import spent

ROOT = Path(__file__).resolve().parent.parent
SMOKE, TINY = ROOT / "configs" / "smoke.yaml", Path(__file__).with_name("tiny.yaml")
SMALL = ("run.reuse=false", "loop.iterations=1", "warmup=null", "grow.draft.n=6", "learners.policy.optim.steps=2")
SCRIPTED = ("grow.draft.sampler={kind: scripted, accuracy: 0.5, batch_size: null}", "grow.draft.max_tokens=30")


@pytest.fixture
def works(tmp_path: Path) -> dict[str, Work]:
    with Session(load_config(SMOKE), RunDir(tmp_path)) as session:
        return {work.stage: work for work in Workload(session, Assumed(20, 0.25)).works()}


def test_samples_and_tokens_are_those_of_the_plan(works: dict[str, Work]) -> None:
    assert list(works) == ["warmup-policy", "grow", "score", "improve-policy", "evaluate"]
    grow, evaluate = works["grow"], works["evaluate"]
    assert (grow.times, grow.samples, grow.drawn) == (2, 1600, 1600 * 20)
    assert (evaluate.times, evaluate.samples, evaluate.drawn) == (3, 3 * 250, 3 * 250 * 20)
    warmup, improve = works["warmup-policy"], works["improve-policy"]
    assert (warmup.steps, improve.steps, improve.times) == (300, 120, 2)
    # One right sample a problem and 200 demonstrations: 600 sequences, 32 a step, of prompt and response.
    per_sequence = improve.read / (120 * 32)
    prompt = grow.prompts / 400
    gold = warmup.read / (300 * 32)
    assert per_sequence == pytest.approx((400 * (prompt + 20) + 200 * gold) / 600, rel=0.02)
    assert 4 < prompt < 8 and 12 < gold < 30


@pytest.mark.parametrize(
    ("override", "stage", "samples"),
    [
        ("grow.draft.enough=2", "grow", 400 * 4),
        ("tasks.arithmetic.sampling.n=3", "grow", 400 * 3),
        ("grow.draft.prompts=100", "grow", 100 * 4),
        ("evaluate.greedy=false", "evaluate", 250 * 2),
    ],
)
def test_what_changes_the_counts(override: str, stage: str, samples: int, tmp_path: Path) -> None:
    with Session(load_config(SMOKE, [override]), RunDir(tmp_path)) as session:
        works = {work.stage: work for work in Workload(session, Assumed(20, 0.25)).works()}
    assert works[stage].samples == samples


def test_epochs_follow_from_what_is_kept(tmp_path: Path) -> None:
    given = ["learners.policy.optim.steps=null", "learners.policy.optim.epochs=2", "learners.policy.examples.gold=null"]
    with Session(load_config(SMOKE, given), RunDir(tmp_path)) as session:
        for accepted, kept in ((0.25, 400), (0.5, 800), (1.0, 800)):  # A cap of two a problem.
            work = Workload(session, Assumed(20, accepted)).improve("policy")
            assert work.steps == pytest.approx(2 * kept / 32)


def test_seconds_are_tokens_by_speeds_and_are_not_known_where_one_is_missing() -> None:
    work = Work("grow", 3, drawn=1000, read=500, scored=300, prompts=60)
    assert work.tokens == 4500
    speeds = Speeds(sample=100, train=50)
    assert work.seconds(speeds) == pytest.approx(3 * (10 + 10 + 360 / 150))
    assert work.seconds(replace(speeds, score=30)) == pytest.approx(3 * (10 + 10 + 360 / 30))
    assert work.seconds(Speeds(sample=100)) is None
    assert total_seconds([work, Work("x", 1)], speeds) == work.seconds(speeds)
    assert total_seconds([work], Speeds(train=1)) is None


def test_speeds_follow_from_arithmetic_and_from_bandwidth() -> None:
    shape, machine = shape_of(known("Qwen/Qwen2.5-7B")), PROFILES["H100"]
    assert forward_flops(shape, 0) == 2 * shape.active
    plain = training_speed(shape, machine, 8, 1000, checkpointing=False)
    assert plain == pytest.approx(8 * 0.4 * 989e12 / (6 * (shape.active + 28 * 3584 * 1000)))
    assert training_speed(shape, machine, 8, 1000, checkpointing=True) == pytest.approx(plain * 3 / 4)
    one = sampling_speed(shape, machine, Sampler(80e9, sequences=1), 1, 100, 200)
    # One response at a time reads all weights for every token.
    assert one == pytest.approx(0.6 * 3.35e12 / (2 * (shape.active + 200 * shape.kv_values)))
    assert 100 * one < sampling_speed(shape, machine, Sampler(80e9, sequences=256), 1, 100, 200) < 256 * one


def test_disk_holds_what_loop_keep_leaves() -> None:
    assert records(10, 1000) == 10 * 250 + 3000
    assert checkpoints(100, Kept(5)) == 2000 and checkpoints(100, Kept(5, keep=2)) == 1600
    assert checkpoints(100, Kept(50, keep=2, states=True), warmups=1) == 3 * 400 * 5 + 400


def test_profiles_come_by_name_or_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "gpu.yaml"
    path.write_text("flops: 1.0e+15\nmemory: 48e9\nbandwidth: 2.0e+12\nper_node: 4\n")
    assert (hardware(str(path)).memory, hardware(str(path)).per_node, hardware(str(path)).utilisation) == (48e9, 4, 0.4)
    for text, told in (("flops: 1", "a mapping with bandwidth"), (path.read_text() + "utilisation: 2", "is a share")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=told):
            hardware(str(path))
    with pytest.raises(ConfigError, match=r"no profile \(did you mean 'H100'"):
        hardware("H10")


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["estimate", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_the_command_tells_time_cost_and_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--sample-tokens-per-s", 1000, "--train-tokens-per-s", 500, "--price", 2, "--gpus", 4)
    plain = said(capsys, SMOKE)
    assert "362,112 parameters, 3 layers of 96, 19 tokens" in plain and "time: give --probe, --hardware" in plain
    told = said(capsys, SMOKE, *given, "--response-tokens", 20, "--accepted", 0.25, "grow.draft.n=1")
    assert " on 4 GPUs: " in told and "at 2 a GPU-hour" in told and "responses of 20 tokens" in told
    (grow,) = (line.split() for line in told.splitlines() if line.split()[:1] == ["grow"])
    assert grow[:4] == ["grow", "2", "800", "16,000"]
    large = said(capsys, SMOKE, "--hardware", "H100", "--shape", "Qwen/Qwen2.5-7B")
    assert "too large: fit of policy takes 1" in large and "divide it among more GPUs" in large


def test_the_command_refuses_what_means_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for given, told in (
        (["--hardware", "H1000"], "--hardware H1000: no such file"),
        (["--shape", "Qwen/none"], "--shape Qwen/none: no such file, and no known model"),
        (["--gpus", "0"], "--gpus: must be at least 1"),
    ):
        assert main(["estimate", str(SMOKE), *given]) == 2
        assert told in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["estimate", str(SMOKE), "--accepted", "2"])
    assert "--accepted: must be a share, from 0 to 1, got 2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["estimate", "--help"])
    assert "selftrain estimate configs/quickstart.yaml --probe" in capsys.readouterr().out


def test_a_probe_measures_this_machine_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, TINY, f"run.folder={tmp_path}", "--probe")
    (line,) = (line for line in told.splitlines() if line.strip().startswith("tokens per second"))
    speeds = [float(part.split()[0].replace(",", "")) for part in line.partition(": ")[2].split(", ") if part]
    assert len(speeds) == 3 and min(speeds) > 10 and "GPU-hours" in told
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("taken")
    given = [*SMALL, *SCRIPTED, f"run.folder={folder}", "run.name=taken", f"model={{path: {tiny}}}"]
    assert main(["run", str(TINY), *given, "model.architecture=null", "model.alphabet=null"]) == 0
    return RunDir(folder / "taken")


def test_after_a_run_the_estimate_stands_beside_what_it_took(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    taken = {number: spent(run, number) for number in run.iterations()}
    mean = taken[1]["grow"] / (24 * 6)
    told = said(
        capsys, run.root, "--response-tokens", mean, "--sample-tokens-per-s", 10_000, "--train-tokens-per-s", 100
    )
    rows: dict[str, Any] = {line.split()[0]: line.split() for line in told.splitlines() if line.strip()}
    assert rows["grow"][1] == rows["grow"][2] and rows["grow"][3] == "1.00"
    assert int(rows["evaluate"][2].replace(",", "")) == taken[0]["evaluate"] + taken[1]["evaluate"]
    assert 0.9 < float(rows["evaluate"][3]) < 1.1 and 0.8 < float(rows["improve-policy"][3]) < 1.25
    assert float(rows["grow"][-1]) > 0


def test_a_model_that_nobody_knows_needs_a_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    given = ["model={path: nobody/knows, architecture: null, alphabet: null}", "warmup=null"]
    with Session(load_config(SMOKE, given), RunDir(tmp_path)) as session:
        with pytest.raises(ConfigError, match="name of a known shape, with --shape"):
            estimate(session, Asked())
        found = estimate(session, Asked(shape="Qwen/Qwen2.5-0.5B"))
    assert found.shape.parameters == 494_032_768 and not found.counted and found.fits is None
