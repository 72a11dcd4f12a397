"""Runs that are killed, stopped, resumed, redone and changed: they end as an undisturbed one does.

Every run here is a process of its own that really ends where its trap says; see ``kill_driver``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kill_driver import Driver, Ended, Trap

from selftrain import records
from selftrain.types import Sample

CONFIG = Path(__file__).with_name("tiny.yaml")
SAMPLES = 24 * 4


class Runs:
    """Runs of one config, each in a folder of its own."""

    def __init__(self, driver: Driver, folder: Path) -> None:
        self.driver, self.folder = driver, folder

    def command(self, name: str, *more: str) -> list[str]:
        return ["run", str(CONFIG), f"run.folder={self.folder}", f"run.name={name}", *more]

    def run(self, name: str, *more: str, trap: Trap | None = None) -> Ended:
        return self.driver.run(self.command(name, *more), trap)

    def root(self, name: str) -> Path:
        return self.folder / name

    def metrics(self, name: str) -> bytes:
        return (self.root(name) / "metrics.jsonl").read_bytes()

    def copy(self, name: str) -> Path:
        """The undisturbed run under another name."""
        return Path(shutil.copytree(self.root("whole"), self.root(name)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, driver: Driver) -> Runs:
    """With the undisturbed run ``whole``."""
    made = Runs(driver, tmp_path_factory.mktemp("resume"))
    ended = made.run("whole")
    assert ended.status == 0, ended.err
    return made


def test_undisturbed_run_has_three_iterations_of_two_splits(runs: Runs) -> None:
    rows = [json.loads(line) for line in runs.metrics("whole").splitlines()]
    assert [(row["iteration"], row["split"]) for row in rows] == [(i, s) for i in range(3) for s in ("val", "test")]
    assert len({row["mean_tokens"] for row in rows}) > 3  # The checkpoints differ, so equal metrics mean something.
    check_whole(runs.root("whole"))


KILLS = {
    "before the config": Trap("replaced", "problems.parquet", 1),
    "mid part": Trap("write", "iteration_0001/samples/.draft", 3),
    "between write and rename": Trap("replace", "iteration_0002/verdicts/draft", 2),
    "between rename and mark": Trap("replaced", "iteration_0001/grow.done", 1),
    "mid checkpoint": Trap("weights", "iteration_0001/policy", 1),
    "checkpoint without mark": Trap("replaced", "iteration_0002/policy/checkpoint", 1),
    "mid evaluation": Trap("replaced", "iteration_0001/evaluation/unjudged/arithmetic-test", 3),
    "mid metrics": Trap("text", "metrics.jsonl", 2),
}


@pytest.mark.parametrize("name", KILLS)
def test_killed_and_rerun_ends_as_if_undisturbed(runs: Runs, name: str) -> None:
    trap = KILLS[name]
    killed = runs.run(name, trap=trap)
    assert killed.status == -signal.SIGKILL, killed.err
    before = finished_parts(runs.root(name))
    ended = runs.run(name)
    assert ended.status == 0, ended.err
    assert runs.metrics(name) == runs.metrics("whole")
    check_whole(runs.root(name))
    assert not list(runs.root(name).rglob("*.tmp"))
    after = finished_parts(runs.root(name))
    assert {path: after[path] for path in before} == before


def finished_parts(root: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of every part of samples; a file written again has another inode."""
    stats = {path: path.stat() for path in root.glob("iteration_*/samples/*.parquet")}
    return {path.relative_to(root): (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def check_whole(root: Path) -> None:
    """All samples are there once, and each has its verdict and its score."""
    for iteration in (1, 2):
        folder = root / f"iteration_{iteration:04d}"
        parts = records.parts(folder / "samples")
        samples: list[Sample] = [sample for part in parts for sample in records.read(part, Sample)]
        assert len({sample.id for sample in samples}) == len(samples) == SAMPLES
        for part in parts:
            ids = records.column(part, "id")
            assert records.column(folder / "verdicts" / part.name, "sample_id") == ids
            assert records.column(folder / "scores" / part.name, "sample_id")[::2] == ids


def test_samples_do_not_depend_on_being_killed(runs: Runs) -> None:
    """The metrics are few numbers; the responses of the second iteration hold all that came before."""
    name = "killed in training"
    assert runs.run(name, trap=Trap("step", "", 43)).status == -signal.SIGKILL
    assert runs.run(name).status == 0
    for number in range(6):
        part = Path("iteration_0002") / "samples" / f"draft-{number:05d}.parquet"
        assert records.column(runs.root(name) / part, "text") == records.column(runs.root("whole") / part, "text")


def test_part_size_and_place_do_not_change_the_metrics(runs: Runs) -> None:
    for name, override in (("64", "run.part_size=64"), ("4096", "run.part_size=4096")):
        assert runs.run(name, override).status == 0
        assert runs.metrics(name) == runs.metrics("whole")
    assert len(records.parts(runs.root("4096") / "iteration_0001" / "samples")) == 1


def test_finished_run_resumes_at_once(runs: Runs) -> None:
    runs.copy("again")
    assert runs.run("again").status == 0  # Its name has changed, so this one looks at everything once more.
    before = (runs.root("again") / "metrics.jsonl").stat().st_ino
    code = (
        "import sys; from selftrain.cli import main; status = main(sys.argv[1:]);"
        "print(sorted(set(sys.modules) & {'torch', 'transformers', 'datasets'})); sys.exit(status)"
    )
    seconds: list[float] = []
    while len(seconds) < 5 and min(seconds, default=2) >= 2:  # Other tests may hold the cores at the time.
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, *runs.command("again")], capture_output=True, text=True, check=False
        )
        seconds.append(time.monotonic() - began)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "[]"
    assert min(seconds) < 2, seconds
    assert (runs.root("again") / "metrics.jsonl").stat().st_ino == before


