"""Bytes on disk: samples, verdicts, scores and examples, checkpoints, logs.

Bytes of records are measured (`python benchmarks/bench_bytes.py`) and rounded up.
"""

from __future__ import annotations

from dataclasses import dataclass

TOKEN = 3
"""Of a sampled token: its id, its text, its share of the columns of an example."""
SAMPLE = 250
"""Of a sample beside its tokens: ids, seed, prompt, verdict and scores."""
STEP = 200
"""Of an optimizer step: its line of the log, and events."""
FP32 = 4


@dataclass(frozen=True)
class Kept:
    """What of the checkpoints stays."""

    iterations: int
    keep: int | None = None
    """Newest ones that stay, the best one beside them."""
    states: bool = False
    """Whether optimizers go on, and leave their state."""

    @property
    def checkpoints(self) -> int:
        """Those that lie on disk at once."""
        # One is written while all others are there; a killed run goes on from one more.
        bounded = self.iterations if self.keep is None else self.keep + 2 + self.states
        return min(self.iterations, bounded)


def records(samples: float, tokens: float) -> int:
    """Of samples with so many tokens in all."""
    return round(samples * SAMPLE + tokens * TOKEN)


def checkpoints(parameters: int, kept: Kept, warmups: int = 0) -> int:
    """Of one learner: fp32 weights, and moments where its optimizer goes on."""
    each = FP32 * parameters * (3 if kept.states else 1)
    return each * kept.checkpoints + FP32 * parameters * warmups


def unfinished(parameters: int) -> int:
    """Of the largest fit: weights and moments in fp32, beside those of the last time until they are whole."""
    return 2 * 3 * FP32 * parameters


def logs(steps: float) -> int:
    return round(steps * STEP)
