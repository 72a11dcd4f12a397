"""Verifiers made of async ones wait for many responses together, at any depth, whatever stands beside them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fake_judge import FakeJudge

from selftrain.judging import Judge, Request, VerifierSpec, load
from selftrain.types import Problem, Verdict
from selftrain.verification import VerifierPool

PROBLEM = Problem("t/train/0", "t", "train", "2 + 2?", "4")
PARTS = """
import asyncio, time
from dataclasses import dataclass
from typing import Any
from selftrain.judging import asked, batched
from selftrain.nested import VerifierPart

def slow(problem, response):
    time.sleep(0.05)
    return True

def hang(problem, response):
    time.sleep(60 if response == "hang" else 0)
    return True

def bound(problem, response):
    from selftrain.deadline import time_left
    return 0.9 < time_left() <= 1

async def later(problem, response):
    await asyncio.sleep(30 if response == "late" else 0.1)
    return response == problem.answer

@batched
async def together(problems, responses):
    await asyncio.sleep(0.001)
    return [True] * len(problems)

async def rewards(completions, **columns):
    return await together(completions, completions)

@dataclass(frozen=True)
class Wrapped:
    verifier: VerifierPart = None

    def __call__(self, problem, response):
        return asked(self.verifier, problem, response)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("parts") / "parts.py"
    path.write_text(PARTS)
    return str(path)


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge() as fake:
        yield fake


def combined(kind: str, *members: Any) -> dict[str, Any]:
    return {"kind": kind, "verifiers": {str(place): member for place, member in enumerate(members)}}


def gated(verifier: Any) -> dict[str, Any]:
    return {"kind": "format_gate", "pattern": ".", "verifier": verifier}


def spec(tree: dict[str, Any]) -> VerifierSpec:
    return VerifierSpec(tree["kind"], {name: value for name, value in tree.items() if name != "kind"})


def judged(tree: dict[str, Any], responses: list[str], seconds: float = 10) -> list[Verdict]:
    with VerifierPool({"t": spec(tree)}, workers=1, seconds=seconds) as pool:
        return list(pool.judge(Request("t", PROBLEM, response) for response in responses))


def statuses(verdicts: list[Verdict]) -> list[str]:
    return [verdict.status for verdict in verdicts]


@pytest.mark.parametrize("where", ["all", "any", "weighted", "format_gate", "length_penalty", "cascade", "deep"])
def test_a_server_inside_is_asked_about_many_at_once(server: FakeJudge, where: str) -> None:
    http = {"kind": "http", "url": server.url, "concurrency": 6}
    trees = {
        "format_gate": gated(http),
        "length_penalty": {"kind": "length_penalty", "verifier": http},
        "cascade": {"kind": "cascade", "rules": http, "judge": {"url": "http://127.0.0.1:9", "model": "m"}},
        "deep": gated(combined("all", combined("any", "numeric_answer", {"kind": "length_penalty", "verifier": http}))),
    }
    tree = trees.get(where) or combined(where, "exact_answer" if where != "any" else "numeric_answer", http)
    responses = ["x", "4"] * 20 if where in ("any", "deep") else ["4"] * 40
    verdicts = judged(tree, responses)
    assert 3 <= server.most <= 6
    assert statuses(verdicts) == ["wrong" if response == "x" else "right" for response in responses]


def test_forms_follow_the_parts(file: str) -> None:
    def form(tree: dict[str, Any]) -> Judge:
        return load(spec(tree))

    limited = {"kind": "http", "url": "http://x/y", "concurrency": 3}
    assert form(gated(combined("all", "exact_answer", "numeric_answer"))).form == "parts"
    assert form(gated(combined("all", "exact_answer", f"{file}:together"))).form == "parts"
    assert form(gated(combined("all", "exact_answer", f"{file}:later"))).form == "async"
    assert form(gated(combined("all", limited, f"{file}:later"))).concurrent == 3
    assert form({"kind": f"{file}:Wrapped", "verifier": f"{file}:later"}).form == "single"


def test_what_does_not_wait_is_not_charged_to_those_beside_it(file: str) -> None:
    """40 of 0.05 s, one after the other, take twice the deadline; each has its own."""
    verdicts = judged(combined("all", f"{file}:slow", f"{file}:bound", f"{file}:later"), ["4"] * 40, seconds=1)
    assert statuses(verdicts) == ["right"] * 40
    assert all(0.1 <= verdict.seconds < 0.8 for verdict in verdicts)


def test_a_failure_inside_costs_one_response(file: str) -> None:
    tree = combined("all", f"{file}:hang", f"{file}:later")
    assert statuses(judged(tree, ["4", "late", "4", "hang", "5"], seconds=1)) == [
        "right", "timeout", "right", "timeout", "wrong",
    ]  # fmt: skip


def test_parts_that_wait_by_themselves(file: str) -> None:
    """A batched one, a reward function and a verifier of a user: async inside, and asked beside others."""
    members = [
        f"{file}:together",
        {"kind": "trl_reward", "function": f"{file}:rewards"},
        {"kind": f"{file}:Wrapped", "verifier": gated(f"{file}:later")},
        {"kind": f"{file}:Wrapped", "verifier": gated("exact_answer")},
    ]
    start = time.monotonic()
    for tree in (combined("all", *members), combined("all", *members, f"{file}:later")):
        assert statuses(judged(tree, ["4", "5", "4"], seconds=2)) == ["right", "wrong", "right"]
        assert load(spec(tree)).single(PROBLEM, "4")[:2] == ("right", 1.0)
    assert time.monotonic() - start < 10