def test_sigterm_finishes_the_part_and_exits_143(runs: Runs) -> None:
    name = "stopped"
    running = runs.driver.start(runs.command(name, "grow.draft.sampler.batch_size=2"))
    wait_for(lambda: any((runs.root(name) / "iteration_0001" / "samples").glob("draft-*.parquet")))
    os.kill(running.pid, signal.SIGTERM)
    ended = running.wait()
    assert ended.status == 143
    assert "the same command goes on from here" in ended.err
    parts = finished_parts(runs.root(name))
    assert 0 < len(parts) < 6
    assert not list(runs.root(name).rglob("*.tmp")) and not (runs.root(name) / "stop").exists()
    assert runs.run(name).status == 0
    assert runs.metrics(name) == runs.metrics("whole")
    assert parts.items() <= finished_parts(runs.root(name)).items()


def test_second_process_on_a_run_is_refused(runs: Runs) -> None:
    name = "shared"
    first = runs.driver.start(runs.command(name))
    wait_for(lambda: (runs.root(name) / "warmup").exists())
    second = runs.run(name)
    assert second.status == 1
    assert second.err == (
        f"selftrain: {runs.root(name)} is in use by another process; wait for it, or choose another run.name\n"
    )
    assert first.wait().status == 0
    assert runs.metrics(name) == runs.metrics("whole")


def test_stages_in_processes_give_the_same_and_die_with_their_parent(runs: Runs) -> None:
    name = "processes"
    command = runs.command(name, "launch.place=processes", "loop.iterations=1")
    assert runs.run(name, "--until", "0/evaluate").status == 0
    running = runs.driver.start(command)
    wait_for(lambda: len(descendants(running.pid)) == 4)  # Keeper and body of the stage, and of its verifier.
    below = descendants(running.pid)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait().status == -signal.SIGKILL
    wait_for(lambda: not alive(below))
    assert runs.run(name, "--until", "1/score").status == 0
    ended = runs.driver.run(command)
    assert ended.status == 0, ended.err
    assert runs.metrics("whole").startswith(runs.metrics(name))
    assert len(runs.metrics(name).splitlines()) == 4


