"""Workers: results and failures as values, and nothing survives a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from selftrain.workers import Worker, WorkerDied, WorkerError, call

MODULE = '''
import os, subprocess, sys, time

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")

def double(number):
    print("doubling", number)
    return 2 * number

def fail():
    raise LookupError("nothing there")

def fail_oddly():
    raise Odd(1, 2)

def unpicklable():
    return lambda: 0

def refuse(why):
    raise ValueError(why)

def counter(start):
    def handler(number):
        for value in range(start, start + number):
            yield value
    return handler

def pids(path):
    """Hang in C, holding the interpreter lock, with a child of its own session; the pids are on file before."""
    code = "import time; time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    with open(path + ".part", "w") as file:
        file.write(f"{os.getppid()} {os.getpid()} {child.pid}")
    os.rename(path + ".part", path)
    pow(7, 10**8)

def kill_keeper(path):
    """As `pids`, but its keeper is killed; the child holds open what this process does."""
    keeper = os.getppid()
    child = os.fork()
    if child == 0:
        os.setsid()
        time.sleep(600)
    with open(path, "w") as file:
        file.write(f"{keeper} {os.getpid()} {child}")
    os.kill(keeper, 9)
    time.sleep(600)
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module only this test's ``sys.path`` knows."""
    name = f"worker_functions_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_call_returns_and_prints(module: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(f"{module}:double", 21) == 42
    assert capfd.readouterr().out == "doubling 21\n"


def test_call_raises_what_the_function_raised(module: str) -> None:
    with pytest.raises(LookupError, match="nothing there") as info:
        call(f"{module}:fail")
    assert "in fail" in info.value.__notes__[0]


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("fail_oddly", WorkerError, "Odd: 1 and 2"),
        ("unpicklable", Exception, "[Pp]ickle"),
        ("absent", AttributeError, "absent"),
    ],
)
def test_call_explains_what_cannot_be_carried_over(
    module: str, function: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(f"{module}:{function}")


@pytest.mark.parametrize(
    ("reference", "arguments", "message"),
    [
        ("os:_exit", (3,), "ended with exit status 3"),
        ("os:abort", (), "was killed by SIGABRT"),
        ("signal:raise_signal", (signal.SIGSEGV,), "was killed by SIGSEGV"),
    ],
)
def test_call_says_how_the_process_died(reference: str, arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(WorkerDied, match=message):
        call(reference, *arguments)


def test_sys_exit_of_a_worker_is_not_ours() -> None:
    with pytest.raises(WorkerError, match="SystemExit: 4"):
        call("sys:exit", 4)


def test_a_worker_answers_request_after_request(module: str) -> None:
    with Worker(f"{module}:counter", 10) as worker:
        worker.wait_ready()
        for number in (2, 3):
            worker.send(number)
            assert [worker.receive() for _ in range(number)] == list(range(10, 10 + number))
        assert not worker.poll()


def test_a_failed_start_raises_its_reason(module: str) -> None:
    with Worker(f"{module}:refuse", "not today") as worker, pytest.raises(ValueError, match="not today"):
        worker.wait_ready()


def test_a_start_that_takes_too_long_is_killed() -> None:
    with Worker("time:sleep", 600) as worker:
        with pytest.raises(WorkerDied, match=r"not ready within 0\.1 s"):
            worker.wait_ready(0.1)
        assert worker.kill() == "was killed by SIGKILL"


def test_a_dead_worker_refuses_requests(module: str) -> None:
    with Worker(f"{module}:counter", 0) as worker:
        worker.wait_ready()
        worker.kill()
        with pytest.raises(WorkerDied):
            worker.send("x" * 1_000_000)


def test_signals_for_the_parent_do_not_reach_the_function(module: str, tmp_path: Path) -> None:
    with Worker("selftrain.workers:_once", f"{module}:pids") as worker:
        worker.wait_ready()
        worker.send((str(tmp_path / "pids"),))
        wait_until((tmp_path / "pids").exists)
        keeper, body, _ = map(int, (tmp_path / "pids").read_text().split())
        assert os.getpgid(keeper) != os.getpgrp() != os.getpgid(body)
        for pid in (keeper, body):
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.1)
        assert alive(keeper) and alive(body)


def test_kill_from_another_thread_ends_the_whole_tree(module: str, tmp_path: Path) -> None:
    with Worker("selftrain.workers:_once", f"{module}:pids") as worker:
        worker.wait_ready()
        worker.send((str(tmp_path / "pids"),))
        wait_until((tmp_path / "pids").exists)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert all(map(alive, pids))
        threading.Timer(0.05, worker.kill).start()
        with pytest.raises(WorkerDied, match="SIGKILL"):
            worker.receive()
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_body_that_kills_its_keeper_ends_with_it_and_what_it_started_too(module: str, tmp_path: Path) -> None:
    with Worker("selftrain.workers:_once", f"{module}:kill_keeper") as worker:
        worker.wait_ready()
        worker.send((str(tmp_path / "pids"),))
        wait_until((tmp_path / "pids").exists)
        wait_until(lambda: len((tmp_path / "pids").read_text().split()) == 3)
        keeper, body, child = map(int, (tmp_path / "pids").read_text().split())
        wait_until(lambda: not alive(body), 5)  # Whether this process does anything about it or not.
        assert alive(child) and not worker.poll()
        assert worker.kill() == "was killed by SIGKILL"
        assert not any(map(alive, (keeper, body, child)))
        with pytest.raises(WorkerDied, match="SIGKILL"):
            worker.receive()


PARENT = """
import sys, threading, time
from pathlib import Path
from selftrain.workers import Worker

workers = []

def start(name):
    worker = Worker("selftrain.workers:_once", f"{sys.argv[1]}:pids")
    worker.wait_ready()
    worker.send((name,))
    workers.append(worker)

threads = [threading.Thread(target=start, args=(name,)) for name in sys.argv[2:]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()  # The threads that started the workers end; the workers must not.
time.sleep(600)
"""


@pytest.fixture
def parent(module: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A script with two workers that hang in C."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])}
    names = [str(tmp_path / name) for name in ("first", "second")]
    with subprocess.Popen([sys.executable, str(script), module, *names], env=environment) as process:
        yield process
        process.kill()


def test_nothing_survives_a_killed_parent(parent: subprocess.Popen[bytes], tmp_path: Path) -> None:
    files = [tmp_path / "first", tmp_path / "second"]
    wait_until(lambda: all(file.exists() for file in files))
    pids = [int(pid) for file in files for pid in file.read_text().split()]
    time.sleep(0.2)
    assert len(pids) == 6 and all(map(alive, pids))
    parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(map(alive, pids)), 5)
