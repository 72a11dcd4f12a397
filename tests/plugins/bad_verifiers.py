"""Verifiers that misbehave as the response tells them to."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from selftrain.judging import batched
from selftrain.types import Problem, Verdict


def judge(problem: Problem, response: str) -> Any:
    """Do what the response says; else compare it with the gold answer."""
    if response in ACTIONS:
        return ACTIONS[response]()
    return response == problem.answer


def _hang() -> None:
    while True:
        pass


def _hang_in_c() -> object:
    """One call that holds the interpreter lock for minutes."""
    return pow(7, 10**8)


def _sleep() -> bool:
    time.sleep(0.2)
    return True


def _print() -> bool:
    print("noise")
    return True


def _fail() -> None:
    raise ValueError("no such luck")


def _fill_memory() -> None:
    held = []
    while True:
        held.append(bytearray(1 << 24))


def _hang_with_child() -> None:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    time.sleep(600)


def _away() -> None:
    """Leave a process of a session of its own, which holds open all that this one does."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
        os._exit(0)


def _kill_keeper() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


def _outlive_keeper() -> None:
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)  # PR_SET_PDEATHSIG: none.
    _away()
    _kill_keeper()


def _stop_keeper() -> None:
    os.kill(os.getppid(), signal.SIGSTOP)
    time.sleep(600)


ACTIONS: dict[str, Callable[[], Any]] = {
    "hang": _hang,
    "hang in C": _hang_in_c,
    "hang with child": _hang_with_child,
    "sleep": _sleep,
    "raise": _fail,
    "exit": lambda: sys.exit(3),
    "os._exit": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "kill keeper": _kill_keeper,
    "outlive keeper": _outlive_keeper,
    "stop keeper": _stop_keeper,
    "memory": _fill_memory,
    "nan": lambda: float("nan"),
    "two": lambda: 2.0,
    "minus": lambda: -0.5,
    "none": lambda: None,
    "not mine": lambda: NotImplemented,
    "text": lambda: "right",
    "half": lambda: 0.5,
    "one": lambda: 1,
    "pid": lambda: Verdict("right", answer=str(os.getpid())),
    "group": lambda: Verdict("wrong", answer=" ".join(map(str, (os.getpid(), os.getppid())))),
    "value two": lambda: Verdict("right", 2.0),
    "bad status": lambda: Verdict("great"),  # type: ignore[arg-type]
    "bad answer": lambda: Verdict("right", answer=7),  # type: ignore[arg-type]
    "partial": lambda: Verdict("wrong", 0.25, "x", "nearly"),
    "print": _print,
}


@dataclass(frozen=True)
class Echo:
    """Gives back what it was given, to see what arrives."""

    suffix: str = ""

    def __call__(self, problem: Problem, response: str) -> Verdict:
        return Verdict("right", answer=f"{response}{self.suffix}", reason=problem.question)


not_callable = 7


def one_argument(response: str) -> bool:
    return bool(response)


@batched
def together(problems: list[Problem], responses: list[str]) -> Any:
    """What `judge` says of each, and what only a batch can do wrong."""
    for response in responses:
        if response == "short":
            return [True] * (len(responses) - 1)
        if response == "mapping":
            return dict.fromkeys(responses, True)
    if len(responses) > 1:
        SIZES.append(len(responses))
    if responses[0] == "sizes":
        return [Verdict("right", answer=" ".join(map(str, SIZES))) for _ in responses]
    return (judge(problem, response) for problem, response in zip(problems, responses, strict=True))


SIZES: list[int] = []


async def later(problem: Problem, response: str) -> Any:
    """As `judge`; some wait, one without end."""
    if response in ("wait", "wait for ever", "never stop"):
        await asyncio.sleep(0.2 if response == "wait" else 1 if response == "wait for ever" else 0)
    while response in ("wait for ever", "never stop"):
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            if response == "wait for ever":
                raise
    if response == "background":
        task = asyncio.create_task(_leave())
        await asyncio.sleep(5)
        return task.done()
    if response == "cancelled":
        raise asyncio.CancelledError
    return True if response == "wait" else judge(problem, response)


async def _leave() -> None:
    sys.exit(3)


@dataclass(frozen=True)
class Gated:
    """How many are under way at once."""

    concurrency: int = 3

    async def __call__(self, problem: Problem, response: str) -> Verdict:
        UNDER_WAY.add(response)
        await asyncio.sleep(0.01)
        count = len(UNDER_WAY)
        UNDER_WAY.discard(response)
        return Verdict("right", answer=str(count))


UNDER_WAY: set[str] = set()
