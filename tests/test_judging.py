"""Judging beside sampling: one pool for all threads, verdicts before the last is there, and an end without waiting."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selftrain.artifacts import RunDir
from selftrain.budget import ErrorBudget
from selftrain.config import load_config
from selftrain.drawing.ledger import Ledger
from selftrain.sampling.base import Completion, Request
from selftrain.schema import Sampling
from selftrain.session import Session
from selftrain.stages.watch import TOGETHER, Judging
from selftrain.types import Problem, Status, Verdict
from selftrain.verification import VerifierPool

CONFIG = """
run: {{folder: {folder}}}
model: {{architecture: {{model_type: llama}}, alphabet: "0123456789+-*= #"}}
tasks: {{t: {{kind: arithmetic, verifier: '{verifier}'}}}}
grow: {{draft: {{n: 200, enough: 1, sampler: scripted}}}}
reward: {{verify: {{seconds: 600}}}}
launch: {{verify_workers: 2}}
"""
JUDGE = """
import time
def judge(problem, response):
    time.sleep(600 if response == "hang" else 0)
    return response == "4"
"""
PROBLEM = Problem("t/train/0", "t", "train", "2+2=", "4")


class Asked(Session):
    """A session that needs no model: nothing of a prompt is looked at."""

    def asked(self, step: str) -> dict[str, Any]:
        return dict.fromkeys(self.config.tasks)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    (tmp_path / "judge.py").write_text(JUDGE)
    (tmp_path / "c.yaml").write_text(CONFIG.format(folder=tmp_path, verifier=f"{tmp_path}/judge.py:judge"))
    with Asked(load_config(tmp_path / "c.yaml"), RunDir(tmp_path / "run")) as opened:
        yield opened


def work(n: int) -> list[Request]:
    return [Request(PROBLEM, (1,), tuple(range(n)), Sampling(), "draft")]


def answers(*texts: str) -> list[Completion]:
    return [Completion(0, index, (1,), text, "eos") for index, text in enumerate(texts)]


def test_the_verifiers_are_started_once_by_who_starts_the_judging(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several threads that ask first at once would each start a pool where nothing locks: Python 3.12 and later."""
    started: list[threading.Thread] = []

    class Seen(VerifierPool):
        def __enter__(self) -> VerifierPool:
            started.append(threading.current_thread())
            return super().__enter__()

    monkeypatch.setattr("selftrain.session.VerifierPool", Seen)
    with Judging(session, 1, ErrorBudget()) as judging:
        for completion in answers(*"4444"):
            judging.arrived(work(4), [completion])
    assert started == [threading.main_thread()]


def test_verdicts_on_many_answers_are_there_before_the_last_is_judged(session: Session) -> None:
    requests = work(2 * TOGETHER)
    ledger = Ledger(requests, enough=1)
    with pytest.raises(KeyboardInterrupt), Judging(session, 1, ErrorBudget()) as judging:
        judging.begin("draft")
        judging.arrived(requests, ledger.finish(answers(*["4"] * (2 * TOGETHER - 1), "hang")))
        began = time.monotonic()
        while not judging.settle(ledger):
            assert time.monotonic() - began < 60, "verdicts wait for each other"
            time.sleep(0.01)
        assert len(ledger.dropped()) == 2 * TOGETHER - 1
        raise KeyboardInterrupt


def test_a_run_that_is_stopped_waits_for_no_judgement(session: Session) -> None:
    began = 0.0
    with pytest.raises(KeyboardInterrupt), Judging(session, 1, ErrorBudget()) as judging:
        judging.begin("draft")
        judging.arrived(work(200), answers(*["hang"] * 200))
        time.sleep(0.2)
        began = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - began < 5


class Slow(Counter[Status]):
    """Lets another thread run between reading and writing."""

    def __getitem__(self, key: Any) -> int:
        count: int = super().__getitem__(key)
        time.sleep(0)
        return count


def test_verdicts_of_several_threads_are_all_counted() -> None:
    budget = ErrorBudget(counts=Slow())
    each = [Verdict("right")] * 500
    threads = [threading.Thread(target=lambda: list(budget.watch(each))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    budget.add_counted({"right": 3})
    assert budget.counts == {"right": 2003}
