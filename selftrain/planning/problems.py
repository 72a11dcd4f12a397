"""The problems of a run: loaded, checked, and cleaned of what evaluation must not have seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter

from selftrain.config import ConfigError, instantiate
from selftrain.digests import value_digest
from selftrain.schema import Component, FewShot, RunConfig
from selftrain.seeds import derive
from selftrain.types import Problem

EVALUATED = ("val", "test", "transfer")
"""Splits that are never learnt from, also where a run does not evaluate them."""
WHOLE_PROBLEM = attrgetter("id", "question", "answer", "demonstration", "difficulty", "metadata")
GOLD = ("train", "demonstrations")
"""The splits whose demonstrations selections ``from: gold`` teach."""


def watched_tasks(config: RunConfig) -> frozenset[str]:
    """Tasks of weight 0: they are evaluated, and nothing is learnt from them or decided by them."""
    return frozenset(name for name, task in config.tasks.items() if not task.weight)


def held_out_splits(config: RunConfig) -> frozenset[str]:
    """Names of the splits that nothing may be learnt from, in any task."""
    return frozenset({*EVALUATED, *config.evaluate.splits})


@dataclass(frozen=True)
class ProblemSet:
    """Problems by task and split."""

    splits: dict[str, dict[str, list[Problem]]]
    dropped: dict[str, int]
    """Per task: problems to learn from that also occur in an evaluated split of any task, left out."""
    held_out: frozenset[str]
    """Names of the splits that nothing may be learnt from."""
    watched: frozenset[str] = frozenset()
    """Names of the tasks that nothing may be learnt from, whatever the split."""
    unused: tuple[Problem, ...] = ()
    """Problems of the held-out splits beyond the run's limits: never asked, and never learnt either."""

    def of(self, task: str, split: str) -> list[Problem]:
        return self.splits[task].get(split, [])

    def all(self, split: str) -> list[Problem]:
        return [problem for task in self.splits for problem in self.of(task, split)]

    def learnt(self, split: str) -> list[Problem]:
        """The problems of a split that may be learnt from."""
        return [problem for problem in self.all(split) if problem.task not in self.watched]

    @cached_property
    def train_ids(self) -> dict[str, tuple[str, ...]]:
        """Of the problems each task learns from, in their order."""
        return {task: tuple(problem.id for problem in self.of(task, "train")) for task in self.splits}

    @cached_property
    def train_digest(self) -> str:
        """Stands for the problems learnt from, with all they hold but their split."""
        return value_digest([WHOLE_PROBLEM(problem) for problem in self.all("train")])

    @cached_property
    def by_id(self) -> dict[str, Problem]:
        return {p.id: p for splits in self.splits.values() for problems in splits.values() for p in problems}

    def demonstrations(self, split: str) -> list[Problem]:
        return [problem for problem in self.learnt(split) if problem.demonstration is not None]

    def gold(self) -> list[Problem]:
        return [problem for split in GOLD for problem in self.demonstrations(split)]

    def evaluated(self) -> list[Problem]:
        """The problems of all held-out splits, also those beyond the run's limits."""
        used = (p for splits in self.splits.values() for name in splits if name in self.held_out for p in splits[name])
        return [*used, *self.unused]


def load_problems(config: RunConfig) -> ProblemSet:
    """Load every split of every task, and leave out of what is learnt from all that is evaluated in any of them.

    Raises:
        ConfigError: a task cannot be loaded, is empty, or holds an id twice.
    """
    whole, held_out = {name: _load(config, name) for name in config.tasks}, held_out_splits(config)
    limited = {name: _limited(splits, config.tasks[name].limit) for name, splits in whole.items()}
    _check_ids([p for splits in limited.values() for problems in splits.values() for p in problems])
    unused = [
        problem
        for name, splits in whole.items()
        for split in sorted(held_out & splits.keys())
        for problem in splits[split][len(limited[name][split]) :]
    ]
    loaded = ProblemSet(limited, {}, held_out, watched_tasks(config), tuple(unused))
    evaluated = {bare(problem.question) for problem in loaded.evaluated()}
    clean = {name: _without(evaluated, splits, held_out) for name, splits in limited.items()}
    dropped = {name: _count(limited[name]) - _count(clean[name]) for name in clean}
    return replace(loaded, splits=clean, dropped=dropped)


