"""Value models that score responses: that they are value models, and read responses as they were trained to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from selftrain.checks.models import had
from selftrain.config import ConfigError, instantiate
from selftrain.models.head_form import has_value_head, read_form
from selftrain.planning.references import read_reference, scoring_sources
from selftrain.planning.values import valued
from selftrain.rewards.value_head import ValueHead
from selftrain.schema import RunConfig
from selftrain.session import Session

PAGE = "docs/value_models.md"


def check_value_heads(session: Session) -> None:
    """Raises ConfigError where a reward source of kind value_head cannot be had."""
    for where, source in value_heads(session.config):
        reference = read_reference(source.model, session.config, f"{where}.model")
        if reference.learner:
            _check_learner(session.config, where, source, reference.name)
        else:
            _check_folder(session, where, source, reference.name)


def value_heads(config: RunConfig) -> Iterator[tuple[str, ValueHead]]:
    """Those of a config with their places, inside other sources too."""
    for where, chosen in scoring_sources(config):
        if isinstance(source := instantiate("reward", chosen), ValueHead):
            yield where, source


def _check_learner(config: RunConfig, where: str, source: ValueHead, name: str) -> None:
    if name not in valued(config):
        kind = f"is fitted by {config.learners[name].objective.kind}" if name in config.learners else "is no learner"
        raise ConfigError(
            f"{where}.model: {name} {kind}, which gives it no value head; name a learner with an objective of values "
            "(mse, bce, step_preference), or a folder"
        )
    model = config.learners[name].model
    if model.head is not None:
        _check_same(where, source, f"learners.{name}.model", model.separator, model.read)
    elif model.path is not None:
        _check_form(where, source, model.path)


def _check_folder(session: Session, where: str, source: ValueHead, name: str) -> None:

    if not has_value_head(name):
        _check_published(where, name)
        return
    theirs, ours = had(f"{where}.model", name)[0], session.tokenizer
    if theirs.get_vocab() != ours.get_vocab():
        raise ConfigError(
            f"{where}.model: {name} has another tokenizer than the policy ({len(theirs)} tokens against {len(ours)}), "
            "and reads the policy's tokens as they are; name one that was fitted on a model of the policy's family"
        )
    _check_form(where, source, name)


def _check_published(where: str, name: str) -> None:
    """One that reads text, and has a tokenizer of its own."""
    from selftrain.models.published import Words, read_published

    try:
        published = read_published(name)
        if published is None:
            raise ConfigError(
                f"{where}.model: {name} has no value head; name the folder of a value learner's checkpoint or of a "
                f"published process reward model, whose kinds are in {PAGE}"
            )
        Words(published, had(f"{where}.model", name)[0])
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where}.model: {error}") from error


def _check_form(where: str, source: ValueHead, folder: str) -> None:

    if not has_value_head(folder):
        return
    try:
        form = read_form(folder)
    except ValueError as error:
        raise ConfigError(f"{where}.model: {error}") from error
    _check_same(where, source, folder, form.separator, form.read)


def _check_same(where: str, source: ValueHead, whose: str, separator: str, read: str) -> None:
    told: dict[str, tuple[Any, Any]] = {"read": (source.read, read)}
    if read == "step":
        told["separator"] = (source.separator, separator)
    for option, (own, theirs) in told.items():
        if own != theirs:
            raise ConfigError(
                f"{where}.{option}: {own!r} is not what {whose} is trained with, {theirs!r}; set it to that: elsewhere "
                "it never learnt a value"
            )
