"""What can be known to be wrong with learners of values: their heads, objectives and examples, and who takes them for
language models."""

from __future__ import annotations

from selftrain.config import ConfigError
from selftrain.models.head_form import has_value_head
from selftrain.planning.references import Reference, read_reference, scoring_sources
from selftrain.planning.settings import POLICY, objective_needs
from selftrain.planning.values import form_of, normaliser, valued
from selftrain.registry import nearest, resolve
from selftrain.rewards.base import verdict_only
from selftrain.rewards.value_head import ValueHead
from selftrain.schema import Learner, LearnerModel, RunConfig, Selection
from selftrain.session import Session
from selftrain.stages.examples import demonstrated
from selftrain.stages.values import worked_steps


def check_heads(config: RunConfig) -> None:
    """Raises ConfigError where objectives, heads and selections do not go together, or a value model is asked for what
    it has not."""
    own = valued(config)
    if POLICY in own:
        kind = config.learners[POLICY].objective.kind
        raise ConfigError(
            f"learners.{POLICY}.objective: {kind} fits a value head, and the policy writes; give the learner another "
            "name, such as value"
        )
    for name, learner in config.learners.items():
        where = f"learners.{name}"
        if name not in own:
            check_headless(learner, where)
            continue
        check_head(learner, f"{where}.model", learner.model.path, "path")
        _check_start(config, name, learner)
        for key, selection in learner.examples.items():
            _check_selection(config, f"{where}.examples.{key}", selection)
        _check_read(learner, where)
    _check_asked(config, own)


def check_headless(learner: Learner, where: str) -> None:
    """Of a learner that fits a language model."""
    if learner.model != LearnerModel():
        raise ConfigError(
            f"{where}.model: {learner.objective.kind} fits a language model, which has no head; choose an objective of "
            "values, such as mse, or remove the section"
        )


def check_head(learner: Learner, where: str, path: str | None, option: str) -> None:
    """Whether there is one head, and the objective reads it as it is.

    Args:
        where: the place of the learner's ``model``.
        path: what it begins with, where it is no model of the run.
        option: what the config calls that.
    """
    model, kind = learner.model, learner.objective.kind
    its_own = path is not None and has_value_head(path)
    if learner.lora is not None:
        raise ConfigError(f"{where.removesuffix('.model')}.lora: is not available with a value head; remove it")
    if not its_own and model.head is None:
        raise ConfigError(
            f"{where}.head: {kind} fits a value head; set it to linear or mlp"
            + (f" ({option} {path} has none)" if path else ", or path to a checkpoint that has one")
        )
    if its_own and model.head is not None:
        raise ConfigError(f"{where}.head: {path} has a value head already, which is fitted on; remove it")
    if its_own and (model.separator, model.read) != (LearnerModel.separator, LearnerModel.read):
        raise ConfigError(f"{where}: {path} says itself where its head is read; remove separator and read")
    if not model.separator:
        raise ConfigError(f"{where}.separator: is empty; give what ends a step")
    reads = normaliser(learner)
    try:
        has = form_of(learner).normaliser if its_own and option == "path" else model.normaliser or reads
    except ValueError as error:
        raise ConfigError(f"{where}.path: {error}") from error
    if has != reads:
        raise ConfigError(
            f"{where}.normaliser: {kind} reads values by {reads}, and the head's is {has}; "
            "use one, or choose another objective"
        )


def _check_start(config: RunConfig, name: str, learner: Learner) -> None:
    """Its warm-up."""
    if name not in config.warmup:
        return
    if "pairs" in objective_needs(learner.objective):
        raise ConfigError(
            f"warmup.{name}: {learner.objective.kind} learns from pairs, and worked solutions say what steps are "
            "worth; remove it, or choose another objective"
        )
    if config.warmup[name].lora is not None:
        raise ConfigError(f"warmup.{name}.lora: is not available with a value head; remove it")


def _check_selection(config: RunConfig, where: str, selection: Selection) -> None:
    labels, sources = selection.labels, config.reward.sources
    if selection.kind == "tree_values" and labels is not None:
        if selection.values != "monte_carlo_hard":
            raise ConfigError(f"{where}.labels: agreement is on labels of 0 and 1; set values to monte_carlo_hard")
        if labels.threshold is None:
            raise ConfigError(f"{where}.labels.threshold: must be set: a step reward from there on says right")
    elif selection.kind != "step_labels":
        return
    if labels is None:
        raise ConfigError(f"{where}.labels: must be set: from, the reward source whose step rewards are learnt")
    if labels.source not in sources:
        raise ConfigError(f"{where}.labels.from: no such reward source ({nearest(labels.source, sources)})")
    if verdict_only(resolve("reward", sources[labels.source].kind)):
        raise ConfigError(f"{where}.labels.from: {sources[labels.source].kind} knows nothing of steps; name another")


def _check_read(learner: Learner, where: str) -> None:
    kinds = {selection.kind for selection in learner.examples.values()}
    read = form_of(learner).read
    if read == "last" and kinds - {"outcome"}:
        raise ConfigError(f"{where}.model.read: last is of outcomes, and its examples are of steps; set it to step")
    if read == "step" and kinds == {"outcome"}:
        raise ConfigError(
            f"{where}.model.read: its examples are outcomes, which are told of the last token; set it to last"
        )


def _check_asked(config: RunConfig, own: frozenset[str]) -> None:
    """Models that are asked for log-probabilities must be language models."""
    named = {
        f"learners.{name}.reference": learner.reference
        for name, learner in config.learners.items()
        if "reference" in objective_needs(learner.objective)
    }
    for where, source in scoring_sources(config):
        if (kind := resolve("reward", source.kind)) is not ValueHead:
            named |= {f"{where}.{option}": str(source.options[option]) for option in getattr(kind, "models", ())}
    for place, text in named.items():
        if values_at(read_reference(text, config, place), own):
            raise ConfigError(
                f"{place}: '{text}' has a value head and is no language model, so it has no log-probabilities; ask it "
                "by the reward source value_head, or name another model"
            )


def values_at(found: Reference, own: frozenset[str]) -> bool:
    """Whether a reference leads to a value model."""
    return found.name in own if found.learner else has_value_head(found.name)


def check_separators(session: Session) -> None:
    """Raises ConfigError where a warm-up's worked solutions have no steps by the learner's rule."""
    for name in sorted(valued(session.config) & session.config.warmup.keys()):
        form = form_of(session.config.learners[name])
        prompters = session.prompters["prompt"]
        solutions = demonstrated(session, session.config.warmup[name].source)
        ids = (prompters[problem.task].solution(problem) for problem in solutions)
        if form.read == "step" and all(
            len(worked_steps(session.tokenizer, one, form.separator).ids) < 2 for one in ids
        ):
            raise ConfigError(
                f"learners.{name}.model.separator: {form.separator!r} ends no step of any demonstration; give what does"
            )


def check_language_model(path: str | None) -> None:
    """Raises ConfigError where a run would start from a value model."""
    if path is not None and has_value_head(path):
        raise ConfigError(
            f"model.path: '{path}' is a value model, which writes nothing; name a language model, or the learner's own "
            "start by learners.NAME.model.path"
        )
