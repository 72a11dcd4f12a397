"""Learners that value what is written, in place of writing: which they are, and what their heads are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selftrain.config import instantiate
from selftrain.objectives.values import VALUES
from selftrain.planning.settings import objective_needs
from selftrain.schema import Learner, RunConfig

if TYPE_CHECKING:
    from selftrain.models.heads import HeadForm


def valued(config: RunConfig) -> frozenset[str]:
    """Names of the learners whose objective reads values: their checkpoints hold a head, and are no language models."""
    return frozenset(name for name, own in config.learners.items() if VALUES in objective_needs(own.objective))


def normaliser(learner: Learner) -> str:
    """What makes a value of the head's output: as the config says, or as the objective has it."""
    own = getattr(instantiate("objective", learner.objective), "normaliser", "sigmoid")
    return learner.model.normaliser or str(own)


def form_of(learner: Learner) -> HeadForm | None:
    """The form of a learner's fresh head; None where its checkpoint brings one."""
    from selftrain.models.heads import HeadForm

    model = learner.model
    if model.head is None:
        return None
    return HeadForm(model.head, normaliser(learner), model.read, model.separator)  # type: ignore[arg-type]
