"""Improve: choose examples and fit a learner to them. The warm-up is the same fit, to demonstrations."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from selftrain import records
from selftrain.errors import RunError
from selftrain.events import Event, Notice, Progress, StageFinished, StageStarted
from selftrain.files import read_json
from selftrain.planning.fingerprints import REPLAY
from selftrain.planning.values import valued
from selftrain.schema import Learner, Warmup
from selftrain.seeds import derive
from selftrain.session import Session
from selftrain.stages.checkpoints import finish_fit, keep_checkpoint, run_fit
from selftrain.stages.compared import sampled_at, with_reference
from selftrain.stages.examples import demonstrated, demonstration_examples, select, selection_file
from selftrain.stages.resident import carry_on
from selftrain.stages.values import worked_examples
from selftrain.types import Example


class NothingAccepted(RunError):
    """No learner got a single example of its own."""


def improve(session: Session, iteration: int, learner: str) -> Iterator[Event]:
    """Write ``examples/<learner>/``, ``selection-<learner>.json`` and ``<learner>/checkpoint``.

    Raises:
        NothingAccepted: no sample of this iteration was chosen for any learner.
    """
    started = time.monotonic()
    folder = session.run.iteration(iteration)
    stages = session.stages
    chosen = session.config.learners[learner]
    target = folder / learner / "checkpoint"
    yield StageStarted(iteration, f"improve-{learner}", None, "steps")
    reasons = select(session, iteration, learner)
    source = stages.checkpoint(learner, iteration - 1 if chosen.init == "previous" else 0)
    summary = f"{reasons['kept']} of {reasons.total()} samples kept"
    if reasons and not reasons["kept"]:
        if not any(_own_kept(session, iteration, name) for name in session.config.learners):
            raise NothingAccepted(nothing_accepted(iteration, reasons))
        keep_checkpoint(session, stages.checkpoint(learner, iteration - 1), target)
        carry_on(session, iteration, learner, stages.checkpoint(learner, iteration - 1), target)
        yield Notice(
            f"iteration {iteration}: no sample for '{learner}' was accepted; it keeps its checkpoint", "warning"
        )
        summary += ", checkpoint kept"
    else:
        examples = [
            example for part in records.parts(folder / "examples" / learner) for example in records.rows(part, Example)
        ]
        # Parts follow from run.part_size, and batches from this order: what a learner becomes must not.
        examples.sort(key=lambda example: (example.source, example.problem_id, example.id))
        seed = derive(session.config.run.seed, iteration, learner, "fit")
        last: Progress | None = None
        stage = f"improve-{learner}"
        temperature = sampled_at(session, learner)
        examples = with_reference(session, iteration, learner, examples, temperature)
        for last in run_fit(session, stage, iteration, examples, source, target, chosen, seed, temperature):
            yield last
        if last is not None:
            summary += f", {last.done} steps, loss {last.values['loss']:.3f}"
    outputs = [folder / "examples" / learner, selection_file(session, iteration, learner), target]
    finish_fit(stages.improve(iteration, learner), outputs, target)
    yield StageFinished(iteration, f"improve-{learner}", time.monotonic() - started, summary, False)


def warmup(session: Session, learner: str) -> Iterator[Event]:
    """Fit a learner to demonstrations: its checkpoint is what ``base`` means."""
    started = time.monotonic()
    chosen = session.config.warmup[learner]
    folder = session.run.warmup / learner
    stage = f"warmup-{learner}"
    yield StageStarted(0, stage, None, "steps")
    examples = warmup_examples(session, learner)
    if not examples:
        raise RunError(f"warmup.{learner}: there are no demonstrations in '{chosen.source}'")
    fitted: Learner | Warmup = chosen
    if learner in valued(session.config):
        fitted = replace(session.config.learners[learner], optim=chosen.optim)
    seed = derive(session.config.run.seed, 0, learner, "fit")
    target, source = folder / "checkpoint", session.stages.before_warmup(learner).checkpoint
    last: Progress | None = None
    for last in run_fit(session, stage, 0, examples, source, target, fitted, seed):
        yield last
    finish_fit(session.stages.warmup(learner), [target], target)
    loss = f", loss {last.values['loss']:.3f}" if last else ""
    counted = "demonstrations" if fitted is chosen else "examples of demonstrations"
    summary = f"{len(examples)} {counted}, {last.done if last else 0} steps{loss}"
    yield StageFinished(0, stage, time.monotonic() - started, summary, False)


def warmup_examples(session: Session, learner: str) -> list[Example]:
    """What a learner is warmed up with; one of values behind the prompt it is asked with."""
    is_valued = learner in valued(session.config)
    prompt = "prompt" if is_valued else "train_prompt"
    source = session.config.warmup[learner].source
    examples = demonstration_examples(session, demonstrated(session, source), "demonstrations", 1.0, prompt)
    return worked_examples(session, learner, examples) if is_valued else examples


def _own_kept(session: Session, iteration: int, learner: str) -> bool:
    """Whether a learner has samples of its own this iteration; learners after this one are asked ahead."""
    if not _samples(session.config.learners[learner]):
        return False
    if session.stages.improve(iteration, learner).mark.exists():
        # Its examples are what its checkpoint was made of: they are not written again.
        return int(read_json(selection_file(session, iteration, learner))["sampled"].get("kept", 0)) > 0
    return select(session, iteration, learner)["kept"] > 0


def _samples(learner: Learner) -> bool:
    return any(s.source != "gold" and not s.source.startswith(REPLAY) for s in learner.examples.values())


def nothing_accepted(iteration: int, reasons: Counter[str]) -> str:
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(4))
    return (
        f"iteration {iteration}: no sample was accepted for any learner ({why}); raise grow.*.n or max_tokens, warm up "
        "longer, check the verifier on a few samples, or use easier problems, then run the same command again"
    )
