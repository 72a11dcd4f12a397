"""Runs on a Ray cluster of two nodes: the same numbers, also when a sampler, or a whole node, is killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kill_driver import Driver, Ended, Running

from selftrain import records
from selftrain.errors import NoRoom
from selftrain.placing.cluster import Cluster
from selftrain.placing.nodes import in_words
from selftrain.schema import Launch, Ray
from selftrain.training.group import Group

TINY = Path(__file__).parent / "tiny.yaml"
PLUGINS = Path(__file__).parent / "plugins"
HELD = PLUGINS / "held.py"
SECONDS = 240.0
"""Longest wait for anything, on a machine that has much else to do."""
LEAN: dict[str, Any] = {"num_cpus": 4, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two raylets of this machine, each a node; runs join the first."""
    from selftrain.placing.connection import settle
    from selftrain.placing.local import QUIET, folder

    settle()
    with folder() as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", place)
        from ray import cluster_utils

        made = cluster_utils.Cluster(initialize_head=True, head_node_args={**LEAN, "_system_config": QUIET})
        made.add_node(**LEAN)
        yield made
        made.shutdown()


class Runs:
    """Runs of one config, on the cluster and in one process."""

    def __init__(self, driver: Driver, nodes: Any, folder: Path) -> None:
        self.folder = folder
        self._driver = driver
        self._placed = ["launch.place=ray", f"launch.ray.address={nodes.address}", "launch.verify_workers=2"]

    def start(self, name: str, *more: str, placed: bool = True) -> Running:
        own = [f"run.folder={self.folder}", f"run.name={name}", *(self._placed if placed else [])]
        return self._driver.start(["run", str(TINY), *own, *more])

    def run(self, name: str, *more: str, placed: bool = True) -> Ended:
        ended = self.start(name, *more, placed=placed).wait()
        assert ended.status == 0, ended.err
        return ended

    def parts(self, name: str, kind: str = "samples") -> dict[str, bytes]:
        return {part.name: part.read_bytes() for part in records.parts(self.folder / name / "iteration_0001" / kind)}

    def weights(self, name: str) -> bytes:
        return (self.folder / name / "iteration_0001/policy/checkpoint/model.safetensors").read_bytes()

    def metrics(self, name: str) -> bytes:
        return (self.folder / name / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def runs(driver: Driver, nodes: Any, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(driver, nodes, tmp_path_factory.mktemp("ray"))


def test_every_stage_on_two_nodes_gives_the_same_numbers(runs: Runs) -> None:
    once = ["--until", "1/improve-policy"]
    runs.run("inline", *once, placed=False)
    ended = runs.run("placed", *once, "launch.sample.replicas=2")
    assert runs.metrics("placed") == runs.metrics("inline") != b""
    assert runs.weights("placed") == runs.weights("inline")
    assert runs.parts("placed") == runs.parts("inline") and len(runs.parts("inline")) == 6
    assert re.search(r"iteration 1 grow done .*; 2 replicas, [\d.]+ % idle\n", ended.out), ended.out
    assert ended.err == "" and not list((runs.folder / "placed").glob(".seen*"))


def test_ranks_meet_across_nodes_and_others_wait_for_their_room(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes more than half of a node."""
    monkeypatch.syspath_prepend(PLUGINS)
    launch = Launch(place="ray", ray=Ray(nodes.address, cpus=3, wait=4))
    raylets = {node.all_processes["raylet"][0].process.pid for node in nodes.list_all_nodes()}
    with Cluster(launch) as cluster:
        assert (cluster.gpus, cluster.room(0), in_words(cluster.nodes)) == (False, 2, "2 nodes: 8 CPUs")
        (start,) = cluster.spread(1, 0)
        group = Group("meeting:serve", 2, places=cluster)
        (one, threads, first), (other, _, second) = group.ask(5)
        assert (one, other, threads) == (15, 15, 3) and {raylet_of(first), raylet_of(second)} == raylets
        with pytest.raises(
            NoRoom, match=r"for 1 process of 3 CPUs within 4 s: the Ray cluster has 2 nodes: 8 CPUs, and"
        ):
            start("selftrain.workers:_once", "os:getpid")
        group.close()
        with closing(start("selftrain.workers:_once", "os:getpid")) as worker:
            assert worker.receive() is None
            worker.send(())
            assert raylet_of(worker.receive()) in raylets
        with pytest.raises(NoRoom, match="no room for 3 processes of 3 CPUs: the Ray cluster has 2 nodes: 8 CPUs; add"):
            cluster.spread(3, 0)[0]("selftrain.workers:_once", "os:getpid")


def test_a_cluster_of_its_own_does_not_outlive_its_process() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, str(PLUGINS / "own_cluster.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        said, there = process.stdout.readline(), descendants(process.pid)
        process.kill()
    assert said == "there\n" and {"raylet", "gcs_server"} <= set(there.values()), there
    assert any(name.startswith("ray::Host") for name in there.values()), there
    until = time.monotonic() + SECONDS
    while left := {pid: name for pid, name in there.items() if lives(pid)}:
        assert time.monotonic() < until, left
        time.sleep(0.05)


def lives(pid: int) -> bool:
    """Whether a process is there, and not only waits for somebody to ask how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> dict[int, str]:
    """Numbers and names of the processes that one has started, directly or not."""
    parents: dict[int, tuple[int, str]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            head, _, tail = path.read_text().rpartition(")")
            parents[int(path.parent.name)] = (int(tail.split()[1]), head.partition("(")[2])
    found: dict[int, str] = {}
    new = {pid}
    while new := {one for one, (parent, _) in parents.items() if parent in new}:
        found |= {one: parents[one][1] for one in new}
    return found


def waited_for(found: Callable[[], Any], running: Running) -> Any:
    """What is found in the end, while a run goes on."""
    until = time.monotonic() + SECONDS
    while not (there := found()):
        said = told.read_text() if (told := running.folder / "err").exists() else ""
        assert time.monotonic() < until and "selftrain: " not in said, said
        time.sleep(0.05)
    return there


def raylet_of(pid: int) -> int:
    """The node that a process runs on, by the number of its raylet; 0: none."""
    while pid > 1:
        stat = Path(f"/proc/{pid}/stat").read_text()
        if stat.partition("(")[2].rpartition(")")[0] == "raylet":
            return pid
        pid = int(stat.rpartition(")")[2].split()[1])
    return 0


def on(raylet: int, folder: Path, who: str) -> list[int]:
    """Processes of a kind that wait on a node."""
    pids = [int(path.name.partition("-")[2]) for path in folder.glob(f"{who}-*")]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and raylet_of(pid) == raylet]


def test_a_sampler_and_then_its_node_are_killed_in_mid_stage(runs: Runs, nodes: Any, tmp_path: Path) -> None:
    """Last, as the cluster has one node then."""
    held = [f"grow.draft.sampler={HELD}:Held", f"tasks.arithmetic.verifier={HELD}:Judge", "reward.verify.seconds=600"]
    options = ["grow.draft.sampler.accuracy=0.6", "warmup=null", "evaluate.n=0"]
    folders = [f"{place}.folder={tmp_path}" for place in ("grow.draft.sampler", "tasks.arithmetic.verifier")]
    grow = [*held, *options, *folders, "--until", "1/verify"]
    first, second = (node.all_processes["raylet"][0].process.pid for node in nodes.list_all_nodes())
    running = runs.start("killed", *grow, "launch.sample.replicas=2")
    (sampler,) = waited_for(lambda: on(second, tmp_path, "sampler"), running)
    waited_for(lambda: on(first, tmp_path, "sampler"), running)
    os.kill(sampler, signal.SIGKILL)
    waited_for(lambda: [pid for pid in on(second, tmp_path, "sampler") if pid != sampler], running)
    waited_for(lambda: on(second, tmp_path, "judge"), running)
    os.kill(second, signal.SIGKILL)
    waited_for(lambda: len(on(first, tmp_path, "sampler")) == 2, running)
    (tmp_path / "go").touch()
    ended = running.wait()
    assert ended.status == 0, ended.err
    runs.run("undisturbed", *grow, placed=False)
    assert runs.parts("killed") == runs.parts("undisturbed")
    assert re.search(r"; 2 replicas, [\d.]+ % idle, 2 replaced: \d+ responses and 0 tokens", ended.out), ended.out
    statuses = [
        records.column(part, "status") for part in records.parts(runs.folder / "killed/iteration_0001/verdicts")
    ]
    assert {status for part in statuses for status in part} == {"right", "wrong"}
