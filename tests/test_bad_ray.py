"""A run on a Ray cluster that cannot begin, or has too little room: one line, and nothing written."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asking import collect
from one_line import check_refused
from test_fleet import work_list

from selftrain import __version__, machine
from selftrain.artifacts import RunDir
from selftrain.checks import placing as checks
from selftrain.config import ConfigError, load_config
from selftrain.errors import NoRoom
from selftrain.placing.address import check_answers, resolved
from selftrain.placing.cluster import cpus_of, environment
from selftrain.placing.host import Home, sees
from selftrain.placing.nodes import Node, in_words, shares
from selftrain.planning.engine import open_sampler
from selftrain.sampling.base import ALL
from selftrain.sampling.fleet import Fleet
from selftrain.sampling.scripted import Scripted
from selftrain.sampling.sharing import Shared
from selftrain.schema import Component, Launch, Ray, Replicas
from selftrain.session import Session
from selftrain.training.group import interface_to
from selftrain.workers import Start, Worker

TINY = Path(__file__).parent / "tiny.yaml"


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def session(*overrides: str) -> Session:
    return Session(load_config(TINY, list(overrides)), RunDir(Path("nowhere")))


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_an_address_that_does_not_answer_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began, address = time.monotonic(), f"127.0.0.1:{free_port()}"
    runs = tmp_path / "runs"
    asked = ["run", str(TINY), "launch.place=ray", f"launch.ray.address={address}", f"run.folder={runs}"]
    told = f"no Ray cluster answers at {address} (Connection refused); start one (`ray start --head`)"
    for more in ([], ["--dry-run"]):
        check_refused([*asked, *more], [told], capsys, unwritten=runs)
    assert time.monotonic() - began < 60


def test_what_listens_and_is_not_ray_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftrain.placing.address.SECONDS", 0.5)

    def answer() -> None:
        for _ in range(2):
            with listening.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 400")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"no Ray cluster answers at {address} \(timed out\)"):
            check_answers(address)
        with pytest.raises(ConfigError, match="what answers there is not Ray"), ThreadPoolExecutor(1) as other:
            other.submit(answer)
            check_answers(address)


@pytest.mark.parametrize(
    ("named", "variable", "found"),
    [
        (None, "", None),
        (None, "10.0.0.1:6379", "10.0.0.1:6379"),
        ("head:6380", "10.0.0.1:6379", "head:6380"),
        ("local", "10.0.0.1:6379", None),
        (None, "[::1]:6379", "[::1]:6379"),
    ],
)
def test_what_the_config_names_wins(
    named: str | None, variable: str, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", variable)
    assert resolved(named) == found


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("ray://head:10001", r"launch\.ray\.address: 'ray://head:10001' is for clients of Ray outside of a cluster"),
        ("head", r"launch\.ray\.address: 'head' is no address; write host:port"),
        ("head:70000", "is no address"),
        ("auto", "'auto', and no Ray cluster was started on this machine"),
    ],
)
def test_addresses_that_are_none(named: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("selftrain.placing.address.PLACES", (str(tmp_path),))
    with pytest.raises(ConfigError, match=said):
        resolved(named)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["launch.ray.cpus=2"], r"launch\.ray: has no effect with launch\.place: inline; set launch\.place to ray"),
        (["launch.place=ray", "launch.keep=run"], r"launch\.keep: with launch\.place: ray an engine gives back"),
    ],
)
def test_what_does_not_go_with_a_cluster(overrides: Sequence[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        checks.check_place(session(*overrides))


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"Ray is not installed; install it with: pip install 'selftrain\[ray\]'"):
        checks.check_place(session("launch.place=ray"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["launch.sample.replicas=3"], r"replicas: 3 processes of 1 GPU\(s\) each, and the Ray cluster has room for 2"),
        (["launch.score_processes=4"], r"launch\.score_processes: 4 processes"),
        (["launch.train.engine=deepspeed", "launch.train.processes=8"], r"launch\.train\.processes: 8 processes of 1"),
        (
            ["grow.draft.sampler=vllm", "grow.draft.sampler.tensor_parallel_size=4"],
            r"draft\.sampler\.tensor_parallel_size: 1 processes of 4 GPU\(s\) each, and .* room for 0 \(1 node: 2 GPUs",
        ),
    ],
)
def test_more_gpus_than_a_cluster_of_this_machine_has(
    overrides: Sequence[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: ("0", "1"))
    checks.check_room(session("launch.place=ray", "launch.sample.replicas=2"))
    with pytest.raises(ConfigError, match=said):
        checks.check_room(session("launch.place=ray", *overrides))


def test_nodes_and_what_they_have_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, head = Node("a", "", 16.0, 8.0), Node("b", "", 8.0, 4.0), Node("c", "", 0.0, 0.0)
    assert [one.room(1, 2), one.room(8, 2), one.room(1, 0), head.room(1, 0)] == [4, 2, 16, 0]
    assert in_words([one, other, head]) == "3 nodes: 12 GPUs, 24 CPUs"
    assert [shares(count, [one, other, head]) for count in (1, 2, 3, 7)] == [[1, 0, 0], [1, 1, 0], [2, 1, 0], [5, 2, 0]]
    assert shares(3, [head, head]) in ([2, 1], [1, 2])
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpus_of(Launch(sample=Replicas(20))) == 66 and cpus_of(Launch(ray=Ray(cpus=1), sample=Replicas(20))) == 22


def test_variables_of_a_machine_stay_there() -> None:
    own = {"HF_HOME": "/hf", "CUDA_VISIBLE_DEVICES": "3", "RAY_ADDRESS": "x:1", "SLURM_JOB_ID": "7", "TMPDIR": "/t"}
    assert environment(own) == {"HF_HOME": "/hf"}


def test_what_a_node_may_lack(tmp_path: Path) -> None:
    token, home = tmp_path / "token", Home({}, str(tmp_path))
    said = sees(home, str(token), "a", __version__, ())
    assert said == f"does not see {tmp_path}; put run.folder on a file system that all nodes share"
    token.write_text("a")
    assert sees(home, str(token), "a", __version__, ()) is None
    assert sees(home, str(token), "b", __version__, (0.01,)) is not None
    assert "has selftrain" in (sees(home, str(token), "a", "0.0", ()) or "")
    assert "has no folder" in (sees(Home({}, str(tmp_path / "none")), str(token), "a", __version__, ()) or "")


class Few:
    """Places of which only the first is one, once."""

    gpus = False

    def __init__(self, places: int) -> None:
        self.left = places

    def room(self, gpus: int) -> int:
        return 4

    def spread(self, count: int, gpus: int) -> list[Start]:
        return [self._start] * count

    def meet(self, count: int) -> Any:
        raise AssertionError("engines that draw by themselves do not meet")

    def _start(self, *args: Any, **options: Any) -> Worker:
        if not self.left:
            raise NoRoom("no room for 1 process")
        self.left -= 1
        return Worker(*args, **options)


def test_others_go_on_where_there_is_no_room_for_one(tmp_path: Path) -> None:
    work, options = work_list(30), Component("scripted", {"accuracy": 0.5})
    fleet = open_sampler(options, tmp_path, Launch(sample=Replicas(2)), Few(1))
    assert isinstance(fleet, Fleet) and collect(fleet, work) == collect(Scripted().open(tmp_path), work)
    assert fleet.account.in_words().endswith(" % idle, no room for 1")
    fleet.close()
    with pytest.raises(NoRoom, match="no room for 1 process"):
        open_sampler(options, tmp_path, Launch(sample=Replicas(2)), Few(0))


def test_what_was_lost_with_a_machine_is_not_to_blame() -> None:
    shared = Shared([((place, 0),) for place in range(4)], ALL, 2)
    for _ in range(3):
        assert shared.take(0) is not None
        assert shared.lost(0, blamed=False) == []
    assert shared.take(0) is not None and shared.lost(0) == []
    assert shared.take(0) is not None and shared.lost(0) == [(0, 0)]


def test_ranks_meet_through_the_interface_that_leads_to_the_first() -> None:
    assert interface_to("tcp://127.0.0.1:2345") == "lo"