def test_verifiers_die_with_a_killed_run(runs: Runs) -> None:
    name = "orphans"
    running = runs.driver.start(runs.command(name, "launch.verify_workers=2"))
    wait_for(lambda: len(descendants(running.pid)) == 4)
    below = descendants(running.pid)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    wait_for(lambda: not alive(below))


def test_changed_settings_are_named_and_the_run_stays_as_it_was(runs: Runs) -> None:
    root = runs.copy("changed")
    config = (root / "config.yaml").read_text()
    ended = runs.run("changed", "grow.draft.temperature=0.5", "grow.draft.n=5")
    assert ended.status == 2
    assert ended.err.count("\n") == 1
    assert "iteration 0, stage 'evaluate'" in ended.err  # It shares the sampling settings of Grow.
    assert "sampling.temperature" in ended.err and "--redo 0/evaluate" in ended.err
    assert runs.run("changed", "grow.draft.temperature=0.5", "grow.draft.n=5", "--dry-run").err == ended.err
    ended = runs.run("changed", "learners.policy.optim.lr=0.001")
    assert ended.status == 2
    assert "iteration 1, stage 'improve-policy'" in ended.err
    assert "learners.policy.optim.lr;" in ended.err and "--redo 1/improve-policy" in ended.err
    ended = runs.run("changed", "run.seed=1")
    assert ended.status == 2
    assert "stage 'start'" in ended.err and "run.seed" in ended.err and "--redo 0/start" in ended.err
    assert (root / "config.yaml").read_text() == config
    assert runs.metrics("changed") == runs.metrics("whole")
    assert runs.run("changed").status == 0


def test_settings_of_place_and_speed_do_not_invalidate(runs: Runs) -> None:
    runs.copy("faster")
    ended = runs.run(
        "faster",
        *("launch.verify_workers=2", "launch.place=processes", "track.live=none", "run.part_size=99"),
        *("learners.policy.optim.micro_tokens=99", "learners.policy.optim.gradient_checkpointing=true"),
        *("grow.draft.sampler.device=cpu", "reward.verify.max_errors=0.5"),
    )
    assert ended.status == 0, ended.err
    assert runs.metrics("faster") == runs.metrics("whole")


def test_more_iterations_go_on_from_where_a_run_ended(runs: Runs) -> None:
    runs.copy("longer")
    marks = {path: path.stat().st_ino for path in runs.root("longer").rglob("*.done")}
    assert runs.run("longer", "loop.iterations=3").status == 0
    assert runs.metrics("longer").startswith(runs.metrics("whole"))
    assert len(runs.metrics("longer").splitlines()) == 8
    assert {path: path.stat().st_ino for path in marks} == marks


def test_part_begun_with_other_settings_is_refused(runs: Runs) -> None:
    """A stage without a mark is held to what its parts were made with, too."""
    name = "begun"
    assert runs.run(name, trap=Trap("replaced", "iteration_0001/samples/draft", 2)).status == -signal.SIGKILL
    ended = runs.run(name, "grow.draft.sampler.dtype=bfloat16", "evaluate.sampling.temperature=1")
    assert ended.status == 2
    shutil.rmtree(runs.root(name) / "iteration_0000")  # So that its first use is in Grow.
    ended = runs.run(name, "grow.draft.top_k=3")
    assert ended.status == 2
    assert ended.err.splitlines()[-1].startswith(
        "selftrain: iteration 1, stage 'grow' was begun with other settings: grow.draft.top_k; set them back"
    )


