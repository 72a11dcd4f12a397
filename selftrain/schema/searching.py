"""How solutions are searched for, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from selftrain.ranges import Count, Positive


@dataclass(frozen=True)
class SearchBudget:
    """What one tree may cost; it is never exceeded."""

    tokens: Count | None = None
    """Tokens that the policy draws and, of responses, the value model reads; no bound where none is given."""
    proposals: Count | None = None
    """Steps that are drawn; no bound where none is given."""
    depth: Count = 16
    """Steps a response is searched through."""
    step_tokens: Count = 256
    """Longest step in tokens; ``max_tokens`` bounds the whole response."""
    enough: Positive | None = None
    """Value of a complete response at which its tree ends early."""


@dataclass(frozen=True)
class Searching:
    """How a tree grows: of a step of Grow of the kind ``search``, and of a search of an evaluation."""

    strategy: Any = None
    """A component; how a tree grows."""
    value: str | None = None
    """Who says what a path is worth: a value model, as ``learner:NAME`` or by its path, or a reward source,
    ``reward:NAME``."""
    budget: SearchBudget = field(default_factory=SearchBudget)
    separator: str = "\n"
    """What ends a step; its tokens stay in the step as they were drawn."""
    lanes: Count = 64
    """Trees that grow together; changes speed and memory, and no more of what is drawn than a batch size does."""
    cached_tokens: Count = 131072
    """Of paths under a value head, whose keys and values are kept; changes speed and memory alone."""
