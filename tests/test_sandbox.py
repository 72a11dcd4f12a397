"""What a program cannot do to the machine, at every level of isolation there is: each attack is run for real."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandboxes import GOOD, calling, judged, left_running, level, results, still_works

from selftrain import cli
from selftrain.artifacts import RunDir
from selftrain.commands.opening import begin
from selftrain.config import load_config
from selftrain.sandbox import levels
from selftrain.sandbox.box import Sandbox, SandboxError
from selftrain.session import Session

__all__ = ["level"]

CONFIG = Path(__file__).parent.parent / "configs" / "quickstart.yaml"

CLOSED = ("landlock", "namespaces")
"""Levels at which files and the network are out of reach."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder of this process with a file that every user may read."""
    for path in (tmp_path, *list(tmp_path.parents)[:2]):
        path.chmod(0o755)
    (tmp_path / "public").write_text("expected: 918273645")
    yield tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["public"]
    assert (tmp_path / "public").read_text() == "expected: 918273645"
    assert (tmp_path / "public").stat().st_mode & 0o777 == 0o644


def test_nothing_is_written_outside_its_folder(level: str, folder: Path) -> None:
    program = f"""
import os, shutil
outside = {str(folder)!r}
write = lambda: open(outside + "/mine", "w")
change = lambda: open(outside + "/public", "a")
shorten = lambda: os.truncate(outside + "/public", 0)
remove = lambda: os.remove(outside + "/public")
rights = lambda: os.chmod(outside + "/public", 0o777)
times = lambda: os.utime(outside + "/public", (0, 0))
make = lambda: os.mkdir(outside + "/made")
def through_a_link():
    os.symlink(outside, "link")
    open("link/mine", "w")
def through_a_hard_link():
    os.link(outside + "/public", "copy")
    open("copy", "a")
up = lambda: open("../../../../../../../../../.." + outside + "/mine", "w")
"""
    copies = ["through_a_link", "through_a_hard_link", "up"]
    results(program, "write", "change", "shorten", "remove", "rights", "times", "make", *copies)


def test_no_file_of_others_is_read(level: str, folder: Path) -> None:
    (folder / "public").chmod(0o600 if level not in CLOSED else 0o644)
    program = f"""
import os, shutil
outside = {str(folder)!r}
direct = lambda: open(outside + "/public").read()
def through_a_link():
    os.symlink(outside + "/public", "link")
    open("link").read()
def parent():
    open(f"/proc/{{os.getppid()}}/mem", "rb").read(1)
def environment():
    open(f"/proc/{{os.getppid()}}/environ", "rb").read()
def judge():
    open("/proc/{os.getpid()}/mem", "rb").read(1)
"""
    results(program, "direct", "through_a_link", "parent", "environment", "judge")
    (folder / "public").chmod(0o644)


