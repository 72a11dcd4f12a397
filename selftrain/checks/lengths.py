"""How long prompts and worked solutions are, in tokens of the policy, on average over some of a task's problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from selftrain.checks.check import load_tokenizer
from selftrain.config import ConfigError
from selftrain.intervals import mean
from selftrain.planning.problems import few_shot
from selftrain.schema import Prompt
from selftrain.session import Session
from selftrain.stages.replay import encoder_of, read_rows
from selftrain.types import Problem

T = TypeVar("T")
LOOKED_AT = 200
"""Problems whose lengths are averaged, spread over all of a split."""
CHARACTERS = 4.0
"""Of a token, where no tokenizer can be had."""


@dataclass
class Lengths:
    """Of a session whose tokenizer is there, or else of characters."""

    session: Session
    read: bool = True
    """Whether there is a tokenizer."""
    _known: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, session: Session) -> Lengths:
        """With the policy's tokenizer where it can be had."""
        try:
            session.tokenizer = load_tokenizer(session.config)
        except ConfigError:
            return cls(session, read=False)
        return cls(session)

    def prompt(self, task: str, kind: str = "prompt") -> float:
        return self._of(task, kind)[0]

    def solution(self, task: str, kind: str = "train_prompt") -> float:
        """Of worked solutions; 0 of a task that has none."""
        return self._of(task, kind)[1]

    def replayed(self, path: Path, where: str) -> tuple[int, float]:
        """Rows of a file, and the mean tokens of prompt and response."""
        rows = list(read_rows(path, where))
        some = spread(rows)
        if not self.read:
            return len(rows), mean([sum(map(len, row.texts())) / CHARACTERS for row in some])
        encoder = encoder_of(self.session)
        return len(rows), mean([sum(map(len, row.ids(encoder))) for row in some])

    def _of(self, task: str, kind: str) -> tuple[float, float]:
        if (task, kind) not in self._known:
            self._known[task, kind] = self._measured(task, kind)
        return self._known[task, kind]

    def _measured(self, task: str, kind: str) -> tuple[float, float]:
        splits = self.session.problems.splits[task]
        problems = spread(splits.get("train") or [one for split in splits.values() for one in split])
        worked = [
            one for one in spread([p for split in splits.values() for p in split]) if one.demonstration is not None
        ]
        prompt, solution = self._by_tokens(task, kind) if self.read else self._by_characters(task, kind)
        return mean(list(map(prompt, problems))), mean(list(map(solution, worked))) if worked else 0.0

    def _by_tokens(self, task: str, kind: str) -> tuple[Callable[[Problem], float], Callable[[Problem], float]]:
        prompter = self.session.prompters[kind][task]
        return lambda one: len(prompter.ids(one)), lambda one: len(prompter.solution(one))

    def _by_characters(self, task: str, kind: str) -> tuple[Callable[[Problem], float], Callable[[Problem], float]]:
        own = self.session.config.tasks[task]
        prompt: Prompt = (own.train_prompt if kind == "train_prompt" else None) or own.prompt
        shown = few_shot(self.session.problems, task, prompt.few_shot, f"tasks.{task}.{kind}.few_shot")
        shots = shown[: prompt.few_shot.n]
        around = len(prompt.template) + len(prompt.instruction) + len(prompt.system or "")
        examples = sum(len(one.question) + len(one.demonstration or "") + around for one in shots)
        return (
            lambda one: (len(one.question) + around + examples) / CHARACTERS,
            lambda one: len(one.demonstration or "") / CHARACTERS,
        )


def spread(items: Sequence[T]) -> Sequence[T]:
    """Some of many, evenly spaced."""
    return items[:: max(1, len(items) // LOOKED_AT)]
