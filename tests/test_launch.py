"""`selftrain launch`: job files are shell that says what was meant, and a stopped job goes on as if undisturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kill_driver import Driver

from selftrain.cli import main
from selftrain.config import load_config
from selftrain.jobs.job import machines, seconds_of

CONFIG = Path(__file__).with_name("tiny.yaml")
GPU = CONFIG.parent.parent / "configs" / "rest_em_math.yaml"
MANY = GPU.with_name("rest_em_7b_4nodes.yaml")
SRUN = """#!/bin/bash
# As much of srun as is needed: it starts a command, and kills it where it gets a SIGTERM, as Slurm's own does.
echo "srun $*" >> "$CALLS"
while [[ "$1" == --* ]]; do shift; done
"$@" &
task=$!
trap 'kill -KILL "$task"; again=yes' TERM
status=127
while :; do
    again=''
    wait "$task"; code=$?
    [ "$code" -eq 127 ] || status=$code
    [ -n "$again" ] || exit "$status"
done
"""
SAY = """#!/bin/bash
echo "$(basename "$0") $*${SELFTRAIN_RESUBMITTED:+, number $SELFTRAIN_RESUBMITTED}" >> "$CALLS"
"""
RELAY = """
import json, os, signal, sys, time
# Hands its words to whoever runs them, its signals too, and ends as that ends.
folder = os.environ["RELAY"]
def have(name):
    while not os.path.exists(f"{folder}/{name}"):
        time.sleep(0.01)
    return open(f"{folder}/{name}").read()