def few_shot(problems: ProblemSet, task: str, wanted: FewShot, where: str) -> list[Problem]:
    """The worked examples of a task, one more than are shown: a problem is none for itself.

    They follow from the ids alone: the order of a file changes nothing, and neither does a further problem, unless its
    own hash puts it among them.

    Args:
        where: the place of ``wanted`` in the config, for the message.

    Raises:
        ConfigError: the split has too few demonstrations.
    """
    if not wanted.n:
        return []
    worked = [problem for problem in problems.of(task, wanted.source) if problem.demonstration is not None]
    if len(worked) <= wanted.n:
        raise ConfigError(
            f"{where}: {wanted.n} examples need more than {wanted.n} problems of "
            f"'{wanted.source}' with a demonstration, there are {len(worked)}"
        )
    return sorted(worked, key=lambda problem: derive("few-shot", problem.id))[: wanted.n + 1]


def question_key(question: str) -> str:
    """Equal for questions that differ in nothing but white space."""
    return " ".join(question.split())


def bare(question: str) -> str:
    """Equal for questions that are spaced in another way, be it inside a formula: ``x = 2`` and ``x=2``.

    It may hold two different questions for one (``1 2`` and ``12``): good enough to leave a problem out.
    """
    return "".join(question.split())


def _without(
    evaluated: set[str], splits: dict[str, list[Problem]], held_out: frozenset[str]
) -> dict[str, list[Problem]]:
    return {
        split: problems if split in held_out else [p for p in problems if bare(p.question) not in evaluated]
        for split, problems in splits.items()
    }


def _count(splits: dict[str, list[Problem]]) -> int:
    return sum(map(len, splits.values()))


def whole_task(config: RunConfig, name: str) -> dict[str, list[Problem]]:
    """All problems of a task by split, whatever the run's limits."""
    task = config.tasks[name]
    source = instantiate("task", Component(task.kind, task.options))
    try:
        every = {split: source.problems(split) for split in source.splits()}
    except (ValueError, OSError) as error:
        raise ConfigError(f"tasks.{name}: {error}") from error
    return {split: [replace(p, id=_id(name, p), task=name) for p in problems] for split, problems in every.items()}


def _load(config: RunConfig, name: str) -> dict[str, list[Problem]]:
    """All problems of a task by split; raises ConfigError where there are none, or a limit is of no split."""
    loaded = whole_task(config, name)
    for split, problems in loaded.items():
        if not problems:
            raise ConfigError(f"tasks.{name}: the split '{split}' is empty")
    unknown = set(config.tasks[name].limit) - set(loaded)
    if unknown:
        raise ConfigError(f"tasks.{name}.limit: no split '{min(unknown)}'; the task has {', '.join(loaded)}")
    if not loaded:
        raise ConfigError(f"tasks.{name}: the task has no problems")
    return loaded


def _limited(splits: dict[str, list[Problem]], limit: dict[str, int]) -> dict[str, list[Problem]]:
    return {split: problems[: limit.get(split, len(problems))] for split, problems in splits.items()}


def _id(task: str, problem: Problem) -> str:
    """The id with the run's name of the task in front: a run may hold two tasks of one kind."""
    return f"{task}/{problem.id.removeprefix(f'{problem.task}/')}"


def _check_ids(problems: list[Problem]) -> None:
    twice = [identifier for identifier, count in Counter(p.id for p in problems).items() if count > 1]
    if twice:
        raise ConfigError(
            f"problem id '{twice[0]}' occurs more than once ({len(twice)} such ids); ids must be unique in a run"
        )
