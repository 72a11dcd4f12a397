"""The order of the stages and nothing else: a generator of events that ends when the run does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from selftrain.artifacts import RunError, Stage, write_text
from selftrain.config import ConfigError
from selftrain.events import Evaluated, Event, Finished, Notice, StageFinished
from selftrain.registry import nearest
from selftrain.stages.evaluate import metrics_of
from selftrain.stages.order import Work, iteration_stages, preparation
from selftrain.stages.place import in_place
from selftrain.stages.session import Session


def run(session: Session, until: str | None = None) -> Iterator[Event]:
    """All iterations; stages that are done are skipped.

    Args:
        until: ``STAGE`` or ``ITERATION/STAGE``: end after it.
    """
    config = session.config
    if dropped := {task: count for task, count in session.problems.dropped.items() if count}:
        told = ", ".join(f"{count} of {task}" for task, count in dropped.items())
        yield Notice(f"left out problems that also occur in an evaluated split: {told}", "warning")
    for stage, work in preparation(session):
        yield from finish(session, stage, work)
        if until in (stage.name, stage.label):
            return
    for iteration in range(config.loop.iterations + 1):
        for stage, work in iteration_stages(session, iteration):
            yield from finish(session, stage, work)
            if until in (stage.name, stage.label):
                return
        append_metrics(session, iteration)
        if reason := stop_reason(session, iteration):
            yield Finished(str(session.run.root), reason)
            return
    yield Finished(str(session.run.root), f"all {config.loop.iterations} iterations are done")


def finish(session: Session, stage: Stage, work: Work) -> Iterator[Event]:
    """Run a stage, unless its mark says it is done."""
    if stage.done():
        yield StageFinished(stage.iteration, stage.name, 0.0, "done before", skipped=True)
        if stage.name == "evaluate":
            rows = tuple(metrics_of(session, stage.iteration))
            yield Evaluated(stage.iteration, rows, {})
        return
    began = time.monotonic()
    yield from in_place(session, stage, work)
    if not stage.mark.exists():
        raise RunError(f"stage {stage.label} ended without its mark after {time.monotonic() - began:.0f} s")


def append_metrics(session: Session, iteration: int) -> None:
    """``metrics.jsonl``: the lines of all iterations so far, written as a whole, so that no kill can tear it.

    Lines of later iterations, done before this command, stay.
    """
    lines = [
        json.dumps(row, sort_keys=True) + "\n" for number in range(iteration + 1) for row in metrics_of(session, number)
    ]
    text = "".join(lines)
    path = session.run.metrics
    if not path.exists() or not path.read_text().startswith(text):
        write_text(path, text)


def stop_reason(session: Session, iteration: int) -> str | None:
    """Why the loop ends here, by the metric of the validation split averaged over tasks; None where it goes on."""
    rule = session.config.loop.stop
    if rule is None:
        return None
    history = [validation(session, number) for number in range(iteration + 1)]
    best = max(range(len(history)), key=lambda i: history[i])
    if iteration - best < rule.patience:
        return None
    return (
        f"{rule.metric} on {rule.split} has not improved for {rule.patience} iteration(s): best {history[best]:.3f} "
        f"in iteration {best}, now {history[-1]:.3f}"
    )


def validation(session: Session, iteration: int) -> float:
    rule = session.config.loop.stop
    assert rule is not None
    values = [row[rule.metric] for row in metrics_of(session, iteration) if row["split"] == rule.split]
    return float(sum(values) / len(values))


def check_marks(session: Session) -> None:
    """Whether what is done fits the config.

    Raises:
        StaleStage: for the first stage that does not.
    """
    for stage in _every_stage(session):
        stage.done()


def dependants(session: Session, label: str) -> list[Stage]:
    """A stage and all that come after it, for ``--redo``."""
    every = _every_stage(session)
    return every[[stage.label for stage in every].index(label) :]


def check_labels(session: Session, until: str | None, redo: str | None) -> None:
    """Raises ConfigError for a stage the run does not have."""
    every = _every_stage(session)
    labels = list(dict.fromkeys(stage.label for stage in every))
    if redo is not None and redo not in labels:
        raise ConfigError(f"--redo {redo}: no such stage ({nearest(redo, labels)})")
    names = [*labels, *(stage.name for stage in every)]
    if until is not None and until not in names:
        raise ConfigError(f"--until {until}: no such stage ({nearest(until, names)})")


def _every_stage(session: Session) -> list[Stage]:
    every = [stage for stage, _ in preparation(session)]
    for iteration in range(session.config.loop.iterations + 1):
        every += [stage for stage, _ in iteration_stages(session, iteration)]
    return every
