"""The stages of a run in their order: where each lies, what it depends on, and which checkpoint it reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from selftrain.artifacts import RunDir, Stage
from selftrain.digests import file_digest
from selftrain.planning import fingerprints
from selftrain.planning.references import (
    best_of_references,
    read_reference,
    score_references,
    search_references,
)
from selftrain.planning.searches import of_evaluation, of_grow
from selftrain.planning.settings import POLICY, most_samples, objective_needs
from selftrain.planning.values import valued
from selftrain.schema import RunConfig
from selftrain.spending.note import samples_limit

NOT_DONE = "not done"
"""In place of the digest of a mark that is not there yet."""


class Model(NamedTuple):
    """A model that a stage asks."""

    checkpoint: Path
    digest: str
    made_by: tuple[str, ...] = ()
    """Label of the stage that makes it; empty where it comes from outside the run."""


@dataclass(frozen=True)
class Stages:
    """Stages by name for one run."""

    config: RunConfig
    run: RunDir

    @cached_property
    def _model(self) -> dict[str, Any]:
        return fingerprints.model(self.config)

    @cached_property
    def _data(self) -> dict[str, Any]:
        """Of the files as they were when the run began: what it read of them stays in memory."""
        return fingerprints.data(self.config)

    @cached_property
    def _compared(self) -> frozenset[str]:
        """Learners whose objective reads a reference; asked for every iteration of the run."""
        learners = self.config.learners.items()
        return frozenset(name for name, own in learners if "reference" in objective_needs(own.objective))

    def start(self) -> Stage:
        """The model before warm-up: made here where the config describes an architecture."""
        return Stage("start", 0, self.run.start, self._model)

    @cached_property
    def _valued(self) -> frozenset[str]:
        """Learners of values; a fit without a loop calls its learner policy, whatever it is."""
        return valued(self.config) - {POLICY}

    def warmup(self, learner: str) -> Stage:
        folder = self.run.warmup / learner
        before = self.before_warmup(learner)
        config = {**self._model, **self._data, **fingerprints.warmup(self.config, learner)}
        if learner in self._valued:
            config |= fingerprints.head(self.config, learner)
        return Stage(f"warmup-{learner}", 0, folder, config, {"start": before.digest}, before.made_by)

    def head(self, learner: str) -> Stage:
        """A fresh head on what a learner of values begins with, where it has no warm-up."""
        before = self.before_warmup(learner)
        config = {**self._model, **fingerprints.head(self.config, learner)}
        return Stage(f"head-{learner}", 0, self.run.warmup / learner, config, {"start": before.digest}, before.made_by)

    def heads(self) -> list[str]:
        """Learners that begin with such a head."""
        return [name for name in self.config.learners if self._fresh(name) and name not in self.config.warmup]

    def before_warmup(self, learner: str) -> Model:
        """What a warm-up starts from, or a fresh head is put on: the model the run starts from; of a learner of values
        the model of its own, or else the policy's after its warm-up."""
        if learner in self._valued:
            path = self.config.learners[learner].model.path
            return self._first(POLICY) if path is None else Model(Path(path), fingerprints.contents(path))
        path = self.config.model.path
        return Model(Path(path) if path else self.run.start, self._start_digest(), self._start_label())

    def _first(self, learner: str) -> Model:
        """What a learner is before the first iteration."""
        folder = self.run.warmup / learner
        if learner in self.config.warmup:
            mark = folder / f"warmup-{learner}.done"
            return Model(folder / "checkpoint", _digest(mark), (f"0/warmup-{learner}",))
        if self._fresh(learner):
            return Model(folder / "checkpoint", _digest(folder / f"head-{learner}.done"), (f"0/head-{learner}",))
        own = learner == POLICY or learner in self._valued
        return self.before_warmup(learner) if own else self._first(POLICY)

    def _fresh(self, learner: str) -> bool:
        return learner in self._valued and self.config.learners[learner].model.head is not None

    def grow(self, iteration: int) -> Stage:
        own = any(step.model == POLICY for step in self.config.grow.values())
        inputs = {"policy": self.checkpoint_digest(POLICY, iteration - 1)} if own else {}
        config = {**self._model, **self._data, **fingerprints.grow(self.config)}
        limit = samples_limit(self.run, iteration)
        if limit is not None and limit < most_samples(self.config):
            config["samples per problem"] = limit
        reads = self._made_by(POLICY, iteration - 1)
        for place, text in search_references(self.config, of_grow(self.config)).items():
            model = self.model(text, iteration, "grow", place)
            inputs[place], reads = model.digest, (*reads, *model.made_by)
        return Stage("grow", iteration, self.run.iteration(iteration), config, inputs, reads)

    def verify(self, iteration: int) -> Stage:
        inputs = {"grow": self._digest(iteration, "grow")}
        config, reads = fingerprints.judging(self.config), (f"{iteration}/grow",)
        return Stage("verify", iteration, self.run.iteration(iteration), config, inputs, reads)

    def score(self, iteration: int) -> Stage:
        inputs = {"verify": self._digest(iteration, "verify")}
        reads: tuple[str, ...] = (f"{iteration}/verify",)
        for place, text in score_references(self.config).items():
            model = self.model(text, iteration, "score", place)
            inputs[place], reads = model.digest, (*reads, *model.made_by)
        config = fingerprints.score(self.config)
        return Stage("score", iteration, self.run.iteration(iteration), config, inputs, reads)

    def improve(self, iteration: int, learner: str) -> Stage:
        chosen = self.config.learners[learner]
        before = iteration - 1 if chosen.init == "previous" else 0
        history = any(selection.history == "all" for selection in chosen.examples.values())
        judged = "verify" if chosen.when == "before_score" else "score"
        inputs = {judged: self._digest(iteration, judged), "init": self.checkpoint_digest(learner, before)}
        inputs |= {f"{judged} of {i}": self._digest(i, judged) for i in range(1, iteration) if history}
        seen = tuple(f"{i}/{judged}" for i in range(1 if history else iteration, iteration + 1))
        reads = (*seen, *self._made_by(learner, before))
        if learner in self._compared:
            model = self.model(chosen.reference, iteration, f"improve-{learner}", f"learners.{learner}.reference")
            inputs["reference"], reads = model.digest, (*reads, *model.made_by)
        config = fingerprints.improve(self.config, learner)
        return Stage(f"improve-{learner}", iteration, self.run.iteration(iteration), config, inputs, reads)

    def evaluate(self, iteration: int) -> Stage:
        inputs = {"policy": self.checkpoint_digest(POLICY, iteration)}
        reads = self._made_by(POLICY, iteration)
        asked = best_of_references(self.config) | search_references(self.config, of_evaluation(self.config))
        for place, text in asked.items():
            model = self.model(text, iteration, "evaluate", place)
            inputs[place], reads = model.digest, (*reads, *model.made_by)
        config = {**self._model, **self._data, **fingerprints.evaluate(self.config)}
        return Stage("evaluate", iteration, self.run.iteration(iteration), config, inputs, reads)

    def model(self, text: str, iteration: int, stage: str, where: str) -> Model:
        """What a model reference means to a stage of an iteration.

        Args:
            where: its place in the config, for the message.
        """
        found = read_reference(text, self.config, where)
        if not found.learner:
            return Model(Path(found.name), fingerprints.contents(found.name))
        at = found.at(self.config, iteration, stage)
        return Model(
            self.checkpoint(found.name, at), self.checkpoint_digest(found.name, at), self._made_by(found.name, at)
        )

    def checkpoint(self, learner: str, iteration: int) -> Path:
        """A learner's checkpoint after an iteration; iteration 0 is the model the run starts from, warmed up.

        A policy that is no learner stays what it was.
        """
        if iteration > 0 and learner in self.config.learners:
            return self.run.iteration(iteration) / learner / "checkpoint"
        return self._first(learner).checkpoint

    def checkpoint_digest(self, learner: str, iteration: int) -> str:
        """Stands for the checkpoint: the mark of the stage that made it, or the model's own name."""
        if iteration > 0 and learner in self.config.learners:
            return self._digest(iteration, f"improve-{learner}")
        return self._first(learner).digest

    def _made_by(self, learner: str, iteration: int) -> tuple[str, ...]:
        """Label of the stage that makes a learner's checkpoint; empty where it comes from outside the run."""
        if iteration > 0 and learner in self.config.learners:
            return (f"{iteration}/improve-{learner}",)
        return self._first(learner).made_by

    def _start_label(self) -> tuple[str, ...]:
        return ("0/start",) if self.config.model.path is None else ()

    def _start_digest(self) -> str:
        path = self.config.model.path
        if path is None:
            return _digest(self.start().mark)
        return fingerprints.contents(path)

    def _digest(self, iteration: int, stage: str) -> str:
        """By the place of the mark alone: building the stages before it would lead back to the first iteration."""
        return _digest(self.run.iteration(iteration) / f"{stage}.done")


def _digest(mark: Path) -> str:
    return file_digest(mark)[:16] if mark.exists() else NOT_DONE
