"""Runs whose stages are mirrored to object storage, on a real S3-compatible server: a new machine goes on with them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from kill_driver import Driver, Ended, Running, Trap
from s3_server import S3, serving

CONFIG = Path(__file__).with_name("tiny.yaml")
BUCKET = "runs"


class Runs:
    """Runs of one config, each with a mirror of its own in the same bucket."""

    def __init__(self, driver: Driver, folder: Path, s3: S3) -> None:
        self.driver, self.folder, self.s3 = driver, folder, s3

    def command(self, name: str, *more: str) -> list[str]:
        own = (f"run.folder={self.folder}", f"run.name={name}", f"track.mirror=s3://{BUCKET}/all/{name}")
        return ["run", str(CONFIG), *own, *more]

    def start(
        self, name: str, *more: str, trap: Trap | None = None, environment: Mapping[str, str] | None = None
    ) -> Running:
        own = {**self.s3.environment, **(environment or {})}
        return self.driver.start(self.command(name, *more), trap, environment=own)

    def run(
        self, name: str, *more: str, trap: Trap | None = None, environment: Mapping[str, str] | None = None
    ) -> Ended:
        return self.start(name, *more, trap=trap, environment=environment).wait()

    def root(self, name: str) -> Path:
        return self.folder / name

    def metrics(self, name: str) -> bytes:
        return (self.root(name) / "metrics.jsonl").read_bytes()

    def new_machine(self, name: str) -> None:
        """What the run's folder held is gone."""
        shutil.rmtree(self.root(name))

    def object(self, name: str, place: str) -> bytes:
        return self.s3.ask("GET", f"{BUCKET}/all/{name}/{place}")

    def mirrored(self, name: str) -> set[str]:
        keys = self.s3.names(BUCKET)
        return {key.removeprefix(f"all/{name}/") for key in keys if key.startswith(f"all/{name}/")}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with serving() as made:
        made.ask("PUT", BUCKET)
        yield made


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, driver: Driver, s3: S3) -> Runs:
    """With the undisturbed run ``whole``."""
    made = Runs(driver, tmp_path_factory.mktemp("mirrored"), s3)
    ended = made.run("whole", "loop.keep=2")
    assert ended.status == 0, ended.err
    assert "MB to s3://runs/all/whole" in ended.out
    return made


def listed(root: Path) -> set[str]:
    """Marks, and the files they list, of a run's folder."""
    marks = [mark for mark in root.rglob("*.done") if "redone" not in mark.parts]
    files = {file for mark in marks for name in json.loads(mark.read_text())["outputs"] if (file := mark.parent / name)}
    return {file.relative_to(root).as_posix() for file in {*marks, *files} if file.exists()}


def test_all_that_marks_list_is_mirrored_and_another_machine_has_it(runs: Runs) -> None:
    assert listed(runs.root("whole")) <= runs.mirrored("whole")
    assert "metrics.jsonl" in runs.mirrored("whole") and "lock.json" not in runs.mirrored("whole")
    metrics, samples = runs.metrics("whole"), (runs.root("whole") / "iteration_0002/samples/draft-00003.parquet")
    held, files = samples.read_bytes(), listed(runs.root("whole"))
    runs.new_machine("whole")
    ended = runs.run("whole", "loop.keep=2")
    assert ended.status == 0, ended.err
    assert "pull done" in ended.out and "iteration 2 evaluate was already done" in ended.out
    assert runs.metrics("whole") == metrics and samples.read_bytes() == held
    assert listed(runs.root("whole")) == files


def test_killed_and_gone_on_with_on_another_machine(runs: Runs) -> None:
    """The old machine's lock is taken over; what was thinned out is neither kept there nor pulled."""
    name = "moved"
    more = ("loop.keep=2", "loop.iterations=4", "evaluate.splits=[test]")
    killed = runs.run(name, *more, trap=Trap("replaced", "iteration_0004/samples/draft-00001", 1))
    assert killed.status == -signal.SIGKILL, killed.err
    mirrored = runs.mirrored(name)
    assert {"lock.json", "iteration_0001/improve-policy.done"} <= mirrored
    check_marks_have_files(runs, name)
    runs.new_machine(name)
    ended = runs.run(name, *more)
    assert ended.status == 0, ended.err
    assert "iteration 1 improve-policy was already done" in ended.out
    for number in (1, 2, 3, 4):
        folder = f"iteration_{number:04d}/policy/checkpoint"
        here = (runs.root(name) / folder).exists()
        assert here == any(key.startswith(folder) for key in runs.mirrored(name))
        assert here or (runs.root(name) / f"iteration_{number:04d}/removed.json").exists()
    assert not all((runs.root(name) / f"iteration_{number:04d}/policy/checkpoint").exists() for number in (1, 2))
    check_marks_have_files(runs, name)
    rows = [json.loads(line) for line in runs.metrics(name).splitlines()]
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3, 4]
    alone = runs.driver.run([part for part in runs.command("alone", *more) if not part.startswith("track.mirror=")])
    assert alone.status == 0, alone.err
    assert runs.metrics(name) == runs.metrics("alone")


