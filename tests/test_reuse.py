"""Runs that take the samples and verdicts of another one: when they do, when they must not, and what may go wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kill_driver import Driver, Trap

from selftrain import records
from selftrain.cli import main
from selftrain.types import Sample

SAMPLER = """
from dataclasses import dataclass
from selftrain.sampling.scripted import Scripted


@dataclass(frozen=True)
class Counting(Scripted):
    log: str = ""
    url: str = ""
    speed = ("url",)

    def open(self, checkpoint):
        with open(self.log, "a") as file:
            print(checkpoint, file=file)
        return super().open(checkpoint)
"""
LENIENT = "def verify(problem, response):\n    return '#' in response\n"
CONFIG = """
run: {{name: first, folder: {folder}/runs, part_size: 40}}
model:
  architecture: {{model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1,
                 num_attention_heads: 2, max_position_embeddings: 64}}
  alphabet: "0123456789+-*= #"
tasks:
  arithmetic: {{sizes: {{demonstrations: 10, train: 20, val: 4, test: 6, transfer: 4}}, lengths: [1, 1]}}
warmup: {{policy: {{from: demonstrations, optim: {{steps: 2, batch_size: 8}}}}}}
grow:
  draft:
    {{n: 6, max_tokens: 24, sampler: {{kind: "{folder}/counting.py:Counting", log: "{folder}/log", accuracy: 0.6}}}}
learners: {{policy: {{examples: {{own: {{from: draft, verdict: right, cap: 2}}}}, optim: {{steps: 2, batch_size: 8}}}}}}
evaluate: {{n: 0, sampler: scripted}}
loop: {{iterations: 2}}
launch: {{verify_workers: 1}}
track: {{live: plain}}
"""
SAMPLES = 20 * 6


class Runs:
    """Runs of one config in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, folder / "runs"
        (folder / "counting.py").write_text(SAMPLER)
        (folder / "lenient.py").write_text(LENIENT)
        (folder / "config.yaml").write_text(CONFIG.format(folder=folder))

    def command(self, name: str, *more: str) -> list[str]:
        return ["run", str(self.folder / "config.yaml"), f"run.name={name}", *more]

    def run(self, name: str, *more: str) -> list[int]:
        """The iterations whose Grow opened an engine."""
        (self.folder / "log").write_text("")
        assert main(self.command(name, *more)) == 0
        opened = (self.folder / "log").read_text().splitlines()
        return [2 if "iteration_0001" in line else 1 for line in opened]

    def path(self, name: str, *parts: str) -> Path:
        return self.runs.joinpath(name, *parts)

    def inodes(self, name: str, iteration: int, kind: str = "samples") -> list[int]:
        return [part.stat().st_ino for part in records.parts(self.path(name, f"iteration_{iteration:04d}", kind))]

    def notices(self, name: str) -> list[str]:
        lines = map(json.loads, self.path(name, "events.jsonl").read_text().splitlines())
        return [line["text"] for line in lines if line["event"] == "Notice"]

    def stored(self, kind: str = "") -> list[Path]:
        """Entries of the store: of samples, or of verdicts."""
        found = sorted((self.runs / ".samples").iterdir())
        return [path for path in found if path.name.startswith("verdicts-") == bool(kind)]


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


GROW = ("warmup=null", "--until", "1/verify")


def test_a_sweep_over_selections_samples_the_first_iteration_once(runs: Runs) -> None:
    assert runs.run("first") == [1, 2]
    assert runs.run("second", "learners.policy.examples.own.cap=1") == [2]
    for mark in ("start/start", "warmup/policy/warmup-policy", "iteration_0001/grow", "iteration_0001/verify"):
        assert runs.path("first", f"{mark}.done").read_bytes() == runs.path("second", f"{mark}.done").read_bytes()
    for kind in ("samples", "verdicts"):
        assert runs.inodes("first", 1, kind) == runs.inodes("second", 1, kind)
        assert not set(runs.inodes("first", 2, kind)) & set(runs.inodes("second", 2, kind))
    second = [records.parts(runs.path(name, "iteration_0002", "samples"))[0] for name in ("first", "second")]
    assert len({records.column(part, "policy")[0] for part in second}) == 2
    (told, judged) = runs.notices("second")
    assert told.startswith(f"iteration 1: {SAMPLES} samples taken from {runs.runs}/.samples/")
    assert told.endswith(": run first did the same grow") and f"{SAMPLES} verdicts taken from" in judged


def test_the_same_run_under_another_name_samples_nothing_and_ends_the_same(runs: Runs) -> None:
    runs.run("first")
    assert runs.run("again", "run.part_size=7") == []
    assert runs.path("again", "metrics.jsonl").read_bytes() == runs.path("first", "metrics.jsonl").read_bytes()
    assert [text.split()[3] for text in runs.notices("again")] == ["samples", "verdicts"] * 2
    assert runs.run("again") == [] and len(runs.stored()) == len(runs.stored("verdicts")) == 2


