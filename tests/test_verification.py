"""The verifier pool: true verdicts whatever a verifier does, each failure at the cost of one response."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selftrain.budget import ErrorBudget, TooManyErrors, count_statuses
from selftrain.judging import Request, VerifierError, VerifierSpec, resolve_now
from selftrain.types import Problem, Verdict
from selftrain.verification import VerifierPool

PLUGINS = Path(__file__).parent / "plugins"
BAD = str(PLUGINS / "bad_verifiers.py")
PROBLEM = Problem("t/train/0", "t", "train", "2 + 2?", "4")


def request(response: str, task: str = "t") -> Request:
    return Request(task, PROBLEM, response)


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    specs = {
        "t": VerifierSpec(f"{BAD}:judge", label="bad@1"),
        "lenient": VerifierSpec(f"{BAD}:judge", label="bad@2", right_at=0.5),
        "echo": VerifierSpec(f"{BAD}:Echo", {"suffix": "!"}, label="echo@1"),
    }
    with VerifierPool(specs, workers=2, seconds=0.5, memory_mb=64) as pool:
        yield pool


def judge(pool: VerifierPool, *responses: str, task: str = "t") -> list[Verdict]:
    return list(pool.judge(request(response, task) for response in responses))


def test_right_and_wrong(pool: VerifierPool) -> None:
    right, wrong = judge(pool, "4", "5")
    assert (right.status, right.value, right.verifier) == ("right", 1.0, "bad@1")
    assert (wrong.status, wrong.value) == ("wrong", 0.0)
    assert 0 < right.seconds < 0.5


@pytest.mark.parametrize(
    ("response", "status", "reason"),
    [
        ("hang", "timeout", "killed after 0.5"),
        ("hang in C", "timeout", "killed after 0.5"),
        ("raise", "error", "ValueError: no such luck"),
        ("exit", "error", "SystemExit: 3"),
        ("os._exit", "error", "the worker process ended with exit status 3"),
        ("segfault", "error", "the worker process was killed by SIGSEGV"),
        ("kill", "error", "the worker process was killed by SIGKILL"),
        ("kill keeper", "error", "the worker process was killed by SIGKILL"),
        ("outlive keeper", "timeout", "killed after 0.5"),
        ("stop keeper", "timeout", "killed after 0.5"),
        ("memory", "error", "memory: "),
        ("nan", "error", "value nan, not a number from 0 to 1"),
        ("two", "error", "value 2.0, not"),
        ("minus", "error", "value -0.5, not"),
        ("none", "error", "returned a NoneType, not a Verdict"),
        ("text", "error", "returned a str, not a Verdict"),
        ("value two", "error", "value 2.0, not"),
        ("bad status", "error", "status 'great'; known: right"),
        ("bad answer", "error", "not a string"),
    ],
)
def test_a_failure_costs_one_response(pool: VerifierPool, response: str, status: str, reason: str) -> None:
    spent = time.process_time()
    before, culprit, after = judge(pool, *["4"] * 20, response, *["5"] * 20)[19:22]
    assert time.process_time() - spent < 0.3  # To wait is no work.
    assert (culprit.status, culprit.value, culprit.verifier) == (status, None, "bad@1")
    assert culprit.reason is not None and reason in culprit.reason
    assert (before.status, after.status) == ("right", "wrong")


def test_what_a_verifier_may_return(pool: VerifierPool) -> None:
    half, one, partial, noisy = judge(pool, "half", "one", "partial", "print")
    assert (half.status, half.value) == ("wrong", 0.5)
    assert (one.status, one.value) == ("right", 1.0)
    assert (partial.status, partial.value, partial.answer, partial.reason) == ("wrong", 0.25, "x", "nearly")
    assert noisy.status == "right"
    assert judge(pool, "half", task="lenient")[0].status == "right"


def test_any_text_survives_the_trip(pool: VerifierPool) -> None:
    texts = ["", "a\x00b", "\ud800 lone", "ünïcödé 🙂", "\r\n", "x" * 1_000_000]
    assert [verdict.answer for verdict in judge(pool, *texts, task="echo")] == [text + "!" for text in texts]


def test_order_and_status_of_many_with_failures_among_them(pool: VerifierPool) -> None:
    texts = [str(number % 5) for number in range(3000)]
    for position, bad in ((0, "hang"), (700, "os._exit"), (701, "raise"), (1500, "hang in C"), (2999, "memory")):
        texts[position] = bad
    verdicts = judge(pool, *texts)
    expected = {"hang": "timeout", "hang in C": "timeout", "4": "right", "raise": "error"}
    expected |= {"os._exit": "error", "memory": "error"}
    assert [verdict.status for verdict in verdicts] == [expected.get(text, "wrong") for text in texts]
    assert count_statuses(verdicts) == {"right": 599, "wrong": 2396, "unparsed": 0, "timeout": 2, "error": 3}


def test_many_hangs_in_a_row_are_all_timeouts(pool: VerifierPool) -> None:
    start = time.monotonic()
    verdicts = judge(pool, *["hang"] * 4, "4")
    assert [verdict.status for verdict in verdicts] == ["timeout"] * 4 + ["right"]
    assert all(0.5 <= verdict.seconds < 2 for verdict in verdicts[:4])
    assert time.monotonic() - start < 10


def test_four_threads_at_once(pool: VerifierPool) -> None:
    answers: dict[int, list[str | None]] = {}

    def work(number: int) -> None:
        requests = (request("hang" if number == item == 2 else f"{number}-{item}", "echo") for item in range(500))
        answers[number] = [verdict.answer for verdict in pool.judge(requests)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    list(map(threading.Thread.join, threads))
    for number in (0, 1, 3):
        assert answers[number] == [f"{number}-{item}!" for item in range(500)]
    assert answers[2][2:4] == ["hang!", "2-3!"]


def test_two_workers_work_at_once() -> None:
    with VerifierPool({"t": VerifierSpec(f"{BAD}:judge")}, workers=2) as pool:
        start = time.monotonic()
        verdicts = judge(pool, *["sleep", "pid"] * 10)
        assert time.monotonic() - start < 0.9 * 10 * 0.2
    assert len({verdict.answer for verdict in verdicts} - {None}) == 2


def test_requests_are_drawn_as_they_are_needed(pool: VerifierPool) -> None:
    drawn = 0

    def endless() -> Iterator[Request]:
        nonlocal drawn
        while True:
            drawn += 1
            yield request("4")

    verdicts = pool.judge(endless())
    for _ in range(5000):
        assert next(verdicts).status == "right"
    verdicts.close()  # type: ignore[attr-defined]
    assert drawn < 5000 + 20 * 64


def test_memory_does_not_grow_with_the_number_of_requests(pool: VerifierPool) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in pool.judge(request("4" * 100) for _ in range(count)):
            pass
        _, high = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return high

    peak(2000)
    assert peak(20_000) < 1.5 * peak(4000)


def test_an_error_of_the_source_reaches_the_caller(pool: VerifierPool) -> None:
    def source() -> Iterator[Request]:
        yield request("4")
        raise OSError("disk on fire")

    with pytest.raises(OSError, match="disk on fire"):
        list(pool.judge(source()))
    assert judge(pool, "4")[0].status == "right"


def test_an_unknown_task_is_named(pool: VerifierPool) -> None:
    with pytest.raises(VerifierError, match=r"no verifier for task 'ecco'.*'echo'"):
        judge(pool, "4", task="ecco")


def test_start_up_is_not_charged_to_the_deadline() -> None:
    spec = VerifierSpec(f"{PLUGINS / 'slow_import.py'}:judge")
    with VerifierPool({"t": spec}, workers=1, seconds=0.5) as pool:
        statuses = [verdict.status for verdict in judge(pool, "4", "die", "4", "5")]
    assert statuses == ["right", "error", "right", "wrong"]


def test_verifiers_by_name_and_dotted_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLUGINS))
    specs = {
        "name": VerifierSpec("numeric_answer", {"fallback_last_number": False}),
        "dotted": VerifierSpec("bad_verifiers:Echo"),
    }
    with VerifierPool(specs, workers=1) as pool:
        by_name = [verdict.status for verdict in judge(pool, "#### 4", "5, that is 4", task="name")]
        dotted = judge(pool, "x", task="dotted")[0].answer
    assert by_name == ["right", "unparsed"]
    assert dotted == "x"


BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("numeric_anser", {}, "did you mean 'numeric_answer'"),
    ("numeric_answer", {"tolerence": 1}, "tolerence"),
    ("numeric_answer", {"tolerance": 5}, "tolerance must be"),
    (f"{BAD}:absent", {}, "has no 'absent'"),
    (f"{BAD}:not_callable", {}, "must be callable"),
    (f"{BAD}:one_argument", {}, r"must take \(problem, response\)"),
    (f"{BAD}:judge", {"x": 1}, "takes no options"),
    ("no/such/file.py:judge", {}, "no such file"),
]


@pytest.mark.parametrize(("reference", "options", "message"), BROKEN)
def test_a_verifier_that_does_not_load_is_said_at_once(reference: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(VerifierError, match=message):
        resolve_now(VerifierSpec(reference, options))


def test_a_pool_with_a_verifier_that_does_not_load_raises_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('half written')")
    spec = VerifierSpec(f"{tmp_path / 'broken.py'}:judge")
    before = children()
    message = r"cannot load verifier '.*broken\.py:judge': RuntimeError: half written"
    with pytest.raises(VerifierError, match=message), VerifierPool({"t": spec}):
        pass
    assert children() == before


def children() -> list[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [child for task in tasks for child in task.read_text().split()]


def test_a_pool_outside_with_says_so() -> None:
    with pytest.raises(RuntimeError, match="with VerifierPool"):
        judge(VerifierPool({"t": VerifierSpec("numeric_answer")}), "4")


def test_leaving_the_pool_stops_a_hanging_verifier_at_once() -> None:
    failures: list[BaseException] = []

    def work(pool: VerifierPool) -> None:
        try:
            judge(pool, "hang")
        except RuntimeError as error:
            failures.append(error)

    with VerifierPool({"t": VerifierSpec(f"{BAD}:judge")}, workers=1, seconds=600) as pool:
        thread = threading.Thread(target=work, args=(pool,))
        thread.start()
        time.sleep(0.3)
        start = time.monotonic()
    thread.join()
    assert time.monotonic() - start < 2
    assert "closed" in str(failures[0])


PARENT = """
import sys, threading, time
from pathlib import Path
from selftrain.types import Problem
from selftrain.judging import Request, VerifierSpec
from selftrain.verification import VerifierPool