open(f"{folder}/words.tmp", "w").write(json.dumps({"words": sys.argv[1:], "variable": os.environ.get("MINE")}))
os.rename(f"{folder}/words.tmp", f"{folder}/words")
pid = int(have("pid"))
signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
sys.exit(int(have("status")))
"""


class Cluster:
    """Commands of a cluster on PATH, a log of how they were called, and what a job's `selftrain` is told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        self.calls = folder / "calls"
        self.calls.touch()
        (folder / "relay.py").write_text(RELAY)
        for name, text in {
            "srun": SRUN,
            "sbatch": SAY,
            "scontrol": SAY + '[ "$1" != show ] || printf "one\\ntwo\\n"\n',
            "ray": SAY + '[[ "$*" != *--block* ]] || exec sleep 600\n',
            "selftrain": f'#!/bin/bash\nexec "{sys.executable}" -S "{folder}/relay.py" "$@"\n',
        }.items():
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)

    def write(self, *words: str, kind: str = "--slurm") -> Path:
        file = self.folder / "job"
        assert main(["launch", kind, *words, "--venv", self.venv(), "--output", str(file)]) == 0
        subprocess.run(["bash", "-n", str(file)], check=True)
        return file

    def venv(self) -> str:
        """One whose activation puts the commands above in front."""
        activate = self.folder / "my env" / "bin" / "activate"
        activate.parent.mkdir(parents=True, exist_ok=True)
        activate.write_text(f'export PATH="{self.bin}:$PATH"\n')
        return str(activate.parent.parent)

    def start(self, file: Path, left: int = 30, **environment: str) -> subprocess.Popen[bytes]:
        """The job, with that many seconds before its time limit."""
        for name in ("words", "pid", "status"):
            (self.folder / name).unlink(missing_ok=True)
        own = {"CALLS": str(self.calls), "RELAY": str(self.folder), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"}
        end = {"SLURM_JOB_END_TIME": str(int(time.time()) + left)}
        path = {"PATH": f"{self.bin}:{os.environ['PATH']}"}
        return subprocess.Popen(["bash", str(file)], env={**os.environ, **own, **end, **path, **environment})

    def told(self) -> dict[str, object]:
        wait_for((self.folder / "words").exists)
        found: dict[str, object] = json.loads((self.folder / "words").read_text())
        return found

    def answer(self, name: str, value: int) -> None:
        temporary = self.folder / f"{name}.tmp"
        temporary.write_text(str(value))
        temporary.rename(self.folder / name)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def test_job_stopped_before_its_limit_goes_on_as_if_undisturbed(
    cluster: Cluster, driver: Driver, tmp_path: Path
) -> None:
    def own(name: str) -> list[str]:
        return [str(CONFIG), f"run.folder={tmp_path}", f"run.name={name}", "loop.iterations=1"]

    file = cluster.write(*own("stopped"), "grow.draft.sampler.batch_size=2")
    job = cluster.start(file)
    words = cluster.told()["words"]
    assert isinstance(words, list) and words[0] == "run"
    running = driver.start(words)
    cluster.answer("pid", running.pid)
    wait_for(lambda: any((tmp_path / "stopped/iteration_0001/samples").glob("draft-*.parquet")))
    job.send_signal(signal.SIGTERM)
    ended = running.wait()
    cluster.answer("status", ended.status)
    assert (ended.status, job.wait(60)) == (143, 143)
    assert 0 < len(list((tmp_path / "stopped/iteration_0001/samples").glob("draft-*.parquet"))) < 6
    assert not list((tmp_path / "stopped").rglob("*.tmp"))
    assert cluster.calls.read_text().splitlines()[-1] == "scontrol requeue 7"

    job = cluster.start(file, left=3600, SLURM_RESTART_COUNT="1")
    again = cluster.told()["words"]
    assert again == words
    cluster.answer("pid", 0)
    ended = driver.run(words)
    cluster.answer("status", ended.status)
    assert (ended.status, job.wait(60)) == (0, 0), ended.err
    assert driver.run(["run", *own("whole")]).status == 0
    assert (tmp_path / "stopped/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_words_and_variables_arrive_as_they_were_given(cluster: Cluster) -> None:
    nasty = 'tasks.math.prompt.template=it\'s $HOME `id` "{question}" \\ * \n#'
    more = ("--env", 'MINE=x y\'z "$HOME"', "--setup", ': "$NOBODY_HAS_SET_THIS"')  # As scripts of modules do.
    file = cluster.write(str(GPU), nasty, "run.name=a b; rm -rf c", *more)
    job = cluster.start(file)
    told = cluster.told()
    assert told == {"words": ["run", str(GPU), nasty, "run.name=a b; rm -rf c"], "variable": 'x y\'z "$HOME"'}
    cluster.answer("pid", 0)
    cluster.answer("status", 3)
    assert job.wait(60) == 3
    assert not any("requeue" in line for line in cluster.calls.read_text().splitlines())
    asked = [line for line in file.read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --job-name=a-b-rm--rf-c", "#SBATCH --gpus-per-node=1", "#SBATCH --signal=B:TERM@600"} <= set(asked)


@pytest.mark.parametrize(
    ("more", "left", "count", "call"),
    [
        ((), 30, "0", "scontrol requeue 7"),
        ((), 30, "100", ""),  # It has gone on so often that it gets nowhere.
        ((), 3600, "0", ""),  # scancel, long before the limit.
        (("--again", "no"), 30, "0", ""),
        (("--again", "resubmit"), 30, "0", "sbatch"),
        (("--again", "resubmit"), 30, "7", "sbatch"),
        (("--again", "resubmit"), 30, "100", ""),
    ],
)
def test_only_the_time_limit_makes_a_job_go_on(
    cluster: Cluster, more: tuple[str, ...], left: int, count: str, call: str
) -> None:
    counted = "SELFTRAIN_RESUBMITTED" if "resubmit" in more else "SLURM_RESTART_COUNT"
    file = cluster.write(str(GPU), *more)
    job = cluster.start(file, left=left, **{counted: count})
    cluster.told()
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"]) as asked:
        cluster.answer("pid", asked.pid)
        time.sleep(0.3)  # Until the relay hands signals on.
        job.send_signal(signal.SIGTERM)
        assert asked.wait(60) == -signal.SIGTERM
    cluster.answer("status", 143)
    assert job.wait(60) == 143
    calls = cluster.calls.read_text().splitlines()
    assert calls == ([f"{call} {file}, number {int(count) + 1}" if call == "sbatch" else call] if call else [])


def test_several_nodes_are_a_ray_cluster_that_ends_with_the_job(cluster: Cluster) -> None:
    job = cluster.start(cluster.write(str(GPU), "--nodes", "2", "--gpus-per-node", "8"))
    assert cluster.told()["words"] == ["run", str(GPU), "launch.place=ray"]
    cluster.answer("pid", 0)
    cluster.answer("status", 0)
    assert job.wait(60) == 0
    calls = cluster.calls.read_text()
    start = "ray start --num-cpus=34 --num-gpus=8 --block"
    assert f"{start} --head --node-ip-address=one --port=20007" in calls and f"{start} --address=one:20007" in calls
    assert "--nodes=1 --ntasks=1 --cpus-per-task=34 --exclude=one" in calls and calls.count("--cpus-per-task=34") == 2


def test_script_for_a_ray_cluster_hands_itself_over_and_then_runs(cluster: Cluster) -> None:
    file = cluster.write(str(GPU), "run.seed=1", kind="--ray")
    assert cluster.start(file).wait(60) == 0
    (call,) = cluster.calls.read_text().splitlines()
    assert call == f"ray job submit --no-wait --entrypoint-num-cpus=1 -- bash {file} inside"
    environment = {**os.environ, "RELAY": str(cluster.folder)}
    with subprocess.Popen(["bash", str(file), "inside"], env=environment) as job:
        assert cluster.told()["words"] == ["run", str(GPU), "run.seed=1", "launch.place=ray"]
        cluster.answer("pid", 0)
        cluster.answer("status", 143)
        assert job.wait(60) == 143


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--time", "soon"), "--time soon: write it as 30 (minutes)"),
        (("--partition", "a b"), "--partition=a b"),
        (("--nodes", "0"), "--nodes 0: must be at least 1"),
        (("--env", "1A=2"), "--env 1A: is no name of a variable"),
        (("--env", "HF_HOME"), "--env HF_HOME: gives it no value; write HF_HOME=VALUE"),
        (("--time", "10"), "--grace 600: with --time 10 the run is asked to stop as soon as it starts"),
        (("--time", "1-0", "--grace", "65536"), "--grace 65536: Slurm signals at most 65535 seconds before a"),
        (("--output", "a\nrm -rf b"), r"--output 'a\nrm -rf b': cannot stand in a line of the script"),
        (
            ("launch.score_processes=3", "--nodes", "1", "--gpus-per-node", "2"),
            "--gpus-per-node 2: 1 x 2 GPUs for a con",
        ),
        (("run.nam=x",), "run.nam: unknown key"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    words: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", "--slurm", str(GPU), "--output", str(tmp_path / "job"), *words]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not (tmp_path / "job").exists()


def test_what_slurm_alone_knows_is_refused_for_ray(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(GPU), "--partition", "gpu", "--output", str(tmp_path / "job")]
    assert main(["launch", "--ray", *words]) == 2 and not (tmp_path / "job").exists()
    assert "--partition=gpu: a Ray cluster has no such thing" in capsys.readouterr().err


def test_a_file_that_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job").write_text("mine")
    assert main(["launch", "--slurm", str(GPU), "--output", str(tmp_path / "job")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "job").read_text() == "mine"


def test_needs_follow_from_the_config(cluster: Cluster, tmp_path: Path) -> None:
    small = cluster.write(str(CONFIG)).read_text()
    assert "--gpus-per-node" not in small and "#SBATCH --cpus-per-task=5\n" in small
    (tmp_path / "job").unlink()
    large = cluster.write(str(GPU), "grow.draft.sampler={kind: vllm, tensor_parallel_size: 4}").read_text()
    assert "#SBATCH --gpus-per-node=4\n" in large and "#SBATCH --cpus-per-task=18\n" in large
    (tmp_path / "job").unlink()
    wide = cluster.write(str(MANY)).read_text()
    assert "#SBATCH --nodes=4\n" in wide and "#SBATCH --gpus-per-node=8\n" in wide and "launch.place=ray" in wide


@pytest.mark.parametrize(
    ("processes", "engines", "parallel", "asked", "found"),
    [
        (32, 32, 1, (None, None), (4, 8)),
        (32, 32, 1, (8, None), (8, 4)),
        (32, 32, 1, (None, 16), (2, 16)),
        (32, 32, 1, (None, 0), (1, 0)),
        (12, 3, 4, (None, None), (2, 8)),
        # An engine lies on one machine.
        (1, 1, 4, (2, None), (2, 4)),
    ],
)
def test_a_job_holds_all_gpus_that_the_config_uses_at_once(
    processes: int, engines: int, parallel: int, asked: tuple[int | None, int | None], found: tuple[int, int]
) -> None:
    overrides = [f"launch.train.processes={processes}", f"launch.sample.replicas={engines}"]
    config = load_config(MANY, [*overrides, f"grow.draft.sampler.tensor_parallel_size={parallel}"])
    assert machines(config, *asked) == found


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("30", 1800), ("1:30", 90), ("12:00:00", 43200), ("2-0", 172800), ("1-1:30", 91800), ("0", 0)],
)
def test_limits_are_read_as_slurm_reads_them(time: str, seconds: int) -> None:
    assert seconds_of(time) == seconds


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["launch", "--help"])
    assert "selftrain launch --slurm configs/rest_em_math.yaml" in capsys.readouterr().out


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)
