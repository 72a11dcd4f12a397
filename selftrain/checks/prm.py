"""What `selftrain prm` is asked: a source, its models, labelled solutions; checked before any model is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from selftrain.checks.check import context_length, load_tokenizer
from selftrain.checks.models import check_scored_by
from selftrain.checks.values import check_value_heads
from selftrain.config import ConfigError, apply_overrides, check_tree
from selftrain.labelling.files import LabelledSteps, Neutral, read_labelled
from selftrain.labelling.monte_carlo import first_wrong
from selftrain.models.head_form import has_value_head, read_form
from selftrain.planning.references import BASE, LEARNER, score_references
from selftrain.planning.settings import POLICY
from selftrain.prompts import check_tokenizer, make_prompter
from selftrain.rewards.base import Judged
from selftrain.schema import Component, Prompt, RunConfig
from selftrain.selection import as_scored
from selftrain.session import Session
from selftrain.stages.given import check_readable
from selftrain.stages.labelled import SOURCE, STAGE, as_judged, problems_of

PLACES = {f"tasks.{STAGE}.prompt": "prompt", f"reward.sources.{SOURCE}.": "", "model.chat": "chat"}
"""Where the keys of the command stand in a config."""
VALIDATION = 5
"""One in so many problems chooses the threshold where nothing else does."""


class Given(NamedTuple):
    """Solutions that are reported on, and those that choose the threshold."""

    tested: list[LabelledSteps]
    validation: list[LabelledSteps]
    note: str | None = None
    """What was left out."""


def config_of(source: str, words: Sequence[str], folder: Path) -> tuple[RunConfig, Prompt]:
    """The run without tasks and learners whose one reward source is asked, and how a problem becomes a prompt.

    Args:
        source: kind of the source, or the folder of a model with a value head.
        words: ``key=value``, options of the source; ``prompt.KEY`` and ``chat.KEY`` as of a task and of the model.

    Raises:
        ConfigError: there is no such source, or it lacks a model.
    """
    moved = [_placed(word) for word in words]
    run = {"name": folder.name, "folder": str(folder.parent), "reuse": False}
    task = {"kind": "jsonl", "verifier": "exact_answer"}
    tree = {"run": run, "tasks": {STAGE: task}, "reward": {"sources": {SOURCE: _source(source)}}}
    with as_asked():
        config = check_tree(apply_overrides(tree, moved))
        model = replace(config.model, path=_model(config))
    if source_of(config).options.get("read") == "last":
        raise ConfigError(f"{source}: it is an outcome model, read at the last token alone, and says nothing of steps")
    prompt = config.tasks[STAGE].prompt
    if prompt.few_shot.n:
        raise ConfigError("prompt.few_shot.n: there is no task here whose worked examples could be shown; leave it out")
    return replace(config, tasks={}, model=model), prompt


def _placed(word: str) -> str:
    if re.match(r"prompt\b", word):
        return f"tasks.{STAGE}.{word}"
    return f"model.{word}" if re.match(r"chat\b", word) else f"reward.sources.{SOURCE}.{word}"


def _source(source: str) -> dict[str, Any]:
    """A folder with a value head says itself what ends a step; a published model is shown each step's text."""
    if not Path(source).is_dir():
        return {"kind": source}
    from selftrain.models.published import read_published

    try:
        form = read_form(source) if has_value_head(source) else None
        known = form is not None or read_published(source) is not None
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not known:
        raise ConfigError(
            f"{source} has no value head; of a language model that was trained as an implicit reward name the "
            f"reference too: selftrain prm implicit_prm model={source} reference=MODEL"
        )
    own = {} if form is None else {"separator": form.separator, "read": form.read}
    return {"kind": "value_head", "model": source, **own}


def _model(config: RunConfig) -> str:
    """The model whose tokenizer encodes: the first that the source asks."""
    asked = score_references(config)
    for place, text in asked.items():
        if text.startswith(LEARNER) or text.partition("@")[0] in (BASE, POLICY):
            raise ConfigError(f"{place}={text}: there is no run here; give a folder or hub name: {place}=MODEL")
    if not asked:
        raise ConfigError(f"{source_of(config).kind} asks no model and gives no scores to steps; see selftrain prm -h")
    return next(iter(asked.values()))


@contextmanager
def as_asked() -> Iterator[None]:
    """Inside, messages name keys as the command has them."""
    try:
        yield
    except ConfigError as error:
        text = str(error)
        for place, own in PLACES.items():
            text = text.replace(place, own)
        raise ConfigError(text) from error


def source_of(config: RunConfig) -> Component:
    source: Component = config.reward.sources[SOURCE]
    return source


def read_given(data: Path, validation: Path | None, neutral: Neutral, *, choose: bool) -> Given:
    """The solutions, and those that choose a threshold, which are to problems of their own.

    Args:
        choose: whether one is to be chosen; without a file one problem in five does, by a hash of its text.

    Raises:
        ConfigError: a file cannot be read, is empty, or nothing is left of it.
    """
    rows = _read(data, neutral)
    if not choose:
        return Given(rows, [])
    if validation is None:
        parts: dict[bool, list[LabelledSteps]] = {True: [], False: []}
        for row in rows:
            parts[sha256(row.problem.encode()).digest()[0] % VALIDATION == 0].append(row)
        if not parts[False]:
            raise ConfigError(
                f"{data}: too few problems to choose a threshold on some; give --validation or --threshold"
            )
        _check_both(parts[True], f"a fifth of the problems of {data}")
        return Given(parts[False], parts[True])
    asked = {row.problem for row in rows}
    every = _read(validation, neutral)
    others = [row for row in every if row.problem not in asked]
    if not others:
        raise ConfigError(f"{validation}: all its problems are in {data} too; choose the threshold on other ones")
    _check_both(others, str(validation))
    left = len(every) - len(others)
    return Given(
        rows, others, f"{left} solutions of {validation} are to problems of {data}: left out" if left else None
    )


def _check_both(rows: Sequence[LabelledSteps], where: str) -> None:
    """Raises ConfigError where no threshold can be chosen."""
    wrong = sum(first_wrong(row.labels) >= 0 for row in rows)
    if wrong in (0, len(rows)):
        raise ConfigError(
            f"{where}: {wrong} of {len(rows)} solutions have a wrong step; choosing a threshold takes solutions of "
            "both kinds: give another --validation, or --threshold"
        )


def _read(path: Path, neutral: Neutral) -> list[LabelledSteps]:
    try:
        rows = list(read_labelled(path, neutral=neutral))
    except ValueError as error:
        raise error if isinstance(error, ConfigError) else ConfigError(str(error)) from error
    if not rows:
        raise ConfigError(f"{path} holds no labelled solutions")
    return rows


def encoded(session: Session, rows: Sequence[LabelledSteps], prompt: Prompt) -> list[Judged]:
    """The solutions as the models read them; raises ConfigError where they cannot. Loads tokenizers, never weights."""
    config = session.config
    with as_asked():
        session.tokenizer = load_tokenizer(config)
        check_tokenizer(session.tokenizer, str(config.model.path))
        context = context_length(config)
        check_scored_by(session)
        check_value_heads(session)
        prompter = make_prompter(session.tokenizer, prompt, config.model.chat)
        session.problems = problems_of(rows)
        judged = as_judged(rows, session.problems, prompter, source_of(config).options.get("separator", "\n"))
    examples = [as_scored(one.sample, session.tokenizer.eos_token_id) for one in judged if one.sample is not None]
    check_readable(examples, session.tokenizer, context, lambda one: rows[int(one.id)].id, "--data")
    return judged
