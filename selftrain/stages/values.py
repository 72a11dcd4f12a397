"""What value heads are fitted to, and what they begin with."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

from selftrain import records
from selftrain.errors import failing_as_run_error
from selftrain.events import Event, StageFinished, StageStarted
from selftrain.planning.values import form_of
from selftrain.rewards import worked
from selftrain.rewards.steps import pieces, step_ends
from selftrain.schema import StepLabels
from selftrain.seeds import derive
from selftrain.session import Session
from selftrain.stages.score import scores_folder
from selftrain.types import Example, Sample

Steps = dict[str, tuple[tuple[int, ...], tuple[float, ...]]]
"""Ends and rewards of the steps of samples, by their ids."""


def put_head(session: Session, learner: str) -> Iterator[Event]:
    """Save what a learner of values begins with: its weights with a fresh head, whose first values are all alike."""
    started = time.monotonic()
    stage = f"head-{learner}"
    yield StageStarted(0, stage, None, "models")
    source = session.stages.before_warmup(learner).checkpoint
    target = session.run.warmup / learner / "checkpoint"
    form = form_of(session.config.learners[learner])
    seed = derive(session.config.run.seed, learner, "head") % 2**32

    def made() -> Iterator[None]:
        from selftrain.models.heads import load_value_model, save_value_model

        model = load_value_model(source, form, dtype="float32", device="cpu", seed=seed)
        save_value_model(model, session.tokenizer, target)
        yield

    for _ in failing_as_run_error(made(), f"stage '{stage}'"):
        pass
    session.stages.head(learner).finish([target])
    yield StageFinished(0, stage, time.monotonic() - started, f"{form.head} head on {source}", False)


def worked_examples(session: Session, learner: str, demonstrations: list[Example]) -> list[Example]:
    """Each worked solution with the values of its steps, and one of it that goes wrong, where there is a step to go
    wrong with."""
    form = form_of(session.config.learners[learner])
    solutions = [worked_steps(session.tokenizer, one.response_ids, form.separator) for one in demonstrations]
    made = []
    for place, one in enumerate(demonstrations):
        rng = Random(derive(session.config.run.seed, learner, "mistakes", one.problem_id))
        found = {"right": worked.right(solutions[place]), "wrong": worked.mistaken(solutions, place, rng)}
        for kind, response in found.items():
            if response is not None:
                ids, targets = response if form.read == "step" else worked.last_only(response)
                made.append(replace(one, id=f"{one.id}/{kind}", response_ids=ids, targets=targets))
    return made


def worked_steps(tokenizer: Any, ids: tuple[int, ...], separator: str) -> worked.Worked:
    """A worked solution, its end token included, by its steps."""
    texts = pieces(tokenizer, ids)
    return worked.cut(ids, texts, step_ends(texts, separator))


def with_outcome(examples: Iterable[Example]) -> Iterator[Example]:
    """Each with its label as the target of its last token; what has none is left out."""
    for one in examples:
        if one.label is not None and one.response_ids:
            yield replace(one, targets=(*(math.nan for _ in one.response_ids[1:]), one.label))


def with_step_labels(session: Session, made: Iterable[tuple[Sample, Example]], labels: StepLabels) -> Iterator[Example]:
    """Each with what its steps were given as targets where they end; what a source gave no steps is left out."""

    @cache
    def given(iteration: int, step: str) -> Steps:
        return steps_of(session, iteration, step, labels.source)

    for sample, example in made:
        ends, rewards = given(sample.iteration, sample.step).get(sample.id, ((), ()))
        targets = [math.nan] * len(example.response_ids)
        for end, reward in zip(ends, rewards, strict=True):
            targets[end - 1] = reward if labels.threshold is None else float(reward >= labels.threshold)
        if ends:
            yield replace(example, targets=tuple(targets))


def steps_of(session: Session, iteration: int, step: str, source: str) -> Steps:
    """What a reward source gave the samples of a step of Grow."""
    columns = ("sample_id", "source", "valid", "step_ends", "step_rewards")
    return {
        sample: (tuple(ends), tuple(rewards))
        for part in records.parts(scores_folder(session, iteration), f"{step}-")
        for sample, name, valid, ends, rewards in zip(*records.columns(part, *columns), strict=True)
        if name == source and valid and ends and rewards
    }