def test_a_stage_in_a_process_of_its_own_takes_them_too(runs: Runs) -> None:
    runs.run("first", *GROW)
    runs.run("second", "warmup=null", "--until", "0/evaluate")
    assert runs.run("second", *GROW, "launch.place=processes") == []
    assert runs.inodes("second", 1) == runs.inodes("first", 1)


OTHERS = (
    "grow.draft.sampler.url=http://127.0.0.1:8001/v1",
    "grow.draft.temperature=0.5",
    "grow.draft.enough=2",
    "run.seed=1",
    "tasks.arithmetic.prompt={template: '{question} '}",
    "tasks.arithmetic.limit.train=19",
    "run.reuse=false",
)


def test_another_grow_is_never_taken(runs: Runs) -> None:
    runs.run("first", *GROW)
    assert [runs.run(f"other {number}", other, *GROW) for number, other in enumerate(OTHERS)] == [[1]] * len(OTHERS)
    assert len(runs.stored()) == len(OTHERS)  # All but what is not to be shared.


def test_another_verifier_keeps_the_samples_and_judges_them_anew(runs: Runs) -> None:
    runs.run("first", *GROW)
    lenient = f"tasks.arithmetic.verifier={runs.folder}/lenient.py:verify"
    assert runs.run("second", lenient, *GROW) == []
    assert runs.run("third", lenient, *GROW) == []
    assert runs.inodes("first", 1) == runs.inodes("second", 1)
    verdicts = [runs.inodes(name, 1, "verdicts") for name in ("first", "second", "third")]
    assert verdicts[0] != verdicts[1] == verdicts[2]
    judged = records.parts(runs.path("second", "iteration_0001", "verdicts"))
    assert sum(records.column(part, "status").count("right") for part in judged) == SAMPLES


