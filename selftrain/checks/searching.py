"""What is wrong with searches: settings that do not go together, and values nobody can give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from selftrain.checks.best_of import NAME
from selftrain.config import ConfigError, instantiate
from selftrain.models.head_form import has_value_head, read_form
from selftrain.planning.references import REWARD, guiding, read_reference, value_source
from selftrain.planning.searches import EVALUATE, GROW, Placed, every_search
from selftrain.planning.settings import POLICY
from selftrain.planning.values import form_of, valued
from selftrain.prompts import check_marks
from selftrain.registry import TABLES, nearest
from selftrain.schema import Component, Grow, RunConfig, Searching, Selection
from selftrain.search.choose import way
from selftrain.session import Session
from selftrain.stages.guide import IMPLICIT, VALUE_HEAD
from selftrain.stages.search import is_stepwise
from selftrain.types import Problem

OF_TREES = ("leaves", "tree_values", "step_pairs")
"""Kinds of selections that read the trees of a search."""
PLAIN = Grow()


def check_searching(config: RunConfig) -> None:
    """Raises ConfigError; loads nothing."""
    for name, step in config.grow.items():
        _check_idle(f"grow.{name}", step)
        if step.kind == "search" and step.model != POLICY:
            raise ConfigError(f"grow.{name}.model: trees are grown with the policy alone; remove it")
    for name in config.evaluate.search:
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"evaluate.search.{name}: names a folder and a metric; use letters, digits, '_', '-' and '.'"
            )
    for placed in every_search(config):
        _check_search(config, placed)
    for learner, chosen in config.learners.items():
        for key, selection in chosen.examples.items():
            _check_selection(config, f"learners.{learner}.examples.{key}", selection)


def _check_idle(where: str, step: Grow) -> None:
    """Fields of the other kind of step."""
    for option in fields(Grow):
        default = getattr(PLAIN, option.name)
        if option.name in step.idle() and getattr(step, option.name) != default:
            other = "sample" if step.kind == "search" else "search"
            raise ConfigError(
                f"{where}.{option.name}: has no effect on a step of kind {step.kind}; remove it, or set {where}.kind "
                f"to {other}"
            )


def _check_search(config: RunConfig, placed: Placed) -> None:
    where, search = placed.where, placed.search
    if search.strategy is None:
        raise ConfigError(f"{where}.strategy: a search needs one ({nearest('', TABLES['search'])})")
    if not search.separator:
        raise ConfigError(f"{where}.separator: is empty; give what ends a step")
    if search.separator in placed.sampling.stop:
        of = f"{where}.stop" if placed.stage == GROW else "the stop strings of what evaluates"
        raise ConfigError(f"{where}.separator: {search.separator!r} is among {of}, so no second step follows")
    if placed.stage == EVALUATE:
        _check_blind(where, search)
    own = search.budget
    if own.tokens is not None and own.tokens < own.step_tokens:
        raise ConfigError(
            f"{where}.budget.tokens: {own.tokens} hold no step of budget.step_tokens={own.step_tokens}; raise it, or "
            "lower step_tokens"
        )
    _check_whole(config, placed)
    _check_value(config, placed)


def _check_blind(where: str, search: Searching) -> None:
    """Whoever answers must not know the gold answer."""
    if "judge" in instantiate("search", search.strategy).needs:
        by_value = "set strategy.reward to value and name who values"
        raise ConfigError(
            f"{where}.strategy: {search.strategy.kind}, set as it is, asks the verifier while it searches, which knows "
            f"the gold answers of what is evaluated; {by_value if search.strategy.kind == 'uct' else 'choose another'} "
            "(the bound of every choice is pass@n)"
        )


def _check_whole(config: RunConfig, placed: Placed) -> None:
    """A budget that no whole response fits into draws nothing."""
    search, where = placed.search, placed.where
    if search.budget.tokens is None or not getattr(instantiate("search", search.strategy), "whole", False):
        return
    longest = max(task.sampling.max_tokens or placed.sampling.max_tokens for task in config.tasks.values())
    if search.budget.tokens < longest:
        raise ConfigError(
            f"{where}.budget.tokens: {search.budget.tokens} hold no whole response of max_tokens={longest}, and "
            f"{search.strategy.kind} draws such; raise it, or lower max_tokens"
        )


def _check_value(config: RunConfig, placed: Placed) -> None:
    """Who says what a path is worth, as far as names tell."""
    step = placed.search
    where, kind = f"{placed.where}.value", step.strategy.kind
    if step.value is None:
        if "value" in instantiate("search", step.strategy).needs:
            raise ConfigError(
                f"{where}: {kind} asks what a path is worth; name a value model, such as learner:value or its path, or "
                "a reward source, such as reward:value"
            )
        _check_chosen(where, placed)
        return
    if "value" in getattr(instantiate("search", step.strategy), "ignores", ()):
        raise ConfigError(f"{where}: {kind}, set as it is, asks nobody what a path is worth; remove it")
    if step.value.startswith(REWARD):
        source, sources = value_source(config, step), config.reward.sources
        if source is None:
            near = nearest(step.value.removeprefix(REWARD), sources)
            raise ConfigError(f"{where}: '{step.value}' names no reward source ({near})")
        if source.kind not in (VALUE_HEAD, IMPLICIT):
            raise ConfigError(
                f"{where}: {step.value} is of kind {source.kind}, which says nothing of unfinished responses; name one "
                f"of kind {VALUE_HEAD} or {IMPLICIT}"
            )
        _check_sum(where, step.value, source)
    for place, text in guiding(config, placed.where, step).items():
        found = read_reference(text, config, place)
        if found.learner and not _by_likelihood(config, step) and found.name not in valued(config):
            raise ConfigError(
                f"{place}: '{text}' is no value model: its objective fits no values; name a learner whose does, such "
                f"as mse ({nearest('', valued(config))})"
            )


def _check_chosen(where: str, placed: Placed) -> None:
    """The one response that counts, where nobody values any."""
    strategy = instantiate("search", placed.search.strategy)
    how = way(strategy)
    # What whole responses are drawn for leaves no statistics on their ends either.
    by_values = how == "weighted_vote" or (how == "value" and getattr(strategy, "whole", False))
    if placed.is_single and by_values:
        what = "keep: chosen" if placed.stage == GROW else placed.search.strategy.kind
        raise ConfigError(
            f"{where}: {what} takes the response by values ({how}), and nobody gives any; name who does, or set "
            "strategy.choose to vote"
        )


def _check_sum(where: str, value: str, source: Component) -> None:
    """A path is worth the sum of its log-ratios, whatever makes a response's reward of them."""
    if source.kind == IMPLICIT:
        chosen, plain = (instantiate("reward", one) for one in (source, Component(IMPLICIT)))
        for option in ("aggregation", "accumulate"):
            if getattr(chosen, option) != getattr(plain, option):
                raise ConfigError(
                    f"{where}: a search reads the sum of {value}, and its {option} is {getattr(chosen, option)}; leave "
                    f"reward.sources.{value.removeprefix(REWARD)}.{option} at {getattr(plain, option)}"
                )


