"""A penalty for responses near the length limit (Yu et al. 2025, "DAPO", equation 13)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selftrain.ranges import Count
from selftrain.rewards.base import Judged, Models
from selftrain.types import Score


@dataclass(frozen=True)
class Overlong:
    """0 up to ``longest - cache`` tokens, from there linearly down to -1 at ``longest``.

    A cut that comes without warning punishes sound reasoning for its length alone.
    """

    longest: Count = 20480
    """Tokens a response may have, the end token included; such as ``max_tokens`` of the step."""
    cache: Count = 4096
    """Tokens before that over which the penalty grows."""

    def __post_init__(self) -> None:
        if self.cache >= self.longest:
            raise ValueError(f"cache must be less than longest, got {self.cache} and {self.longest}")

    def scores(self, judged: Sequence[Judged], source: str, models: Models) -> Iterator[Score]:
        for one in judged:
            assert one.sample is not None
            yield Score(one.sample_id, source, valid=True, reward=self.penalty(len(one.sample.response_ids)))

    def penalty(self, length: int) -> float:
        begins = self.longest - self.cache
        return max(-1.0, min(0.0, (begins - length) / self.cache))
