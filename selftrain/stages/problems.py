"""The problems of a run: loaded, checked, and cleaned of what evaluation must not have seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

from selftrain.config import ConfigError, instantiate
from selftrain.schema import Component, RunConfig
from selftrain.types import Problem

EVALUATED = ("val", "test", "transfer")
"""Splits that are evaluated and never learnt from."""


@dataclass(frozen=True)
class ProblemSet:
    """Problems by task and split."""

    splits: dict[str, dict[str, list[Problem]]]
    dropped: dict[str, int]
    """Per task: problems to learn from that also occur in an evaluated split, left out."""

    def of(self, task: str, split: str) -> list[Problem]:
        return self.splits[task].get(split, [])

    def all(self, split: str) -> list[Problem]:
        return [problem for task in self.splits for problem in self.of(task, split)]

    @cached_property
    def by_id(self) -> dict[str, Problem]:
        return {p.id: p for splits in self.splits.values() for problems in splits.values() for p in problems}

    def demonstrations(self, split: str) -> list[Problem]:
        return [problem for problem in self.all(split) if problem.demonstration is not None]


def load_problems(config: RunConfig) -> ProblemSet:
    """Load every split of every task.

    Raises:
        ConfigError: a task cannot be loaded, is empty, or holds an id twice.
    """
    splits: dict[str, dict[str, list[Problem]]] = {}
    dropped: dict[str, int] = {}
    for name in config.tasks:
        loaded = _load(config, name)
        evaluated = {_key(p) for split in EVALUATED for p in loaded.get(split, [])}
        clean = {
            split: problems if split in EVALUATED else [p for p in problems if _key(p) not in evaluated]
            for split, problems in loaded.items()
        }
        dropped[name] = sum(map(len, loaded.values())) - sum(map(len, clean.values()))
        splits[name] = clean
    _check_ids([p for loaded in splits.values() for problems in loaded.values() for p in problems])
    return ProblemSet(splits, dropped)


def _load(config: RunConfig, name: str) -> dict[str, list[Problem]]:
    task = config.tasks[name]
    source = instantiate("task", Component(task.kind, task.options))
    loaded = {}
    try:
        every = {split: source.problems(split) for split in source.splits()}
    except (ValueError, OSError) as error:
        raise ConfigError(f"tasks.{name}: {error}") from error
    for split, problems in every.items():
        if not problems:
            raise ConfigError(f"tasks.{name}: the split '{split}' is empty")
        kept = problems[: task.limit.get(split, len(problems))]
        loaded[split] = [replace(p, task=name) for p in kept]
    unknown = set(task.limit) - set(loaded)
    if unknown:
        raise ConfigError(f"tasks.{name}.limit: no split '{min(unknown)}'; the task has {', '.join(loaded)}")
    if not loaded:
        raise ConfigError(f"tasks.{name}: the task has no problems")
    return loaded


def _key(problem: Problem) -> str:
    return " ".join(problem.question.split())


def _check_ids(problems: list[Problem]) -> None:
    twice = [identifier for identifier, count in Counter(p.id for p in problems).items() if count > 1]
    if twice:
        raise ConfigError(
            f"problem id '{twice[0]}' occurs more than once ({len(twice)} such ids); ids must be unique in a run"
        )