def _by_likelihood(config: RunConfig, search: Searching) -> bool:
    source = value_source(config, search)
    return source is not None and source.kind == IMPLICIT


def _check_selection(config: RunConfig, where: str, selection: Selection) -> None:
    """Selections that read trees, where there are some."""
    if selection.kind not in OF_TREES:
        return
    step = config.grow.get(selection.source)
    if step is None or step.kind != "search":
        there = [name for name, one in config.grow.items() if one.kind == "search"]
        raise ConfigError(
            f"{where}.kind: {selection.kind} reads trees, and '{selection.source}' grows none; name a search in from "
            f"({nearest(selection.source, there)})"
        )
    if selection.value_above is not None and step.value is None:
        raise ConfigError(f"{where}.value_above: grow.{selection.source} asks nobody for values; set its value")


def check_steps(session: Session, taught: Sequence[Problem]) -> None:
    """Raises ConfigError for a step rule that never matches, and for value models that read something else than the
    policy writes.

    Args:
        taught: problems whose demonstrations are taught.
    """
    for where, _, search, _, _ in every_search(session.config):
        place = f"{where}.separator"
        if is_stepwise(search):
            check_marks(session.tokenizer, {place: (search.separator,)})
            _check_worked(session, place, search.separator, taught)
        if not _by_likelihood(session.config, search):
            for asked, text in guiding(session.config, where, search).items():
                _check_head(session, asked, text, place, search.separator)


def _check_worked(session: Session, where: str, separator: str, taught: Sequence[Problem]) -> None:
    prompters = session.prompters["train_prompt"]
    texts = (session.tokenizer.decode(prompters[problem.task].solution(problem)) for problem in taught)
    found = [separator in text for text in texts]
    if found and not any(found):
        raise ConfigError(
            f"{where}: {separator!r} stands in none of the {len(found)} demonstrations that are taught, so no step "
            "would ever end; set it to what stands between their steps"
        )


def _check_head(session: Session, place: str, text: str, where: str, separator: str) -> None:
    """A value model: that it is one, of the policy's tokens, and of the same steps."""
    from selftrain.models.published import read_published

    found = read_reference(text, session.config, place)
    try:
        if found.learner:
            form = form_of(session.config.learners[found.name])
        elif has_value_head(found.name):
            form = read_form(found.name)
            _check_tokens(session, place, found.name)
        elif read_published(found.name) is not None:
            return  # It is shown text.
        else:
            raise ValueError(f"{found.name} is no value model: it has no value head, and is no published reward model")
    except ValueError as error:
        raise ConfigError(f"{place}: {error}; name a learner of values, or the folder of a value model") from error
    if form is not None and form.read == "step" and form.separator != separator:
        raise ConfigError(
            f"{where}: {separator!r} is not what {text} knows as the end of a step; set it to {form.separator!r}, or "
            "its values are read where it never learnt any"
        )


def _check_tokens(session: Session, place: str, name: str) -> None:
    from selftrain.models.checkpoint import load_tokenizer

    try:
        theirs, ours = load_tokenizer(name), session.tokenizer
    except OSError as error:
        raise ConfigError(f"{place}: {name} cannot be had: {str(error).strip().splitlines()[0][:200]}") from error
    if theirs.get_vocab() != ours.get_vocab():
        raise ConfigError(
            f"{place}: {name} has another tokenizer than the policy ({len(theirs)} tokens against {len(ours)}), and "
            "reads the policy's tokens as they are; name one that was fitted on a model of the policy's family"
        )
