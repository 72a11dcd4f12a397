"""One fit without a loop: the model it starts from, what its reference says of the examples, the fit, the mark."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path

from selftrain.artifacts import RunDir, Stage
from selftrain.config import to_tree
from selftrain.errors import StaleStage
from selftrain.events import Event, Notice, Progress, StageFinished, StageStarted
from selftrain.planning import fingerprints
from selftrain.planning.settings import POLICY, objective_needs
from selftrain.seeds import derive
from selftrain.session import Session
from selftrain.stages.checkpoints import finish_fit, run_fit
from selftrain.stages.compared import with_reference
from selftrain.stages.given import Given, counted
from selftrain.stages.order import preparation
from selftrain.train_config import TrainConfig, fitted_as
from selftrain.types import Example

CHECKPOINT, LOG = "checkpoint", "log.jsonl"
"""Where the fit writes, below the folder; the log is put beside the checkpoint."""


class FitDir(RunDir):
    """The folder of a fit: one iteration, without a folder of its own."""

    def iteration(self, number: int) -> Path:
        return self.root


def fit_stage(session: Session, config: TrainConfig) -> Stage:
    """The mark of the fit: what its checkpoint follows from."""
    learner, data = config.learner, config.data
    files = [path for path in (data.path, data.validation) if path is not None]
    tree = fingerprints.by_contents(fingerprints.fit(to_tree(learner)), [learner.reference])
    depends = {
        **fingerprints.model(session.config),
        "data": fingerprints.by_contents(to_tree(data), files),
        "learner": tree | {"objective": fingerprints.component("objective", learner.objective)},
        "fitted as": list(fitted_as(config)),
    }
    return Stage("train", 0, session.run.root, depends)


def check_mark(session: Session, stage: Stage) -> bool:
    """Whether the fit is done.

    Raises:
        StaleStage: another one is, under the same name; or its files changed since.
    """
    root = session.run.root
    for one in (session.stages.start(), stage):
        if one.mark.exists() and (differing := one.differing()):
            raise StaleStage(
                f"{root} holds another fit, with other settings: {', '.join(differing)}; set them back, or choose "
                "another run.name"
            )
    if reason := stage.stale():
        raise StaleStage(f"{reason}, or choose another run.name")
    return stage.mark.exists()


def train(session: Session, config: TrainConfig, given: Given, mark: Stage) -> Iterator[Event]:
    """Write ``checkpoint`` and ``log.jsonl``, and the mark; a fit that was killed goes on or begins anew, and ends
    the same.

    Args:
        mark: made before the examples were read, so that it never stands for files that changed since.
    """
    for stage, work in preparation(session):
        if not stage.done():
            yield from work()
    for note in given.notes:
        yield Notice(note, "warning")
    training = yield from _compared(session, [*given.training], "data.path")
    beside = "data.validation" if config.data.validation else "data.path"
    held_out = yield from _compared(session, [*given.held_out], beside)
    started = time.monotonic()
    run = session.run
    target = run.root / CHECKPOINT
    learner = session.config.learners[POLICY]
    source = session.stages.checkpoint(POLICY, 0)
    seed = derive(config.run.seed, *fitted_as(config), "fit")
    last: Progress | None = None
    yield StageStarted(0, "train", None, "steps")
    for last in run_fit(session, "train", 0, training, source, target, learner, seed, held_out=held_out):
        yield last
    finish_fit(mark, [target, run.root / LOG], target)
    told = [f"{name} {value:.3f}" for name, value in last.values.items()] if last else []
    summary = ", ".join([counted(training), f"{last.done if last else 0:,} steps", *told])
    yield StageFinished(0, "train", time.monotonic() - started, summary, False)


def _compared(session: Session, examples: list[Example], place: str) -> Generator[Event, None, list[Example]]:
    """Examples with what the reference gives their tokens, where the objective reads it.

    Args:
        place: where the config says what file they are from.
    """
    learner = session.config.learners[POLICY]
    if "reference" not in objective_needs(learner.objective) or not examples:
        return examples
    started = time.monotonic()
    yield StageStarted(0, "reference", len(examples), "examples")
    found = with_reference(session, 0, POLICY, examples, 1.0, f"let {place} hold rows of two prompts at least")
    yield StageFinished(
        0, "reference", time.monotonic() - started, f"log-probabilities under {learner.reference}", False
    )
    return found
