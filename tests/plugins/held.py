"""A sampler and a verifier that come to problems to learn from, note who they are, and wait until a file says that they
may go on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from selftrain.sampling.base import Completion, Request
from selftrain.sampling.scripted import Characters, Scripted, ScriptedSampler
from selftrain.types import Problem, Verdict

GO = "go"
"""Name of the file."""


def hold(folder: str, who: str, problem: Problem) -> None:
    """Leave a file with the number of this process, and wait."""
    if problem.split != "train":
        return
    (Path(folder) / f"{who}-{os.getpid()}").touch()
    while not (Path(folder) / GO).exists():
        time.sleep(0.02)


@dataclass(frozen=True)
class Held(Scripted):
    folder: str = ""
    after: int = 16
    """Samples of a process before it waits."""

    def open(self, checkpoint: Path) -> HeldSampler:
        return HeldSampler(self, Characters())


class HeldSampler(ScriptedSampler):
    _options: Held

    _drawn = 0

    def _answer(self, place: int, request: Request, indices: Sequence[int]) -> Iterator[Completion]:
        self._drawn += request.problem.split == "train"
        if self._drawn > self._options.after:
            hold(self._options.folder, "sampler", request.problem)
        return super()._answer(place, request, indices)


@dataclass(frozen=True)
class Judge:
    folder: str = ""

    def __call__(self, problem: Problem, response: str) -> Verdict:
        hold(self.folder, "judge", problem)
        answer = response.rpartition("#")[2]
        return Verdict("right" if answer == problem.answer else "wrong", answer=answer)