def check_marks_have_files(runs: Runs, name: str) -> None:
    """Every file that a mark in the mirror lists is there, as it was, unless it is noted as removed."""
    mirrored = runs.mirrored(name)
    for mark in (key for key in mirrored if key.endswith(".done")):
        folder = mark.rpartition("/")[0]
        note = f"{folder}/removed.json"
        gone = json.loads(runs.object(name, note)) if note in mirrored else []
        for file, (size, digest) in json.loads(runs.object(name, mark))["outputs"].items():
            if not any(file.startswith(place) for place in gone):
                content = runs.object(name, f"{folder}/{file}")
                assert (len(content), hashlib.sha256(content).hexdigest()) == (size, digest)


def test_mirror_that_is_down_is_told_of_and_made_up_for(runs: Runs) -> None:
    name = "down"
    running = runs.start(name, "loop.iterations=1")
    wait_for((runs.root(name) / "start/start.done").exists)
    runs.s3.tell("stop")
    wait_for(lambda: "warning: the mirror" in (running.folder / "out").read_text())
    runs.s3.tell("start")
    ended = running.wait()
    assert ended.status == 0, ended.err
    assert ended.out.count("warning: the mirror") == 1 and "the run goes on" in ended.out
    assert "the mirror answers again" in ended.out
    assert listed(runs.root(name)) <= runs.mirrored(name)


def test_a_run_that_waits_for_a_mirror_can_be_asked_to_stop(runs: Runs, tmp_path: Path) -> None:
    other = {"token": "a", "beat": 1, "pid": 1, "host": "far", "machine": "another", "began": "1"}
    (tmp_path / "lock.json").write_text(json.dumps(other))
    running = runs.start("waits", f"track.mirror=file://{tmp_path}")
    err = running.folder / "err"
    wait_for(lambda: err.exists() and "waiting 40 s for a sign of life" in err.read_text())
    os.kill(running.pid, signal.SIGTERM)
    ended = running.wait()
    assert (ended.status, ended.err.count("\n")) == (143, 2), ended.err
    assert "the same command goes on from here" in ended.err and not (runs.root("waits") / "stop").exists()


BAD = {
    "schem": ({}, "track.mirror=s4://runs/x", "unknown scheme 's4' ("),
    "bucket": ({}, "track.mirror=s3://nobody/x", "s3://nobody/x: there is no such bucket"),
    "name": ({}, "track.mirror=s3://runs/all/whole", "belongs to the run 'whole'; give this one a mirror of its own"),
    "keys": (
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"},
        "track.mirror=s3://runs/y",
        "no credentials for it; set them",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_mirror_that_cannot_be_used_is_one_line_before_anything_begins(runs: Runs, case: str) -> None:
    environment, override, told = BAD[case]
    before = runs.mirrored("whole")
    ended = runs.run(f"bad-{case}", override, environment=environment)
    assert (ended.status, ended.err.count("\n")) == (2, 1), ended.err
    assert told in ended.err and "track.mirror" in ended.err
    assert not (runs.root(f"bad-{case}") / "start").exists()
    assert runs.mirrored("whole") == before


def test_mirror_with_other_settings_is_refused_before_anything_is_pulled(runs: Runs) -> None:
    runs.root("whole").rename(runs.folder / "elsewhere")
    ended = runs.run("whole", "run.seed=3")
    assert ended.status == 2 and ended.err.count("\n") == 1
    assert "iteration 0, stage 'start' was done with other settings:" in ended.err and "run.seed" in ended.err
    assert not (runs.root("whole") / "start").exists()
    runs.new_machine("whole")
    (runs.folder / "elsewhere").rename(runs.root("whole"))


@pytest.mark.parametrize("how", ["missing", "changed"])
def test_torn_mirror_is_told_and_nothing_is_marked(runs: Runs, how: str) -> None:
    place = "iteration_0001/samples/draft-00002.parquet"
    name = f"{BUCKET}/all/whole/{place}"
    content = runs.s3.ask("GET", name)
    if how == "missing":
        runs.s3.ask("DELETE", name)
    else:
        runs.s3.ask("PUT", name, content[:-1] + b"?")
    runs.root("whole").rename(runs.folder / "elsewhere")
    ended = runs.run("whole", "loop.keep=2")
    assert (ended.status, ended.err.count("\n")) == (1, 1), ended.err
    what = {"missing": "is missing", "changed": "is not the file that it was marked with"}[how]
    assert f"{place} {what}, while iteration 1, stage 'grow' is marked" in ended.err
    assert (runs.root("whole") / "iteration_0000/evaluate.done").exists()
    assert not (runs.root("whole") / "iteration_0001/grow.done").exists()
    runs.s3.ask("PUT", name, content)
    ended = runs.run("whole", "loop.keep=2")
    assert ended.status == 0, ended.err
    assert runs.metrics("whole") == (runs.folder / "elsewhere/metrics.jsonl").read_bytes()
    shutil.rmtree(runs.folder / "elsewhere")


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)
