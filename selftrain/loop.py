"""The order of the stages and nothing else: a generator of events that ends when the run does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence

from selftrain.artifacts import Stage
from selftrain.checks.sources import said
from selftrain.checks.trainer import overridden
from selftrain.config import ConfigError
from selftrain.errors import RunError, StaleStage
from selftrain.evaluation import is_verdict
from selftrain.events import Evaluated, Event, Finished, Notice, StageFinished
from selftrain.files import write_text
from selftrain.planning.settings import evaluated
from selftrain.rationing import ended, plan
from selftrain.registry import nearest
from selftrain.session import Session
from selftrain.stages.evaluate import answers_fit, metrics_of, rejudged, searched_otherwise
from selftrain.stages.monitor import watch
from selftrain.stages.order import Work, iteration_stages, preparation
from selftrain.stages.place import in_place
from selftrain.stages.resident import roll_back
from selftrain.stages.thinning import thin_out


def run(session: Session, until: str | None = None) -> Iterator[Event]:
    """All iterations; stages that are done are skipped.

    Args:
        until: ``STAGE`` or ``ITERATION/STAGE``: end after it.
    """
    yield from _notes(session)
    yield from roll_back(session)
    for stage, work in preparation(session):
        yield from finish(session, stage, work)
        if until in (stage.name, stage.label):
            return
    iterations = session.config.loop.iterations
    for iteration in range(iterations + 1):
        if reason := plan(session, iteration):
            yield Finished(str(session.run.root), ended(session, reason, iteration))
            return
        for stage, work in iteration_stages(session, iteration):
            yield from finish(session, stage, work)
            if until in (stage.name, stage.label):
                return
        if reason := close(session, iteration):
            yield Finished(str(session.run.root), ended(session, reason, iteration + 1))
            return
    done = f"all {iterations} iterations are done"
    yield Finished(str(session.run.root), ended(session, done, iterations + 1))


def _notes(session: Session) -> Iterator[Notice]:
    """What is told of a run before it begins."""
    if dropped := {task: count for task, count in session.problems.dropped.items() if count}:
        told = ", ".join(f"{count} of {task}" for task, count in dropped.items())
        yield Notice(f"left out problems that also occur in an evaluated split: {told}", "warning")
    for line in session.unread_golds:
        yield Notice(line, "warning")
    for line in overridden(session.config):
        yield Notice(line, "warning")
    for line in said(session):
        yield Notice(line, "info")


def finish(session: Session, stage: Stage, work: Work) -> Iterator[Event]:
    """Run a stage, unless its mark says it is done."""
    if stage.done():
        yield StageFinished(stage.iteration, stage.name, 0.0, "done before", skipped=True)
        if stage.name == "evaluate":
            rows = tuple(metrics_of(session, stage.iteration))
            yield Evaluated(stage.iteration, rows, {})
        if stage.name == "score":
            yield from watch(session, stage.iteration, fresh=False)
        return
    began = time.monotonic()
    yield from in_place(session, stage, work)
    if not stage.mark.exists():
        raise RunError(f"stage {stage.label} ended without its mark after {time.monotonic() - began:.0f} s")
    if stage.name == "score":
        yield from watch(session, stage.iteration, fresh=True)


def close(session: Session, iteration: int) -> str | None:
    """What follows the stages of an iteration; why the loop ends here, if it does."""
    reason = None
    if evaluated(session.config, iteration):
        append_metrics(session, iteration)
        reason = stop_reason(session, iteration)
    thin_out(session, iteration)
    return reason


def append_metrics(session: Session, iteration: int) -> None:
    """``metrics.jsonl``: the lines of all iterations so far, written as a whole, so that no kill can tear it.

    Lines of later iterations, done before this command, stay.
    """
    lines = [
        json.dumps(row, sort_keys=True) + "\n"
        for number in looks(session, iteration)
        for row in metrics_of(session, number)
    ]
    text = "".join(lines)
    path = session.run.metrics
    if not path.exists() or not path.read_text().startswith(text):
        write_text(path, text)


def stop_reason(session: Session, iteration: int) -> str | None:
    """Why the loop ends here, by the metric of the validation split, averaged over tasks with a weight; else None."""
    rule = session.config.loop.stop
    if rule is None:
        return None
    history = {number: validation(session, number) for number in looks(session, iteration)}
    best = max(history, key=lambda number: history[number])
    if sum(number > best for number in history) < rule.patience:
        return None
    often = "iteration(s)" if session.config.loop.evaluate_every == 1 else "evaluation(s)"
    return (
        f"{rule.metric} on {rule.split} has not improved for {rule.patience} {often}: best {history[best]:.3f} "
        f"in iteration {best}, now {history[iteration]:.3f}"
    )


def looks(session: Session, iteration: int) -> list[int]:
    """Iterations up to this one that are evaluated."""
    return [number for number in range(iteration + 1) if evaluated(session.config, number)]


def validation(session: Session, iteration: int) -> float:
    rule = session.config.loop.stop
    assert rule is not None
    watched = session.problems.watched
    own = [row for row in metrics_of(session, iteration) if is_verdict(row) and row["task"] not in watched]
    rows = [row for row in own if row["split"] == rule.split]
    return float(sum(row[rule.metric] for row in rows) / len(rows))


def check_marks(session: Session, redo: Sequence[str] = ()) -> None:
    """Whether what is done, and is not to be redone, fits the config.

    Raises:
        StaleStage: it does not; names the keys of the first stage, and all that would have to be redone.
    """
    every = every_stage(session)
    redone = {stage.label for stage in dependants(every, redo)}
    reasons = {
        stage.label: reason for stage in every if stage.label not in redone and (reason := stage.stale()) is not None
    }
    if reasons:
        first, *others = roots(every, list(reasons))
        also = f" ({', '.join(others)} too)" if others else ""
        flags = " ".join(f"--redo {label}" for label in (*redo, first, *others))
        raise StaleStage(f"{reasons[first]}, or redo it{also}{_kept(every, [first, *others])} with {flags}")


def _kept(every: Sequence[Stage], labels: Sequence[str]) -> str:
    """What to add where all that differs is who judges, or who chooses among the answers of an evaluation."""
    stages = [stage for stage in every if stage.label in labels]
    if not all(stage.name == "verify" or answers_fit(stage) for stage in stages):
        return ""
    if not any(stage.name == "verify" or rejudged(stage) for stage in stages):
        if any(map(searched_otherwise, stages)):
            return " (samples and searches that are the same stay)"
        return " (answers stay and are scored again)"
    return " (answers stay and are judged again, old verdicts are kept under redone/, what changes is told)"


def dependants(every: Sequence[Stage], labels: Sequence[str]) -> list[Stage]:
    """Stages and all that read, directly or not, what they make: for ``--redo``."""
    found: dict[str, Stage] = {}
    for stage in every:
        if stage.label in labels or found.keys() & set(stage.reads):
            found[stage.label] = stage
    return list(found.values())


def roots(every: Sequence[Stage], labels: Sequence[str]) -> list[str]:
    """The labels that are not redone anyway when the ones before them are."""
    chosen: list[str] = []
    for label in labels:
        if label not in {stage.label for stage in dependants(every, chosen)}:
            chosen.append(label)
    return chosen


def check_labels(session: Session, until: str | None, redo: Sequence[str]) -> None:
    """Raises ConfigError for a stage the run does not have."""
    every = every_stage(session)
    labels = list(dict.fromkeys(stage.label for stage in every))
    for label in redo:
        if label not in labels:
            raise ConfigError(f"--redo {label}: no such stage ({nearest(label, labels)})")
    names = [*labels, *dict.fromkeys(stage.name for stage in every)]
    if until is not None and until not in names:
        raise ConfigError(f"--until {until}: no such stage ({nearest(until, names)})")


def every_stage(session: Session) -> list[Stage]:
    """All stages of the run in their order; building one digests what it depends on."""
    return list(each_stage(session))


def each_stage(session: Session) -> Iterator[Stage]:
    """The same one by one: what a stage depends on is looked up when it is asked for."""
    for stage, _ in preparation(session):
        yield stage
    for iteration in range(session.config.loop.iterations + 1):
        for stage, _ in iteration_stages(session, iteration):
            yield stage
