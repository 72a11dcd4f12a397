"""Everything that can be known to be wrong with a fit before it writes its first file, and what it will do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from selftrain.checks.check import context_length, fit_length, load_tokenizer, model_config, on_head
from selftrain.checks.described import check_described
from selftrain.checks.heads import check_head, check_headless, check_language_model
from selftrain.checks.here import Lacks, refuse
from selftrain.checks.kernels import check_kernels
from selftrain.checks.lora import check_lora
from selftrain.checks.models import check_scored_by
from selftrain.checks.preview import indented, marked, with_values
from selftrain.checks.trainer import check_trainer, overridden
from selftrain.config import ConfigError
from selftrain.encoding import make_encoder
from selftrain.models.head_form import HeadForm
from selftrain.objectives.paired import PAIRS
from selftrain.objectives.values import VALUES
from selftrain.planning.settings import POLICY, objective_needs
from selftrain.planning.values import form_of
from selftrain.prompts import check_tokenizer
from selftrain.session import Session
from selftrain.stages.given import (
    Given,
    check_kind,
    check_readable,
    counted,
    encoded,
    holds_examples,
    read_examples,
    without_ties,
)
from selftrain.stages.rows import Entry, check_fields, read_entries
from selftrain.train_config import TrainConfig, TrainLearner, as_run
from selftrain.types import Example

Read = list[Entry] | list[Example]


def check_fit(session: Session, config: TrainConfig, lacks: Lacks = refuse) -> Given:
    """The examples; raises ConfigError, cheap checks first. Loads a tokenizer and a model config, never weights.

    Args:
        session: of the same fit as a run (`selftrain.train_config.as_run`).
        lacks: is told what this machine does not have.
    """
    if config.track.mirror is not None:
        raise ConfigError("track.mirror: a fit without a loop is one stage and is not mirrored; remove the key")
    _check_learner(config)
    _check_head(config)
    read = {where: _read(config, Path(path), where) for where, path in _paths(config).items()}

    def told(what: str) -> None:
        lacks(_renamed(what))

    with _as_written():
        session.tokenizer = load_tokenizer(session.config)
        check_tokenizer(session.tokenizer, config.model.path or "model.architecture")
        context = context_length(session.config)
        check_described(session)
        check_scored_by(session)
        check_lora(session.config, partial(model_config, session.config))
        check_kernels(session.config, told)
        check_trainer(session.config, partial(model_config, session.config), told)
    found = {where: _examples(session, config, entries, context, where) for where, entries in read.items()}
    return _given(found, overridden(session.config))


def _paths(config: TrainConfig) -> dict[str, str]:
    paths = {"data.path": config.data.path, "data.validation": config.data.validation}
    return {where: path for where, path in paths.items() if path is not None}


@contextmanager
def _as_written() -> Iterator[None]:
    """The checks of a run name its sections: the learner has another place here."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(_renamed(str(error))) from error


def _renamed(told: str) -> str:
    return told.replace(f"learners.{POLICY}.", "learner.")


def _check_learner(config: TrainConfig) -> None:
    learner, needs = config.learner, objective_needs(config.learner.objective)
    if "advantages" in needs:
        raise ConfigError(
            f"learner.objective: {learner.objective.kind} learns from advantages of samples that are drawn as it goes; "
            "use it in a run (selftrain run), or choose another objective"
        )
    if "reference" not in needs and learner.reference != TrainLearner.reference:
        raise ConfigError(f"learner.reference: {learner.objective.kind} reads none; remove it")
    if learner.optim.validation.fraction and config.data.validation:
        raise ConfigError(
            "learner.optim.validation.fraction: data.validation names what is held out; give one of the two"
        )
    check_fields(config.data.fields)


def _check_head(config: TrainConfig) -> None:
    """The learner's ``model``: it begins with that of the config."""
    learner = as_run(config).learners[POLICY]
    if learner.model.path is not None:
        raise ConfigError("learner.model.path: a fit begins with model.path; name it there")
    if VALUES in objective_needs(learner.objective):
        check_head(learner, "learner.model", config.model.path, "model.path")
        return
    check_headless(learner, "learner")
    check_language_model(config.model.path)


