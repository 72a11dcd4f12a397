"""What goes wrong while a run goes on costs one sample, or stops the run with what to do; the rerun loses nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kill_driver import Driver, Ended
from one_line import check_stopped

from selftrain import records

CONFIG = Path(__file__).with_name("smaller.yaml")

VERIFIER = '''
"""Accepts every second answer, and does what it must not once per part of its file."""
import os
import signal
import time

ACTS = {acts}


def judge(problem, response):
    number = sum(map(ord, problem.id + response))
    if ACTS and number % 7 == 0:
        act = ACTS[number // 7 % len(ACTS)]
        if act == "raise":
            raise RuntimeError("no such luck")
        if act == "hang":
            time.sleep(600)
        if act == "nan":
            return float("nan")
        os.kill(os.getpid(), signal.SIGKILL)
    return number % 2 == 0
'''

SAMPLER = '''
"""The real sampler, lost after its first batches while a file says so."""
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.sampling.transformers import Transformers


@dataclass(frozen=True)
class Fragile:
    switch: str = ""
    after: int = 2

    def open(self, checkpoint: Path) -> Any:
        return Lost(Transformers(batch_size=8).open(checkpoint), self)


class Lost:
    def __init__(self, real: Any, options: Fragile) -> None:
        self.real, self.options, self.given = real, options, 0

    def sample(self, work: Any, done: Any = ()) -> Any:
        for answers in self.real.sample(work, done):
            if Path(self.options.switch).exists() and self.given == self.options.after:
                raise {error}
            self.given += 1
            yield answers

    def close(self) -> None:
        self.real.close()
'''


class Runs:
    """Runs of the config in forked processes."""

    def __init__(self, driver: Driver, folder: Path) -> None:
        self.driver, self.folder = driver, folder

    def run(self, name: str, *more: str) -> Ended:
        command = ["run", str(CONFIG), f"run.folder={self.folder}", f"run.name={name}", *more]
        return self.driver.run(command)

    def iteration(self, name: str) -> Path:
        return self.folder / name / "iteration_0001"

    def column(self, name: str, kind: str, column: str) -> list[object]:
        """Of all samples of Grow, or their verdicts, part by part."""
        parts = records.parts(self.iteration(name) / kind)
        return [value for part in parts for value in records.column(part, column)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, driver: Driver) -> Runs:
    return Runs(driver, tmp_path_factory.mktemp("running"))


@pytest.fixture(scope="module")
def whole(runs: Runs) -> bytes:
    """The metrics of a run that nothing disturbs."""
    assert runs.run("whole", judged_by_length(runs)).status == 0
    return metrics(runs, "whole")


def test_misbehaving_verifier_costs_the_samples_it_was_at(runs: Runs) -> None:
    verifier = runs.folder / "misbehaving.py"
    verifier.write_text(VERIFIER.replace("{acts}", repr(["raise", "hang", "nan", "kill"])))
    # Scripted responses are the same on every machine.
    settings = (f"tasks.arithmetic.verifier={verifier}:judge", "reward.verify.seconds=0.5", "evaluate.n=0")
    scripted = ("grow.draft.sampler.kind=scripted", "grow.draft.sampler.batch_size=null", "grow.draft.sampler.length=4")
    ended = runs.run("misbehaving", *settings, *scripted, "reward.verify.max_errors=1", "grow.draft.n=2")
    assert ended.status == 0, ended.err
    statuses = runs.column("misbehaving", "verdicts", "status")
    reasons = [str(reason) for reason in runs.column("misbehaving", "verdicts", "reason") if reason]
    for told in ("no such luck", "killed after", "nan", "SIGKILL"):
        assert any(told in reason for reason in reasons), told
    problems, texts = (runs.column("misbehaving", "samples", name) for name in ("problem_id", "text"))
    expected = []
    for problem, text in zip(problems, texts, strict=True):
        number = sum(map(ord, f"{problem}{text}"))
        act = ["error", "timeout", "error", "error"][number // 7 % 4]
        expected.append(act if number % 7 == 0 else "wrong" if number % 2 else "right")
    assert statuses == expected
    selection = json.loads((runs.iteration("misbehaving") / "selection-policy.json").read_text())["sampled"]
    assert selection["not judged (error)"] == expected.count("error")


def test_too_many_errors_stop_the_run_and_lose_no_answer(runs: Runs, whole: bytes) -> None:
    verifier = runs.folder / "failing.py"
    setting = f"tasks.arithmetic.verifier={verifier}:judge"
    verifier.write_text("def judge(problem, response): raise OSError('no server')\n")
    check_stopped(runs.run("failing", setting), "failing.py:judge@", "could not judge 24 of 24", "OSError: no server")
    answers = inodes(runs.folder / "failing" / "iteration_0000")
    assert len(answers) == 2
    verifier.write_text("def judge(problem, response): return 'right'\n")
    check_stopped(runs.run("failing", setting), "returned a str", "mend it", "no sample is lost")
    assert inodes(runs.folder / "failing" / "iteration_0000") == answers
    verifier.write_text(VERIFIER.replace("{acts}", "[]"))
    assert runs.run("failing", setting).status == 0
    assert metrics(runs, "failing") == whole


@pytest.mark.parametrize("part_size", [16, 4096])
def test_verifier_that_comes_back_judges_again_what_it_could_not(runs: Runs, whole: bytes, part_size: int) -> None:
    """What it needs is lost and found again; neither the config nor its file changes."""
    name = f"flaky{part_size}"
    verifier, switch = runs.folder / f"{name}.py", runs.folder / f"{name}.on"
    lost = f"    if problem.split == 'train' and os.path.exists({str(switch)!r}):\n        return 7\n    number ="
    verifier.write_text(VERIFIER.replace("{acts}", "[]").replace("    number =", lost))
    settings = (f"tasks.arithmetic.verifier={verifier}:judge", f"run.part_size={part_size}")
    switch.touch()
    check_stopped(runs.run(name, *settings), "could not judge", "the value 7", "mend it")
    samples = inodes(runs.iteration(name) / "samples")
    assert len(samples) >= 1
    switch.unlink()
    assert runs.run(name, *settings).status == 0
    assert samples.items() <= inodes(runs.iteration(name) / "samples").items()
    assert set(runs.column(name, "verdicts", "status")) == {"right", "wrong"}
    assert metrics(runs, name) == whole


def inodes(folder: Path) -> dict[Path, int]:
    """Of the parts below a folder; a part that is written again has another."""
    return {path: path.stat().st_ino for path in folder.rglob("*.parquet")}


def metrics(runs: Runs, name: str) -> bytes:
    return (runs.folder / name / "metrics.jsonl").read_bytes()


def judged_by_length(runs: Runs) -> str:
    """A verifier that accepts about half, whatever the model has learnt."""
    verifier = runs.folder / "length.py"
    verifier.write_text(VERIFIER.replace("{acts}", "[]"))
    return f"tasks.arithmetic.verifier={verifier}:judge"


def test_learner_without_samples_keeps_its_checkpoint_and_says_so(runs: Runs) -> None:
    other = ("learners.other.examples.none.from=draft", "learners.other.examples.none.reward_above=2")
    ended = runs.run("two", judged_by_length(runs), *other, "learners.other.optim.steps=1")
    assert ended.status == 0, ended.err
    assert "no sample for 'other' was accepted; it keeps its checkpoint" in ended.out
    start = runs.folder / "two" / "warmup" / "policy" / "checkpoint" / "model.safetensors"
    kept = runs.iteration("two") / "other" / "checkpoint" / "model.safetensors"
    trained = runs.iteration("two") / "policy" / "checkpoint" / "model.safetensors"
    assert kept.read_bytes() == start.read_bytes() != trained.read_bytes()


def test_no_sample_at_all_stops_with_what_to_do_and_the_samples_stay(runs: Runs) -> None:
    judge = judged_by_length(runs)
    ended = runs.run("none", judge, "learners.policy.examples.own.reward_above=2")
    check_stopped(ended, "iteration 1: no sample was accepted for any learner", "reward too low", "grow.*.n")
    assert not (runs.iteration("none") / "policy").exists()
    samples = {path: path.stat().st_ino for path in runs.iteration("none").glob("samples/*.parquet")}
    ended = runs.run("none", judge, "learners.policy.examples.own.reward_above=0.5")
    assert ended.status == 0, ended.err
    assert "iteration 1 grow was already done" in ended.out
    assert {path: path.stat().st_ino for path in samples} == samples


@pytest.mark.parametrize("error", ["RuntimeError('device lost')", "ConnectionError('connection refused')"])
def test_lost_sampler_stops_with_what_to_do_and_the_rerun_goes_on(runs: Runs, error: str) -> None:
    name = error.partition("(")[0].lower()
    plugin, switch = runs.folder / f"{name}.py", runs.folder / f"{name}.on"
    plugin.write_text(SAMPLER.replace("{error}", error))
    settings = (
        f"grow.draft.sampler.kind={plugin}:Fragile",
        "grow.draft.sampler.batch_size=null",
        f"grow.draft.sampler.switch={switch}",
        judged_by_length(runs),
    )
    assert runs.run(name, *settings, "--until", "0/evaluate").status == 0
    switch.touch()
    ended = runs.run(name, *settings, "grow.draft.sampler.after=4")
    assert ended.status == 2  # An option of the sampler is a setting of what it sampled.
    assert "sampler.after" in ended.err
    ended = runs.run(name, *settings)
    check_stopped(ended, "the sampler failed", error.partition("'")[2].strip("')"), "the same command goes on")
    samples = {path: path.stat().st_ino for path in runs.iteration(name).glob("samples/*.parquet")}
    assert len(samples) == 1
    switch.unlink()
    assert runs.run(name, *settings).status == 0
    assert {path: path.stat().st_ino for path in samples} == samples
    assert len(set(runs.column(name, "samples", "id"))) == 24 * 4


def test_fit_that_diverges_stops_with_what_to_do(runs: Runs) -> None:
    ended = runs.run("diverged", judged_by_length(runs), "learners.policy.optim.lr=1e38")
    check_stopped(ended, "stage 'improve-policy' failed", "the loss is not finite", "lower optim.lr")
    ended = runs.run("diverged", judged_by_length(runs), "learners.policy.optim.lr=1e-3")
    assert ended.status == 0, ended.err
