"""Learners that value what is written, in place of writing: which they are, and what their heads are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.config import instantiate
from selftrain.objectives.values import VALUES
from selftrain.planning.settings import objective_needs
from selftrain.schema import Learner, RunConfig

if TYPE_CHECKING:
    from selftrain.models.heads import HeadForm

WEIGHTS = "value_head.safetensors"
"""File of a head, in the folder of its checkpoint."""


def valued(config: RunConfig) -> frozenset[str]:
    """Names of the learners whose objective reads values: their checkpoints hold a head, and are no language models."""
    return frozenset(name for name, own in config.learners.items() if VALUES in objective_needs(own.objective))


def has_head(path: str | Path) -> bool:
    """Whether a folder holds a value model; as `selftrain.models.heads.has_value_head`, whose import takes seconds."""
    return (Path(path) / WEIGHTS).exists()


def normaliser(learner: Learner) -> str:
    """What makes a value of the head's output, as the learner's objective reads it."""
    return str(getattr(instantiate("objective", learner.objective), "normaliser", "sigmoid"))


def form_of(learner: Learner) -> HeadForm:
    """The form of a learner's head: as the config says, or as its checkpoint has it.

    Raises:
        ValueError: the checkpoint's settings cannot be read.
    """
    from selftrain.models.heads import HeadForm, read_form

    model = learner.model
    if model.head is None and model.path is not None:
        return read_form(model.path)
    return HeadForm(model.head or "linear", normaliser(learner), model.read, model.separator)  # type: ignore[arg-type]
