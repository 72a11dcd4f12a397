"""System calls that a program is refused at every level of isolation, and what it leaves behind."""

from __future__ import annotations

import os
import time

import pytest
from conftest import LEVELS
from sandboxes import GOOD, NEXT, STDIO, judged, level, results

from selftrain.sandbox import levels
from selftrain.types import Problem

__all__ = ["level"]


def test_memory_that_is_no_process_s_is_refused(level: str) -> None:
    program = """
import ctypes, os
libc = ctypes.CDLL(None)
def called(function, *args):
    if function(*args) < 0:
        raise OSError
segment = lambda: called(libc.shmget, 0x7365, 1 << 20, 0o1600)
queue = lambda: called(libc.msgget, 0x7365, 0o1600)
file = lambda: os.memfd_create("x")
ring = lambda: called(libc.syscall, 425, 8, ctypes.create_string_buffer(256))
space = lambda: called(libc.unshare, 0x10000000)
child = lambda: called(libc.syscall, os.uname().machine == "x86_64" and 56 or 220, 0x10000011, 0, 0, 0, 0)
"""
    results(program, "segment", "queue", "file", "ring", "space", "child")


def test_a_program_of_another_architecture_is_ended(level: str) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("x32 is a part of x86_64")
    verdict = judged("import ctypes\ndef f(x):\n    ctypes.CDLL(None).syscall(0x40000000 + 39)\n    return x + 1")
    assert (verdict.status, verdict.reason) == ("wrong", "0 of 2 tests passed; the program ended")


def test_temporary_files_are_its_own(level: str) -> None:
    using = "import os, tempfile\ndef f(x):\n    with tempfile.NamedTemporaryFile() as file:\n"
    assert judged(f"{using}        return x + len(os.listdir('.'))").status == "right"


def test_what_is_left_in_folders_for_all_is_removed(level: str) -> None:
    names = [f"{place}/selftrain-left-{os.getpid()}" for place in ("/tmp", "/var/tmp", "/dev/shm")]
    leaving = f"""
import os
for name in {names}:
    try:
        os.makedirs(name + "/within")
    except OSError:
        pass
"""
    assert judged(leaving + GOOD).status == "right"
    end = time.monotonic() + 10
    while any(map(os.path.exists, names)):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("asked", [NEXT, STDIO], ids=["calls", "stdio"])
def test_without_root_there_is_no_other_user(asked: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    if (lacking := levels.trial("uid")) is not None:
        pytest.skip(f"{LEVELS} 'uid': {lacking}")
    monkeypatch.setattr(levels, "strongest", lambda: "uid")
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    verdict = judged(GOOD, asked)
    assert verdict.status == "error" and "only root can give a program another user id" in str(verdict.reason)
