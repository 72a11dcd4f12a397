"""Whole runs with replicas and with interpreters of their own: the same numbers, and what handing over took is told."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from kill_driver import Driver, Ended

from selftrain import records

TINY = Path(__file__).parent / "tiny.yaml"
PLUGINS = Path(__file__).parent / "plugins" / "samplers.py"
SAMPLER = "grow.draft.sampler"


class Runs:
    """Runs of the same config: ``one`` with one sampler, ``two`` with two replicas, of which one dies in mid-stage."""

    def __init__(self, driver: Driver, folder: Path) -> None:
        self.folder, self._driver = folder, driver
        self.one = self._run("one", "launch.sample.replicas=1", f"{SAMPLER}.once={folder}")
        self.two = self._run("two", "launch.sample.replicas=2", f"{SAMPLER}.once={folder}/died")

    def _run(self, name: str, *more: str) -> Ended:
        own = [f"run.folder={self.folder}", f"run.name={name}", "warmup=null", "grow.draft.n=16", "evaluate.n=0"]
        options = {"accuracy": 0.6, "problem": "/train/", "after": 50}
        fatal = [f"grow.draft.sampler={PLUGINS}:Fatal", *(f"{SAMPLER}.{key}={one}" for key, one in options.items())]
        ended = self._driver.run(["run", str(TINY), *own, *fatal, "--until", "1/score", *more])
        assert ended.status == 0, ended.err
        return ended

    def parts(self, name: str) -> dict[str, bytes]:
        return {part.name: part.read_bytes() for part in records.parts(self.folder / name / "iteration_0001/samples")}

    def events(self, name: str, kind: str) -> list[dict[str, Any]]:
        rows = map(json.loads, (self.folder / name / "events.jsonl").read_text().splitlines())
        return [row for row in rows if row["event"] == kind]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, driver: Driver) -> Runs:
    return Runs(driver, tmp_path_factory.mktemp("fleets"))


def test_a_replica_killed_in_mid_stage_changes_no_number(runs: Runs) -> None:
    assert (runs.folder / "died").exists()
    assert runs.parts("two") == runs.parts("one") and len(runs.parts("one")) > 10
    assert (runs.folder / "two/metrics.jsonl").read_bytes() == (runs.folder / "one/metrics.jsonl").read_bytes()


def test_the_closing_line_tells_what_sharing_and_handing_over_took(runs: Runs) -> None:
    said = r"iteration 1 grow done in .*% right.*; 2 replicas, [\d.]+ % idle, 1 replaced: 1 responses and 0 tok"
    assert re.search(said, runs.two.out), runs.two.out
    assert "replicas" not in runs.one.out and "engine:" not in runs.one.out
    evaluated, grown = runs.events("two", "Handover")
    assert (evaluated["iteration"], evaluated["stage"]) == (0, "evaluate") and evaluated["seconds"]["open"] > 0
    assert (grown["iteration"], grown["stage"]) == (1, "grow") and grown["shared"]["replaced"] == 1
    assert not runs.events("one", "Handover")
    (notice,) = (row for row in runs.events("two", "Notice") if "took its place" in row["text"])
    assert notice["level"] == "warning" and "SIGKILL" in notice["text"]


def test_a_stage_runs_under_its_own_interpreter(tmp_path: Path, driver: Driver) -> None:
    """Found by a path of its own, it notes what it was asked to run."""
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\necho "$2" >> {tmp_path}/used\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    own = [f"run.folder={tmp_path}", "launch.place=processes", f"launch.python.evaluate={other}", "warmup=null"]
    less = [f"{SAMPLER}=scripted", "evaluate.n=0", "loop.iterations=0"]
    ended = driver.run(["run", str(TINY), *own, *less])
    assert ended.status == 0, ended.err
    asked, ran = (tmp_path / "used").read_text().splitlines()  # The check, then the stage; the start ran elsewhere.
    assert "version" in asked and "sys.path[:]" not in ran and "selftrain.workers" in ran
    assert (tmp_path / "tiny/metrics.jsonl").exists()
