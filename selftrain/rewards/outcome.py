"""The verdict as a reward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from selftrain.rewards.base import Judged, Models
from selftrain.types import UNJUDGED, Score, Verdict


@dataclass(frozen=True)
class Outcome:
    """A right answer earns ``right``, any other judged one ``wrong``; partial credit lies between.

    A sample that could not be judged (``error``, ``timeout``) gets no reward at all, never a low one.
    """

    right: float = 1.0
    wrong: float = 0.0

    verdict_only: ClassVar[bool] = True

    def scores(self, judged: Sequence[Judged], source: str, models: Models) -> Iterator[Score]:
        return (self._score(one.sample_id, one.verdict, source) for one in judged)

    def _score(self, sample_id: str, verdict: Verdict, source: str) -> Score:
        if verdict.status in UNJUDGED:
            return Score(sample_id, source, valid=False)
        value = verdict.value or 0.0
        return Score(sample_id, source, valid=True, reward=self.wrong + value * (self.right - self.wrong))
