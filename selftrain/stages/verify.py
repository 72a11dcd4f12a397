"""Verify: a verdict for every sample, part by part."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from selftrain import records
from selftrain.events import Event, Progress, StageFinished, StageStarted
from selftrain.stages.plan import Stages
from selftrain.stages.session import Session
from selftrain.types import Sample, Verdict
from selftrain.verification import ErrorBudget, Request


def verdicts_folder(session: Session, iteration: int) -> Path:
    return session.run.iteration(iteration) / "verdicts"


def judge_part(session: Session, iteration: int, part: Path) -> Counter[str]:
    """Write the verdicts of a part of samples, unless these verifiers did; counts by status.

    Raises:
        TooManyErrors: the verifier could not judge too large a share of them.
    """
    target = verdicts_folder(session, iteration) / part.name
    if not target.exists() or not session.judges.issuperset(records.column(target, "verifier")):
        ids: list[str] = []

        def requests() -> Iterator[Request]:
            for sample in records.rows(part, Sample):
                ids.append(sample.id)
                problem = session.problems.by_id[sample.problem_id]
                yield Request(problem.task, problem, sample.text)

        budget = ErrorBudget(session.config.reward.verify.max_errors)
        verdicts = list(budget.watch(session.verifiers.judge(requests())))
        records.write(target, Verdict, verdicts, sample_id=ids)
    return Counter(records.column(target, "status"))


def verify(session: Session, iteration: int) -> Iterator[Event]:
    """Judge the samples of a finished Grow: after a kill, or again with another verifier."""
    started = time.monotonic()
    parts = records.parts(session.run.iteration(iteration) / "samples")
    yield StageStarted(iteration, "verify", len(parts), "parts")
    counts: Counter[str] = Counter()
    for number, part in enumerate(parts, 1):
        counts += judge_part(session, iteration, part)
        yield Progress(iteration, "verify", number, len(parts), counts=dict(counts))
        session.check_stop()
    Stages(session.config, session.run).verify(iteration).finish([verdicts_folder(session, iteration)])
    summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    yield StageFinished(iteration, "verify", time.monotonic() - started, summary, False)
