"""Verifiers that misbehave as the response tells them to."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    "memory": _fill_memory,
    "nan": lambda: float("nan"),
    "two": lambda: 2.0,
    "minus": lambda: -0.5,
    "none": lambda: None,
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