def test_data_file_edited_since_is_refused(runs: Runs) -> None:
    """Problems of before and after an edit must not mix."""
    data = runs.folder / "mine.jsonl"
    lines = [
        json.dumps({"question": f"{a}+{a}=", "answer": str(2 * a), "demonstration": f"#{2 * a}"}) for a in range(9)
    ]
    data.write_text("\n".join(lines))
    (runs.folder / "asked.jsonl").write_text('{"question": "9+9=", "answer": "18"}')
    files = f"{{train: {data}, test: {runs.folder}/asked.jsonl}}"
    task = f"tasks={{arithmetic: null, mine: {{kind: jsonl, verifier: numeric_answer, files: {files}}}}}"
    command = ("--until", "0/warmup-policy", task, "warmup.policy.from=gold", "warmup.policy.optim.steps=1")
    ended = runs.run("edited", *command)
    assert ended.status == 0, ended.err
    moved = data.rename(runs.folder / "moved.jsonl")
    assert runs.run("edited", command[0], command[1], task.replace(str(data), str(moved)), *command[3:]).status == 0
    data.write_text("\n".join(lines[:-1]))
    ended = runs.run("edited", *command)
    assert ended.status == 2
    assert "tasks.mine.files.train.contents" in ended.err and "--redo 0/warmup-policy" in ended.err


def test_another_verifier_judges_what_is_there_and_samples_no_answer_twice(runs: Runs) -> None:
    root = runs.copy("regraded")
    lenient = runs.folder / "lenient.py"
    lenient.write_text("def verify(problem, response):\n    return '=' in response\n")
    command = ("regraded", f"tasks.arithmetic.verifier={lenient}:verify")
    ended = runs.run(*command)
    assert ended.status == 2
    flags = "--redo 0/evaluate --redo 1/verify"
    assert "stage 'evaluate' was done with other settings: judging.tasks.arithmetic.verifier" in ended.err
    assert ended.err.rstrip().endswith(flags)
    assert runs.metrics("regraded") == runs.metrics("whole")  # Nothing is moved before all is known to fit.
    samples = {path: path.stat().st_ino for path in root.glob("iteration_0001/samples/*.parquet")}
    answers = records.column(root / "iteration_0000/evaluation/arithmetic-test.parquet", "response_ids")
    ended = runs.run(*command, *flags.split())
    assert ended.status == 0, ended.err
    assert {path: path.stat().st_ino for path in samples} == samples
    judged = root / "iteration_0000/evaluation/arithmetic-test.parquet"
    assert records.column(judged, "response_ids") == answers
    assert all(label.startswith("lenient.py") for label in records.column(judged, "verifier"))
    assert not list(root.glob("redone/*/iteration_0001/samples"))
    assert runs.metrics("regraded") != runs.metrics("whole")
    check_report_of_changes(root, ended.out)


def check_report_of_changes(root: Path, out: str) -> None:
    """Old verdicts are kept, and what flipped is told beside the new ones and on the way."""
    for place in ("iteration_0001/verdicts/draft-00000.parquet", "iteration_0000/evaluation/arithmetic-test.parquet"):
        (old,) = root.glob(f"redone/*/{place}")
        before, after = (records.columns(path, "status", "verifier") for path in (old, root / place))
        assert all(label.startswith("numeric_answer") for label in before[1])
        assert not set(before[1]) & set(after[1])
    table = json.loads((root / "iteration_0000/regraded-arithmetic-test.json").read_text())
    entry = table["tasks"]["arithmetic"]
    flips = [pair for pair in zip(before[0], after[0], strict=True) if pair[0] != pair[1]]
    assert len(table["flips"]) == len(flips) == sum(entry["flips"].values()) > 0
    assert entry["n"] == len(after[0]) == 12 * 3
    assert entry["right_after"] - entry["right_before"] == pytest.approx(entry["change"], abs=1e-6)
    assert entry["right_after"] == pytest.approx(after[0].count("right") / 36, abs=1e-6)
    assert "judged again: iteration 1, samples of Grow (iteration_0001/regraded-grow.json)" in out
    grown = json.loads((root / "iteration_0001/regraded-grow.json").read_text())
    assert grown["tasks"]["arithmetic"]["n"] == SAMPLES
    assert grown["verifiers"]["before"][0].startswith("numeric_answer@")


