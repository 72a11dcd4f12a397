"""Verify: a verdict for every sample, part by part."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selftrain import records
from selftrain.budget import ErrorBudget
from selftrain.drawing.store import shared_verdicts
from selftrain.events import Event, Progress, StageFinished, StageStarted
from selftrain.judging import Request
from selftrain.session import Session
from selftrain.stages.regrade import regraded_grow
from selftrain.types import Sample, Verdict


def verdicts_folder(session: Session, iteration: int) -> Path:
    return session.run.iteration(iteration) / "verdicts"


def judge_part(session: Session, iteration: int, part: Path, budget: ErrorBudget) -> Counter[str]:
    """Write the verdicts of a part of samples, unless these verifiers could do it before; counts by status.

    Args:
        budget: of the whole stage; the part is counted there.

    Raises:
        TooManyErrors: the verifier could not judge too large a share of them.
    """
    target = verdicts_folder(session, iteration) / part.name
    if target.exists() and session.judges.issuperset(records.column(target, "verifier")):
        counts: Counter[Any] = Counter(records.column(target, "status"))
        if counts["error"] + counts["timeout"] <= budget.rate * counts.total():
            budget.add_counted(counts)
            return counts
    ids: list[str] = []

    def requests() -> Iterator[Request]:
        for sample in records.rows(part, Sample):
            ids.append(sample.id)
            problem = session.problems.by_id[sample.problem_id]
            yield session.judgement(problem, sample.text, session.asked(sample.step))

    verdicts = list(budget.watch(session.verifiers.judge(requests())))
    records.write(target, Verdict, verdicts, sample_id=ids)
    return Counter(verdict.status for verdict in verdicts)


def set_aside_others(session: Session, iteration: int) -> None:
    """Move verdicts of other verifiers out of the way of those to come."""
    every = records.parts(verdicts_folder(session, iteration))
    session.run.set_aside([part for part in every if not session.judges.issuperset(records.column(part, "verifier"))])


def verify(session: Session, iteration: int) -> Iterator[Event]:
    """Judge the samples of a finished Grow: after a kill, again with another verifier, or those of another run."""
    started = time.monotonic()
    samples, folder = session.run.iteration(iteration) / "samples", verdicts_folder(session, iteration)
    parts = records.parts(samples)
    yield StageStarted(iteration, "verify", len(parts), "parts")
    set_aside_others(session, iteration)
    shared = shared_verdicts(session, iteration, samples)
    yield from shared.take(folder)
    counts: Counter[str] = Counter()
    budget = ErrorBudget(session.config.reward.verify.max_errors)
    for number, part in enumerate(parts, 1):
        counts += judge_part(session, iteration, part, budget)
        yield Progress(iteration, "verify", number, len(parts), counts=dict(counts))
        session.check_stop()
    budget.check()
    yield from shared.publish(folder)
    yield from regraded_grow(session, iteration)
    session.stages.verify(iteration).finish([folder])
    summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    yield StageFinished(iteration, "verify", time.monotonic() - started, summary, False)
