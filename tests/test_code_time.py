"""How long a program may take, on a machine that others use too."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from sandboxes import level

from selftrain.sandbox import levels
from selftrain.sandbox.box import Limits, Program, memory_file, readable
from selftrain.verifiers.code_runs import Clock, closing

__all__ = ["level"]


def waiting(level: str, program: str) -> float:
    """Share of the time, in the later half of a script, that it waited for a processor."""
    looks: list[tuple[float, float]] = []
    job = memory_file("program", b"\0" + program.encode())
    with closing([job]), levels.shared(level).start("script", Limits(), [job]) as running:
        while not readable([running.status], 0.05):
            looks.append((time.monotonic(), running.waited()))
        assert running.wait(0.0) == 0
    (began, before), (ended, after) = looks[len(looks) // 2], looks[-1]
    return (after - before) / (ended - began)


def test_the_kernel_says_what_a_program_waited(level: str) -> None:
    if not os.path.exists("/proc/self/schedstat"):
        pytest.skip("this kernel does not")
    # In sessions of their own, as a scheduler may share processors out by session.
    others = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(others, start_new_session=True) for _ in range(2 * len(os.sched_getaffinity(0)))]
    try:
        work = "import os, threading, time\nwhile time.process_time() < 0.6:\n    pass\n"
        assert waiting(level, work) > 0.3
        assert waiting(level, "import time\ntime.sleep(2.0)") < 0.15
        # What threads wait for is not known, and nothing is made up.
        threaded = "import threading, time\nthreading.Thread(target=time.sleep, args=[60]).start()\n"
        assert waiting(level, f"{threaded}{work}os._exit(0)") == 0.0
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_a_clock_stands_still_but_not_for_ever() -> None:
    class Waiting(Program):
        def __init__(self) -> None:
            self.seconds = 5.0

        def waited(self) -> float:
            return self.seconds

    program, clock = Waiting(), Clock(2.0, 4.0)
    clock.watch(program)
    assert 1.9 < clock.left() <= 2.0
    program.seconds += 1.0
    assert 2.9 < clock.left() <= 3.0
    clock.watch()
    assert 2.9 < clock.left() <= 3.0
    clock.watch(program)
    program.seconds += 9.0
    assert 3.9 < clock.left() <= 4.0