def test_redo_of_an_evaluation_leaves_all_else_alone(runs: Runs) -> None:
    root = runs.copy("reevaluated")
    before = {path: path.stat().st_ino for path in root.rglob("*.done") if path.name != "evaluate.done"}
    ended = runs.run("reevaluated", "--redo", "1/evaluate")
    assert ended.status == 0, ended.err
    assert {path: path.stat().st_ino for path in before} == before
    assert runs.metrics("reevaluated") == runs.metrics("whole")
    assert (root / "redone/000/iteration_0001/evaluate.done").exists()
    assert not (root / "redone/000/iteration_0002").exists()


def test_redo_sets_aside_and_comes_to_the_same(runs: Runs) -> None:
    root = runs.copy("redone")
    old = {path.relative_to(root): path.read_bytes() for path in root.rglob("iteration_000[12]/**/*.parquet")}
    metrics = runs.metrics("redone")
    ended = runs.run("redone", "--redo", "2/grow", "--dry-run")
    assert ended.status == 0 and not (root / "redone").exists()
    assert "--redo sets aside: 2/grow, 2/verify, 2/score, 2/improve-policy, 2/evaluate\n" in ended.out
    (root / "iteration_0001_before").mkdir()  # Somebody's own.
    ended = runs.run("redone", "--redo", "1/grow")
    assert ended.status == 0, ended.err
    assert f"set aside: {root / 'redone' / '000'}" in ended.out
    assert runs.metrics("redone") == metrics
    for path, content in old.items():
        assert (root / "redone" / "000" / path).read_bytes() == content
    check_whole(root)
    ended = runs.run("redone", "--redo", "0/start", "--until", "start")
    assert ended.status == 0, ended.err
    assert (root / "redone" / "001" / "start" / "model.safetensors").exists()
    assert not (root / "iteration_0000" / "evaluate.done").exists()


def test_until_ends_after_a_stage(runs: Runs) -> None:
    ended = runs.run("until", "--until", "1/score")
    assert ended.status == 0, ended.err
    folder = runs.root("until") / "iteration_0001"
    assert sorted(path.stem for path in folder.glob("*.done")) == ["grow", "score", "verify"]


def test_run_that_wrote_a_part_twice_keeps_the_first(runs: Runs) -> None:
    """Files a killed process left under temporary names never count."""
    root = runs.copy("littered")
    for place in ("iteration_0001/samples", "iteration_0002/policy", "."):
        (root / place / ".draft-00000.parquet.1.tmp").write_text("half")
        (root / place / ".checkpoint.1.tmp").mkdir()
    (root / "metrics.jsonl").unlink()
    assert runs.run("littered").status == 0
    assert runs.metrics("littered") == runs.metrics("whole")
    assert not list(root.rglob("*.tmp"))


@pytest.mark.parametrize(
    "trap",
    [
        Trap("write", "iteration_0001/samples/.draft", 2, fail=True),
        Trap("weights", "warmup/policy", 1, fail=True),
    ],
    ids=lambda trap: trap.event,
)
def test_full_disk_stops_with_one_line_and_loses_nothing(runs: Runs, trap: Trap) -> None:
    name = f"full at {trap.event}"
    ended = runs.run(name, trap=trap)
    check_full(ended)
    before = finished_parts(runs.root(name))
    assert runs.run(name).status == 0
    assert runs.metrics(name) == runs.metrics("whole")
    assert before.items() <= finished_parts(runs.root(name)).items()


def test_weights_that_do_not_fit_stop_with_one_line(runs: Runs) -> None:
    """The limit is the kernel's: the writers themselves meet it."""
    command = runs.command("limited")
    check_full(runs.driver.run(command, file_bytes=20_000))
    assert runs.run("limited").status == 0
    assert runs.metrics("limited") == runs.metrics("whole")


def check_full(ended: Ended) -> None:
    assert ended.status == 1
    assert ended.err.count("\n") == 1
    assert "full" in ended.err and "make room and run the same command again: nothing is lost" in ended.err


def wait_for(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def descendants(pid: int) -> set[int]:
    """Processes below one, by what the kernel says."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return found - {pid}


def alive(pids: set[int]) -> set[int]:
    """Those that run; a zombie does not."""
    living = set()
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                living.add(pid)
        except OSError:
            continue
    return living