def test_the_network_is_out_of_reach(level: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        program = f"""
import socket
tcp = lambda: socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 1)
udp = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53))
host = lambda: socket.socket(40, socket.SOCK_STREAM)  # AF_VSOCK: namespaces do not cover it.
unix = lambda: socket.socket(socket.AF_UNIX)
"""
        results(program, "tcp", "udp", "host", "unix")
        with pytest.raises(TimeoutError):
            server.accept()


def test_nobody_else_is_sent_a_signal(level: str) -> None:
    kills = [
        f"os.kill({os.getpid()}, 9)",
        "os.kill(os.getppid(), 9)",
        "os.kill(0, 9)",
        "os.kill(-1, 9)",
        "os.kill(1, 9)",
    ]
    for kill in kills:
        verdict = judged(
            f"import os\n\ndef f(x):\n    try:\n        {kill}\n    except OSError:\n        pass\n    return 0"
        )
        assert verdict.status == "wrong", kill
        still_works()


def test_a_fork_bomb_ends_at_its_limit(level: str) -> None:
    bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    verdict = judged(bomb, seconds=1.0)
    assert (verdict.status, verdict.value) == ("wrong", 0.0)
    assert "timeout" in str(verdict.reason)
    assert left_running() == []
    still_works()


def test_processes_are_counted_for_root_too(level: str) -> None:
    program = """
import os, time
def f(_):
    made = 0
    try:
        for _ in range(100):
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            made += 1
    except OSError:
        pass
    return made < 20
"""
    assert judged(program, calling(([0], True))).status == "right"
    assert left_running() == []


def test_children_do_not_outlive_it(level: str) -> None:
    program = """
import os, signal, time
def f(x):
    try:
        if os.fork() == 0:
            os.setsid()
            for number in set(signal.Signals) - {9, 19}:
                signal.signal(number, signal.SIG_IGN)
            if os.fork() == 0:
                time.sleep(60)
            time.sleep(60)
    except OSError:
        pass
    time.sleep(0.3)
    return x + 1
"""
    assert judged(program).status == "right"
    assert left_running() == []


@pytest.mark.parametrize("size", ["8 << 30", "1 << 60"])
def test_memory_is_bounded(level: str, size: str) -> None:
    verdict = judged(f"def f(x):\n    bytearray({size})\n    return x + 1")
    assert verdict.status == "wrong"
    assert "MemoryError" in str(verdict.reason) or "OverflowError" in str(verdict.reason)


def test_files_are_bounded(level: str) -> None:
    program = "def f(x):\n    open('big', 'wb').write(bytes(64 << 20))\n    return x + 1"
    verdict = judged(program)
    assert verdict.status == "wrong"
    assert "OSError" in str(verdict.reason)


def test_a_program_finds_nothing_of_the_one_before(level: str) -> None:
    leaving = """
import os, builtins, json, math, sys
for place in (".", "/tmp", "/dev/shm"):
    try:
        open(place + "/left", "w").write("here")
    except OSError:
        pass
math.sqrt = builtins.len = json.loads = lambda *_: 0
sys.path.append("/left")
os.environ["LEFT"] = "here"
def f(x): return x + 1
"""
    judged(leaving)
    finding = """
import os, json, math, sys
def f(_):
    return [os.listdir("."), math.sqrt(4), len("ab"), json.loads("[1]"), "/left" in sys.path, sorted(os.environ)]
"""
    names = ["HOME", "LANG", "PATH", "PYTHONHASHSEED"]
    expected = [[], 2.0, 2, [1], False, names]
    assert judged(finding, calling(([0], expected))).status == "right"


def test_the_environment_is_scrubbed(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    program = "import os\ndef f(_):\n    return 'SECRET_TOKEN' in os.environ or len(os.environ) > 8"
    assert judged(program, calling(([0], False))).status == "right"


def test_a_hang_is_ended_in_time_whatever_it_ignores(level: str) -> None:
    hang = """
import signal
for number in set(signal.Signals) - {9, 19}:
    signal.signal(number, signal.SIG_IGN)
def f(x):
    while True:
        pass
"""
    began = time.monotonic()
    verdict = judged(hang, seconds=0.5)
    assert (verdict.status, verdict.reason) == ("wrong", "0 of 2 tests passed; timeout: more than 0.5 s")
    assert time.monotonic() - began < 5
    assert left_running() == []


def test_the_folder_of_a_program_is_removed(level: str) -> None:
    before = set(Path("/tmp").glob("selftrain-program-*"))
    deep = "import os\nfor _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')\n" + GOOD
    assert judged(deep).status == "right"
    end = time.monotonic() + 60
    while not set(Path("/tmp").glob("selftrain-program-*")) <= before:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_sandbox_that_died_is_made_anew(level: str) -> None:
    still_works()
    sandbox = levels.shared(level)
    sandbox._process.kill()
    sandbox._process.wait()
    still_works()


def test_one_level_at_least_is_there() -> None:
    assert levels.strongest() in levels.LEVELS
    assert {level for level in levels.LEVELS if levels.trial(level) is None}


def test_a_level_that_does_not_work_says_why() -> None:
    with pytest.raises(SandboxError, match="sandbox level 'unheard'"), Sandbox("unheard"):
        pass


def test_doctor_shows_every_level(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    lines = [line.partition(" ") for line in map(str.strip, capsys.readouterr().out.splitlines())]
    shown = {name: text.strip() for name, _, text in lines}
    assert shown["sandbox"] == levels.strongest()
    assert {name: shown[name] for name in levels.LEVELS} == {
        name: levels.trial(name) or "works" for name in levels.LEVELS
    }


def test_a_run_that_demands_more_than_there_is_ends_before_it_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(levels, "trial", lambda level: "not here")
    verifier = "tasks.arithmetic.verifier={kind: unit_tests, level: landlock}"
    assert cli.main(["run", str(CONFIG), f"run.folder={tmp_path}", verifier]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("selftrain: tasks.arithmetic.verifier: verifier 'unit_tests': running programs demands")
    assert "'landlock', this machine has none (uid: not here; landlock: not here" in line
    assert not list(tmp_path.iterdir())


def test_the_level_is_written_to_the_run(tmp_path: Path) -> None:
    made = RunDir(tmp_path / "run")
    config = load_config(CONFIG, ["tasks.arithmetic.limit={train: 2, demonstrations: 2, val: 1, test: 1, transfer: 1}"])
    with Session(config, made) as session, made.lock():
        begin(session)
    assert json.loads((made.root / "environment.json").read_text())["sandbox"] == levels.strongest()