def test_where_verdicts_end_a_problem_early_the_verifier_counts(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    early = ("grow.draft.enough=2", *GROW)
    runs.run("first", *early)
    assert runs.run("second", *early) == []
    other = f"tasks.arithmetic.verifier={runs.folder}/lenient.py:verify"
    assert runs.run("third", other, *early) == [1]
    assert runs.run("fourth", "learners.policy.examples.own.dedupe=text", *early) == [1]
    # What one verifier let end early is not another's.
    assert main(runs.command("first", other, *early)) == 2
    assert "(1/grow too)" in capsys.readouterr().err


def test_what_is_redone_is_sampled_and_judged_again(runs: Runs) -> None:
    runs.run("first", *GROW)
    assert runs.run("second", *GROW) == []
    assert runs.run("second", "--redo", "1/grow", *GROW) == [1]
    assert not set(runs.inodes("second", 1)) & set(runs.inodes("first", 1))
    assert runs.run("third", *GROW) == []
    shared = runs.inodes("third", 1, "verdicts")
    assert runs.run("third", "--redo", "1/verify", *GROW) == []
    assert not set(runs.inodes("third", 1, "verdicts")) & set(shared)
    assert runs.inodes("third", 1) == runs.inodes("first", 1)  # The first to share them stays in the store.


Change = Callable[[bytes], bytes] | None
PART, MANIFEST = "draft-00001.parquet", "manifest.json"
DAMAGES: dict[str, tuple[str, Change]] = {
    "missing": (PART, None),
    "torn": (PART, lambda content: content[:-1]),
    "flipped": (PART, lambda content: bytes([content[0] ^ 1]) + content[1:]),
    "unlisted": (MANIFEST, None),
    "half listed": (MANIFEST, lambda content: content[:20]),
}


def spoil(file: Path, change: Change) -> None:
    """Under this name alone: the others of the file stay as they are."""
    content = file.read_bytes()
    file.unlink()
    if change is not None:
        file.write_bytes(change(content))


def test_a_damaged_entry_is_told_and_replaced(runs: Runs) -> None:
    runs.run("first", *GROW)
    (entry,) = runs.stored()
    for name, (file, change) in DAMAGES.items():
        spoil(entry / file, change)
        assert runs.run(name, *GROW) == [1], name
        assert runs.notices(name)[0].startswith(f"{entry} is not used, it is not whole"), name
        assert [part.stat().st_ino for part in records.parts(entry)] == runs.inodes(name, 1)
    assert runs.run("last", *GROW) == []
    assert [path.name for path in (runs.runs / ".samples").glob(".*")] == []


def test_files_are_copied_where_they_cannot_be_linked(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    runs.run("first", *GROW)
    assert runs.run("second", *GROW) == []
    assert not set(runs.inodes("second", 1)) & set(runs.inodes("first", 1))
    first, second = (records.parts(runs.path(name, "iteration_0001", "samples")) for name in ("first", "second"))
    assert [part.read_bytes() for part in first] == [part.read_bytes() for part in second]


def test_a_store_that_cannot_be_written_stops_no_run(runs: Runs) -> None:
    runs.runs.mkdir()
    (runs.runs / ".samples").write_text("in the way")
    assert runs.run("first", *GROW) == [1]
    assert [text.partition(":")[0].split()[1:] for text in runs.notices("first")] == [
        ["is", "not", "shared", "with", "other", "runs"]
    ] * 2


def test_a_run_outlives_the_store_and_the_store_outlives_a_run(runs: Runs) -> None:
    runs.run("first", *GROW)
    shutil.rmtree(runs.path("first"))
    assert runs.run("second", *GROW) == []
    shutil.rmtree(runs.runs / ".samples")
    parts = records.parts(runs.path("second", "iteration_0001", "samples"))
    assert sum(len(records.read(part, Sample)) for part in parts) == SAMPLES
    assert runs.run("third", *GROW) == [1]


def test_adopted_samples_are_shared_by_nobody(runs: Runs) -> None:
    rows = runs.folder / "rows.jsonl"
    assert runs.run("first", "warmup=null", "--until", "start") == []
    asked = records.column(runs.path("first", "problems.parquet"), "question")
    rows.write_text("".join(json.dumps({"question": q, "response": "#3"}) + "\n" for q in asked))
    words = ("--field", "question=question", "--field", "response=response")
    assert main(["adopt", str(runs.folder / "config.yaml"), str(rows), *words, "warmup=null"]) == 0
    assert runs.run("first", *GROW) == []
    assert not (runs.runs / ".samples").exists()
    assert runs.run("second", *GROW) == [1]


def test_a_dry_run_tells_what_would_be_taken(runs: Runs, capsys: Any) -> None:
    main(runs.command("second", "--dry-run", *GROW))
    assert "taken" not in capsys.readouterr().out
    runs.run("first", *GROW)
    runs.run("second", "warmup=null", "--until", "start")
    capsys.readouterr()
    main(runs.command("second", "--dry-run", *GROW))
    (entry,) = runs.stored()
    assert f"grow of iteration 1: taken from {entry}, run first did the same\n" in capsys.readouterr().out
    main(runs.command("third", "--dry-run"))
    assert "where another run did the same, which shows after 0/warmup-policy\n" in capsys.readouterr().out
    assert runs.stored() == [entry] and not runs.path("third").exists()


KILLS = {
    "files taken, no mark": Trap("replaced", "second/iteration_0001/samples", 1),
    "half taken": Trap("fsync", "second/iteration_0001/.samples", 2),
    "verdicts taken, no mark": Trap("replaced", "second/iteration_0001/verdicts", 1),
}


@pytest.mark.parametrize("name", KILLS)
def test_killed_while_taking_and_run_again_it_samples_nothing(runs: Runs, driver: Driver, name: str) -> None:
    runs.run("first", *GROW)
    killed = driver.run(runs.command("second", *GROW), KILLS[name])
    assert killed.status == -signal.SIGKILL, killed.err
    assert runs.run("second", *GROW) == []
    assert runs.inodes("second", 1) == runs.inodes("first", 1)
    folder = runs.path("second", "iteration_0001")
    samples = [records.column(part, "id") for part in records.parts(folder / "samples")]
    verdicts = [records.column(part, "sample_id") for part in records.parts(folder / "verdicts")]
    assert samples == verdicts and sum(map(len, samples)) == SAMPLES
    assert not list(runs.path("second").rglob("*.tmp"))


def test_killed_while_sharing_and_run_again_it_shares(runs: Runs, driver: Driver) -> None:
    killed = driver.run(runs.command("first", *GROW), Trap("replace", "runs/.samples/", 2))
    assert killed.status == -signal.SIGKILL, killed.err
    assert list((runs.runs / ".samples").glob(".*.tmp"))
    assert runs.run("first", *GROW) == []
    assert not list((runs.runs / ".samples").glob(".*.tmp"))
    assert runs.run("second", *GROW) == []


def test_of_two_runs_at_once_the_entry_of_one_stays(runs: Runs, driver: Driver) -> None:
    both = [driver.start(runs.command(name, *GROW)) for name in ("first", "second")]
    assert [running.wait().status for running in both] == [0, 0]
    assert len(runs.stored()) == 1 and len(runs.stored("verdicts")) in (1, 2)
    assert runs.run("third", *GROW) == []
    assert runs.inodes("third", 1) in (runs.inodes("first", 1), runs.inodes("second", 1))
