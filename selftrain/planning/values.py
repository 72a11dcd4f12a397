"""Learners that value what is written, in place of writing: which they are, and what their heads are."""

from __future__ import annotations

from selftrain.config import instantiate
from selftrain.models.head_form import HeadForm, read_form
from selftrain.objectives.values import VALUES
from selftrain.planning.settings import objective_needs
from selftrain.schema import Learner, RunConfig


def valued(config: RunConfig) -> frozenset[str]:
    """Names of the learners whose objective reads values: their checkpoints hold a head, and are no language models."""
    return frozenset(name for name, own in config.learners.items() if VALUES in objective_needs(own.objective))


def normaliser(learner: Learner) -> str:
    """What makes a value of the head's output, as the learner's objective reads it."""
    return str(getattr(instantiate("objective", learner.objective), "normaliser", "sigmoid"))


def form_of(learner: Learner) -> HeadForm:
    """The form of a learner's head: as the config says, or as its checkpoint has it.

    Raises:
        ValueError: the checkpoint's settings cannot be read.
    """

    model = learner.model
    if model.head is None and model.path is not None:
        return read_form(model.path)
    return HeadForm(model.head or "linear", normaliser(learner), model.read, model.separator)  # type: ignore[arg-type]
