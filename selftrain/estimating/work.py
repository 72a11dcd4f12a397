"""The work of a run, stage by stage, in tokens; and the seconds it takes at given speeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from selftrain.estimating.speed import Speeds


@dataclass(frozen=True)
class Work:
    """One stage, as often as the run does it; numbers are those of one time."""

    stage: str
    """As events and marks name it: ``grow``, ``improve-policy`` ..."""
    times: int
    samples: float = 0
    drawn: float = 0
    """Tokens that samplers draw."""
    prompts: float = 0
    """Tokens of prompts that samplers read; those of one problem once."""
    read: float = 0
    """Tokens that a fit reads, forward and backward."""
    scored: float = 0
    """Tokens of forward passes alone."""
    steps: float = 0

    @property
    def tokens(self) -> float:
        """What is counted of a run that was made: drawn, and read by fits."""
        return self.times * (self.drawn + self.read)

    def seconds(self, speeds: Speeds) -> float | None:
        """Of all times; None where a speed that it takes is not known. Prompts are read as fast as they are scored."""
        parts = [
            (self.drawn, speeds.sample),
            (self.read, speeds.train),
            (self.scored, speeds.scoring),
        ]
        if any(tokens and speed is None for tokens, speed in parts):
            return None
        prefill = self.prompts / speeds.scoring if speeds.scoring else 0.0
        return self.times * (prefill + sum(tokens / speed for tokens, speed in parts if speed))


def total_seconds(works: Iterable[Work], speeds: Speeds) -> float | None:
    found = [work.seconds(speeds) for work in works]
    return None if any(one is None for one in found) else sum(one for one in found if one is not None)


def gpu_hours(seconds: float, gpus: int) -> float:
    return seconds / 3600 * gpus
