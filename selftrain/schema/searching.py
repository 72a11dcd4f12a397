"""How solutions are searched for, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from selftrain.ranges import Count


@dataclass(frozen=True)
class SearchBudget:
    """What one tree may cost; it is never exceeded."""

    tokens: Count | None = None
    """Tokens the policy draws and the value model reads, all told; no bound where none is given."""
    proposals: Count | None = None
    """Steps that are drawn; no bound where none is given."""
    depth: Count = 16
    """Steps of a solution."""
    step_tokens: Count = 128
    """Longest step in tokens."""


@dataclass(frozen=True)
class Searching:
    """What a step of Grow of the kind ``search`` knows beside how it samples."""

    strategy: Any = None
    """A component; how a tree grows."""
    value: str | None = None
    """Who says what a path is worth: a value model (``learner:NAME`` or a path), or ``reward:NAME``, a reward source by
    its name."""
    budget: SearchBudget = field(default_factory=SearchBudget)
    separator: str = "\n"
    """What ends a step; its tokens stay in the step as they were drawn."""
    lanes: Count = 64
    """Trees that grow together; changes speed and memory, and no more of what is drawn than ``batch_size`` does."""
    keep: Literal["all", "chosen"] = "all"
    """Which complete solutions of a tree become samples: all, or the one the strategy chooses."""