def _form(config: TrainConfig) -> HeadForm | None:
    """Of the head that is fitted, for objectives of values."""
    learner = as_run(config).learners[POLICY]
    if VALUES not in objective_needs(learner.objective):
        return None
    return form_of(replace(learner, model=replace(learner.model, path=config.model.path)))


def _read(config: TrainConfig, path: Path, where: str) -> Read:
    """What lies at a path, as it is."""
    objective, needs = config.learner.objective, objective_needs(config.learner.objective)
    if path.is_dir() or holds_examples(path):
        if not holds_examples(path):
            raise ConfigError(
                f"{where}: the folder {path} holds no examples; name that of a learner, such as "
                "runs/NAME/iteration_0001/examples/policy, or a file of rows"
            )
        if config.data.fields:
            raise ConfigError(f"data.fields: has no effect on {path}, which a run wrote; remove it")
        examples = read_examples(path, where)
        check_kind(examples, objective.kind, needs, where)
        return examples
    if needs >= {VALUES, PAIRS}:
        raise ConfigError(
            f"{where}: {objective.kind} learns from pairs of steps, as a run writes them; name its folder"
        )
    form = _form(config)
    separator = form.separator if form else ""
    return read_entries(path, config.data.fields, objective.kind, needs, where, separator)


def _examples(
    session: Session, config: TrainConfig, read: Read, context: int | None, where: str
) -> tuple[list[Example], int]:
    """What was read as the model reads it, without ties; and how many ties there were."""
    entries = [one for one in read if isinstance(one, Entry)]
    examples = [one for one in read if isinstance(one, Example)]
    if entries:
        encoder = make_encoder(session.tokenizer, config.model.chat)
        examples = list(encoded(session, encoder, entries, where, _form(config)))

    def place(one: Example) -> str:
        return entries[int(one.id.partition("/")[0])].rows[0].place if entries else f"example {one.id}"

    check_readable(examples, session.tokenizer, context, place, where)
    kept, ties = without_ties(examples)
    if not kept:
        raise ConfigError(f"{where}: both sides of every pair are the same, so there is nothing to learn")
    return kept, ties


def _given(found: dict[str, tuple[list[Example], int]], told: Iterable[str]) -> Given:
    notes = [*told]
    notes += [
        f"{where}: {ties} pair(s) left out, whose two sides are the same" for where, (_, ties) in found.items() if ties
    ]
    training, _ = found["data.path"]
    held_out, _ = found.get("data.validation", ([], 0))
    asked = {one.prompt_ids for one in held_out}
    clean = [one for one in training if one.prompt_ids not in asked]
    if len(clean) < len(training):
        notes.append(f"data.path: {len(training) - len(clean)} example(s) left out, whose prompts data.validation has")
    if not clean:
        raise ConfigError("data.validation: has every prompt of data.path, so there is nothing to learn")
    return Given(tuple(clean), tuple(held_out), tuple(notes))


def plan(session: Session, config: TrainConfig, given: Given) -> Iterator[str]:
    """What the fit will do, line by line, and an example as the model reads it."""
    learner = config.learner
    yield f"model: {config.model.path or 'random weights'}"
    yield f"examples: {_sized(given.training)} from {config.data.path}"
    yield from (f"  {note}" for note in given.notes)
    if given.held_out:
        yield f"validation: {_sized(given.held_out)} from {config.data.validation}"
    with_reference = "reference" in objective_needs(learner.objective)
    against = f", against {learner.reference}" if with_reference else ""
    form = _form(config)
    yield f"learner: {learner.objective.kind}{on_head(form)}{against}, {fit_length(session.config.learners[POLICY])}"
    yield f"in {session.run.root}"
    yield "training example, with what carries no loss in ⟦ ⟧:"
    first = given.training[0]
    sides = [one for one in given.training if one.pair_id == first.pair_id] if first.pair_id else [first]
    for one in sides:
        told = f"{one.role}: " if one.role else f"label {one.label:g}: " if one.label is not None else ""
        decode = session.tokenizer.decode
        response = decode(one.response_ids) if form is None else with_values(session.tokenizer, one)
        yield from indented(f"{told}{marked(session.tokenizer, one.prompt_ids)}{response}")


def _sized(examples: Sequence[Example]) -> str:
    return f"{counted(examples)}, {sum(len(one.prompt_ids) + len(one.response_ids) for one in examples):,} tokens"