problem = Problem("t/train/0", "t", "train", "2 + 2?", "4")
with VerifierPool({"t": VerifierSpec(sys.argv[1])}, seconds=600) as pool:
    pids = {v.answer for v in pool.judge(Request("t", problem, r) for r in ["group", "sleep"] * 10)} - {None}
    Path(sys.argv[2] + ".part").write_text(" ".join(pids))
    Path(sys.argv[2] + ".part").rename(sys.argv[2])
    list(pool.judge([Request("t", problem, "hang in C"), Request("t", problem, "hang with child")] * 20))
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_parent_leaves_no_orphans(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(PLUGINS.parents[1])}
    arguments = [sys.executable, "-c", PARENT, f"{BAD}:judge", str(tmp_path / "pids")]
    with subprocess.Popen(arguments, env=environment) as parent:
        end = time.monotonic() + 20
        while not (tmp_path / "pids").exists() and time.monotonic() < end:
            time.sleep(0.02)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        time.sleep(0.5)
        assert len(pids) == 4 and all(map(running, pids))
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 5
    while any(map(running, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(running, pids))


def test_error_budget_stops_after_enough_were_judged() -> None:
    budget = ErrorBudget(rate=0.2, after=50)
    good, bad = Verdict("wrong", 0.0, verifier="v@1"), Verdict("timeout", reason="killed after 10 s", verifier="v@1")
    list(budget.watch([bad] * 9 + [good] * 36))
    list(budget.watch([bad, good, good, good, good]))  # 10 of 50 are not more than a fifth.
    with pytest.raises(TooManyErrors, match=r"could not judge 11 of 51 .*0 errors, 11 timeouts; last: v@1: killed"):
        budget.add(bad)


def test_error_budget_does_not_judge_the_first_few() -> None:
    budget = ErrorBudget()
    for _ in range(49):
        budget.add(Verdict("error", reason="x"))
    with pytest.raises(TooManyErrors, match="50 of 50"):
        budget.add(Verdict("error", reason="x"))
