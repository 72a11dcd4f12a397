"""A program against its tests, in a sandbox: what came of each."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from selftrain.sandbox.box import Limits, Program, Sandbox, SandboxError, memory_file, readable
from selftrain.verifiers.code_forms import same_output

START_SECONDS = 5.0
"""Time both processes get to begin; nothing foreign has run by then."""
LOOK_SECONDS = 0.2
"""How often a clock looks at what programs waited."""
RESULT_BYTES = 1 << 22
REASON_CHARACTERS = 300


class UnfitTests(ValueError):
    """Tests that cannot be used; no program's fault."""


@dataclass
class Outcome:
    """What a program did."""

    passed: int = 0
    reason: str | None = None
    """The first thing that went wrong."""

    def wrong(self, reason: str) -> None:
        self.reason = self.reason or reason[:REASON_CHARACTERS]


class Clock:
    """Seconds that are left to programs.

    What they wait for a processor while others have it does not count, or a slow program were right on an idle machine
    and wrong on a busy one; but after ``longest`` it is over.
    """

    def __init__(self, seconds: float, longest: float | None = None) -> None:
        self._end = time.monotonic() + seconds
        self._last = time.monotonic() + (seconds if longest is None else longest)
        self._programs: tuple[Program, ...] = ()

    def watch(self, *programs: Program) -> None:
        """From now on these run, and those before do not."""
        self._end += sum(program.waited() for program in self._programs)
        self._programs = programs
        self._end -= sum(program.waited() for program in programs)

    def left(self) -> float:
        return min(self._end + sum(program.waited() for program in self._programs), self._last) - time.monotonic()

    def readable(self, fd: int) -> bool:
        """Wait until a descriptor can be read; whether that came in time."""
        while (left := self.left()) > 0:
            if readable([fd], min(left, LOOK_SECONDS)):
                return True
        return bool(readable([fd], 0))


@contextlib.contextmanager
def closing(fds: list[int]) -> Iterator[None]:
    try:
        yield
    finally:
        for fd in fds:
            os.close(fd)


def source_file(prefix: str, program: str) -> int:
    """As `selftrain.sandbox.candidate` reads it."""
    return memory_file("program", f"{prefix}\0{program}".encode("utf-8", "surrogatepass"))


def overrun(seconds: float) -> str:
    return f"timeout: more than {seconds:.3g} s"


@dataclass(frozen=True)
class Time:
    """For all tests of a program together, in seconds."""

    seconds: float
    """It may run, or do nothing."""
    longest: float
    """It may take on the clock on the wall, however busy the machine is."""

    def clock(self) -> Clock:
        return Clock(self.seconds, self.longest)


def run_script(box: Sandbox, limits: Limits, source: tuple[str, str], cases: list[Any], allowed: Time) -> Outcome:
    """Each case by a process of its own."""
    outcome, clock = Outcome(), allowed.clock()
    for number, case in enumerate(cases, 1):
        given = memory_file("input", case["input"].encode("utf-8", "surrogatepass"))
        fds = [source_file(*source), given, memory_file("output", b""), memory_file("errors", b"")]
        with closing(fds):
            with box.start("script", limits, fds[:1], fds[1:]) as program:
                clock.watch(program)
                status = program.wait(0.0) if clock.readable(program.status) else None
                clock.watch()
            if status is None:
                outcome.wrong(overrun(allowed.seconds))
                break
            found = _text(fds[2], limits.file_mb << 20)
            if status != 0:
                last = _text(fds[3], limits.file_mb << 20).strip().rpartition("\n")[2]
                outcome.wrong(f"test {number}: exit status {status}{f': {last}' if last else ''}")
            elif same_output(found, case["output"]):
                outcome.passed += 1
            else:
                outcome.wrong(f"test {number}: other output")
    return outcome


def _text(fd: int, most: int) -> str:
    return os.pread(fd, most, 0).decode("utf-8", "surrogateescape")


def run_module(box: Sandbox, limits: Limits, source: tuple[str, str], tests: dict[str, Any], allowed: Time) -> Outcome:
    """All tests in one interpreter, all calls in one of the program's."""
    try:
        job = memory_file("tests", json.dumps(tests).encode())
    except (TypeError, ValueError) as error:
        raise UnfitTests(f"the tests are no JSON: {error}") from error
    questions, asked = os.pipe()
    answers, answered = os.pipe()
    results, told = os.pipe()
    program_fds, tester_fds = [source_file(*source), questions, answered], [job, asked, answers, told]
    with closing([results]), contextlib.ExitStack() as running:
        with closing(program_fds + tester_fds):
            program = running.enter_context(box.start("module", limits, program_fds))
            tester = running.enter_context(box.start("tests", limits, tester_fds))
        outcome = Outcome()
        for line in _lines(results, allowed, (program, tester)):
            if "unfit" in line:
                raise UnfitTests(line["unfit"])
            if "overrun" in line:
                outcome.wrong(overrun(allowed.seconds))
            if line.get("passed"):
                outcome.passed += 1
            elif "test" in line:
                outcome.wrong(f"test {line['test']}: {line['reason']}")
            if line.get("gone"):
                outcome.wrong(line["gone"])
            if "calls" in line and not line["calls"]:
                outcome.passed = 0
                outcome.wrong("no test called the program")
    return outcome


def _lines(results: int, allowed: Time, programs: tuple[Program, Program]) -> Iterator[dict[str, Any]]:
    """What the tester tells, to its end; ``{"overrun": true}`` where that does not come in time.

    Raises:
        SandboxError: it did not begin, or ended before its end.
    """
    text, clock, begun = b"", Clock(START_SECONDS), False
    while clock.readable(results):
        piece = os.read(results, 1 << 16)
        text += piece
        *complete, text = text.split(b"\n")
        for line in map(json.loads, complete):
            yield line
            if "done" in line:
                return
            if "begun" in line:
                begun, clock = True, allowed.clock()
                clock.watch(*programs)
        if not piece or len(text) > RESULT_BYTES:
            for program in programs:
                program.wait(LOOK_SECONDS)  # Raises what it knows better.
            raise SandboxError("the process that runs the tests ended")
    if not begun:
        raise SandboxError(f"nothing began to run within {START_SECONDS:g} s")
    yield {"overrun": True}
