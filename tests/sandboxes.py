"""Every level of isolation this machine has, one after the other, and what tests ask at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import LEVELS

from selftrain.sandbox import levels
from selftrain.sandbox.box import foreign_uids
from selftrain.types import Problem, Verdict
from selftrain.verifiers.unit_tests import UnitTests

GOOD = "def f(x):\n    return x + 1\n"


@pytest.fixture(params=levels.LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A level; tests run at it as if there were no stronger one."""
    name: str = request.param
    if (lacking := levels.trial(name)) is not None:
        pytest.skip(f"{LEVELS} '{name}': {lacking}")
    monkeypatch.setattr(levels, "strongest", lambda: name)
    yield name


def problem(answer: Any, **metadata: Any) -> Problem:
    return Problem("code/test/1", "code", "test", "?", answer, metadata=metadata)


def calling(*cases: tuple[list[Any], Any]) -> Problem:
    """Calls of ``f``."""
    tests = [{"args": args, "expected": expected} for args, expected in cases]
    return problem({"kind": "calls", "entry_point": "f", "cases": tests})


NEXT = calling(([1], 2), ([41], 42))
"""What `GOOD` passes."""


ASSERTS = problem({"kind": "asserts", "setup": "", "tests": ["assert f(1) == 2", "assert f(41) == 42"]})
CHECK = problem(
    {"kind": "check", "entry_point": "f", "test": "def check(candidate):\n    assert candidate(1) == 2\n"
     "    assert candidate(41) == 42\n"}
)  # fmt: skip
STDIO = problem({"kind": "stdio", "cases": [{"input": "1\n", "output": "2\n"}, {"input": "41", "output": "42"}]})


def judged(program: str, asked: Problem = NEXT, seconds: float = 10.0) -> Verdict:
    return UnitTests(seconds=seconds)(asked, program)


def still_works() -> None:
    """The sandbox judges on as if nothing had happened."""
    assert judged(GOOD).status == "right"


TRYING = """
def tried(attempt):
    try:
        attempt()
    except (OSError, ImportError) as error:
        return type(error).__name__
    return "done"
"""


def results(program: str, *names: str) -> None:
    """Each attempt of a program must have been refused."""
    for name in names:
        verdict = judged(f"{TRYING}{program}\n\ndef f(_):\n    return tried({name})", calling(([0], "done")))
        assert verdict.status == "wrong", name
    still_works()


def left_running() -> list[int]:
    """Processes of the user that programs of this process run as; nobody can tell where root does not run them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid in foreign_uids():
                found.append(int(folder.name))
        except FileNotFoundError:
            continue
    return found if os.getuid() == 0 else []
