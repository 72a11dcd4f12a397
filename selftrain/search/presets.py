"""The three sets of defaults that the code of ReST-MCTS* has, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Preset = Literal["task", "evaluate", "self_train"]


@dataclass(frozen=True)
class Settings:
    """What MCTS* needs to know."""

    iterations: int | None
    exploration: float
    roll_forward_steps: int
    end_gate: float
    unvisited: float
    branch: int = 3
    roll_branch: int = 1
    alpha: float = 0.5


PRESETS: dict[str, Settings] = {
    "task": Settings(None, exploration=0.7, roll_forward_steps=3, end_gate=0.9, unvisited=1.0),
    "evaluate": Settings(100, exploration=0.4, roll_forward_steps=2, end_gate=0.9, unvisited=0.8),
    "self_train": Settings(50, exploration=0.5, roll_forward_steps=1, end_gate=0.8, unvisited=0.9),
}
"""``MCTS_Task``'s own defaults (the number of iterations is required there), ``evaluate.py``'s, and those of
``self_train/generation``."""
