"""Verifiers that are async or take batches: several responses at once, each failure at the cost of one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from selftrain.judging import Request, VerifierSpec, load
from selftrain.types import Problem, Verdict
from selftrain.verification import VerifierPool

BAD = str(Path(__file__).parent / "plugins" / "bad_verifiers.py")
PROBLEM = Problem("t/train/0", "t", "train", "2 + 2?", "4")


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    specs = {name: VerifierSpec(f"{BAD}:{name}", label=name) for name in ("judge", "together", "later", "Gated")}
    with VerifierPool(specs, workers=1, seconds=1, memory_mb=64) as pool:
        yield pool


def judge(pool: VerifierPool, task: str, *responses: str) -> list[Verdict]:
    return list(pool.judge(Request(task, PROBLEM, response) for response in responses))


@pytest.mark.parametrize("form", ["together", "later"])
@pytest.mark.parametrize(
    ("response", "status", "reason"),
    [
        ("hang in C", "timeout", "killed after 1"),
        ("raise", "error", "ValueError: no such luck"),
        ("exit", "error", "SystemExit: 3"),
        ("os._exit", "error", "the worker process ended with exit status 3"),
        ("memory", "error", "memory: "),
        ("nan", "error", "value nan, not a number from 0 to 1"),
        ("none", "error", "returned a NoneType, not a Verdict"),
        ("text", "error", "returned a str, not a Verdict"),
        ("not mine", "error", "not mine: "),
    ],
)
def test_a_failure_costs_one_response_of_those_judged_together(
    pool: VerifierPool, form: str, response: str, status: str, reason: str
) -> None:
    before, culprit, after = judge(pool, form, *["4"] * 5, response, *["5"] * 5)[4:7]
    assert (culprit.status, culprit.value, culprit.verifier) == (status, None, form)
    assert culprit.reason is not None and reason in culprit.reason
    assert (before.status, after.status) == ("right", "wrong")


@pytest.mark.parametrize(
    ("response", "reason"),
    [("short", "returned 0 verdicts for 1 responses"), ("mapping", "returned a dict, not a list of verdicts")],
)
def test_a_batch_of_another_length_is_asked_one_by_one(pool: VerifierPool, response: str, reason: str) -> None:
    before, culprit, after = judge(pool, "together", "4", response, "5")
    assert (before.status, culprit.status, after.status) == ("right", "error", "wrong")
    assert culprit.reason is not None and reason in culprit.reason


def test_batches_are_full_however_long_they_take(pool: VerifierPool) -> None:
    judge(pool, "judge", *["sleep"] * 4)  # Chunks of a verifier that judges one by one are small from here on.
    sizes = judge(pool, "together", *["sleep"] * 3, *["4"] * 61, "sizes")[-1].answer
    assert sizes is not None and sizes.split()[-1] == "64"


def test_a_deadline_of_a_batch_is_that_of_one_response(pool: VerifierPool) -> None:
    """Six of 0.2 s overrun it together; none does alone."""
    verdicts = judge(pool, "together", *["sleep"] * 6)
    assert [verdict.status for verdict in verdicts] == ["right"] * 6
    assert all(0.2 <= verdict.seconds < 1 for verdict in verdicts)


def test_async_responses_wait_at_the_same_time(pool: VerifierPool) -> None:
    start = time.monotonic()
    verdicts = judge(pool, "later", *["wait"] * 40)
    assert time.monotonic() - start < 40 * 0.2 / 4
    assert [verdict.status for verdict in verdicts] == ["right"] * 40
    assert all(verdict.seconds >= 0.2 for verdict in verdicts)


@pytest.mark.parametrize("late", ["wait for ever", "never stop"])
def test_an_async_response_that_overruns_keeps_nobody_up(pool: VerifierPool, late: str) -> None:
    verdicts = judge(pool, "later", "wait", late, "4", "5")
    assert [verdict.status for verdict in verdicts] == ["right", "timeout", "right", "wrong"]
    assert 1 <= verdicts[1].seconds < 2
    assert judge(pool, "later", "4")[0].status == "right"


def test_an_async_verifier_that_cancels_itself_is_an_error(pool: VerifierPool) -> None:
    verdict, other = judge(pool, "later", "cancelled", "4")
    assert (verdict.status, other.status) == ("error", "right")
    assert "CancelledError" in str(verdict.reason)


def test_what_a_task_of_its_own_raises_costs_one_response(pool: VerifierPool) -> None:
    verdicts = judge(pool, "later", "4", "background", "5")
    assert [verdict.status for verdict in verdicts] == ["right", "error", "wrong"]
    assert "exit status 1" in str(verdicts[1].reason)


def test_an_async_verifier_says_how_many_at_once(pool: VerifierPool) -> None:
    counts = [int(str(verdict.answer)) for verdict in judge(pool, "Gated", *map(str, range(30)))]
    assert max(counts) == 3


def test_tasks_of_several_forms_keep_their_order(pool: VerifierPool) -> None:
    forms = ["judge", "together", "later"]
    requests = [Request(forms[number // 3 % 3], PROBLEM, str(number % 5)) for number in range(200)]
    verdicts = list(pool.judge(requests))
    assert [verdict.status for verdict in verdicts] == ["right" if n % 5 == 4 else "wrong" for n in range(200)]
    assert [verdict.verifier for verdict in verdicts] == [request.task for request in requests]


def test_any_form_judges_in_this_process() -> None:
    for form in ("judge", "together", "later"):
        single = load(VerifierSpec(f"{BAD}:{form}")).single
        assert single(PROBLEM, "4") == ("right", 1.0, None, None, None)
        assert single(PROBLEM, "raise")[0] == "error"


def test_right_at_and_numbers_of_numpy(tmp_path: Path) -> None:
    path = tmp_path / "numbers.py"
    path.write_text(
        "import numpy as np\n"
        "def half(problem, response): return 0.5\n"
        "def truth(problem, response): return np.bool_(response == '4')\n"
        "def own(problem, response): return 0.5\n"
        "own.right_at = 0.5\n"
        "class Own:\n"
        "    right_at = 0.25\n"
        "    def __call__(self, problem, response): return np.float32(0.25)\n"
    )
    owned = load(VerifierSpec(f"{path}:own", {"right_at": 0.75})).single(PROBLEM, "")
    assert owned[:2] == ("wrong", 0.5)
    assert load(VerifierSpec(f"{path}:own")).single(PROBLEM, "")[:2] == ("right", 0.5)
    wrong, right = (load(VerifierSpec(f"{path}:half", {"right_at": at})).single(PROBLEM, "") for at in (0.75, 0.5))
    assert (wrong[:2], right[:2]) == (("wrong", 0.5), ("right", 0.5))
    assert load(VerifierSpec(f"{path}:truth")).single(PROBLEM, "4")[:2] == ("right", 1.0)
    assert load(VerifierSpec(f"{path}:Own")).single(PROBLEM, "4")[:2] == ("right", 0.25)


def test_a_long_reason_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "talks.py"
    path.write_text(
        "from selftrain.types import Verdict\n"
        "def talks(problem, response): return Verdict(response, reason='x' * 1_000_000)\n"
    )
    for status in ("wrong", "error"):
        _, _, _, reason, _ = load(VerifierSpec(f"{path}:talks")).single(PROBLEM, status)
        assert reason == "x" * 500
