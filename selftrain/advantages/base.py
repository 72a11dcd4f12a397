"""What an advantage is computed from: all responses of an iteration, grouped by problem.

The whole batch is seen at once, before it is cut for ranks and forward passes: whatever is normalised over it does not
depend on how it is cut. Numbers are float64; rewards are what sources give, times their weights in the total.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    Vector = NDArray[float64]


@dataclass(frozen=True)
class Rollout:
    """One response."""

    outcome: float
    """Reward of the whole, earned at its last token."""
    process: Vector
    """``[L]`` reward of each token; zeros where no source gives any. Its length is the response's."""
    step_ends: tuple[int, ...] = ()
    """Exclusive end of each step, as an index into the tokens."""
    greedy: float | None = None
    """Total of the greedy response to the same problem, where one was drawn."""
    unweighted: Vector | None = None
    """``[L]`` process rewards before their weights in the total; None: as ``process``."""

    @property
    def length(self) -> int:
        return len(self.process)

    @property
    def total(self) -> float:
        return self.outcome + float(self.process.sum())


Group = Sequence[Rollout]
"""The responses to one problem."""


class Advantage(Protocol):
    """An advantage for each token of each response."""

    def advantages(self, groups: Sequence[Group]) -> list[list[Vector]]:
        """``[L]`` for each response, as they were given. A group of one or of equal rewards teaches nothing: zeros."""
        ...


def spread(groups: Sequence[Group], values: Sequence[Sequence[float]]) -> list[list[Vector]]:
    """The same number for every token of a response."""
    import numpy as np

    return [
        [np.full(rollout.length, value) for rollout, value in zip(group, own, strict=True)]
        for group, own in zip(groups, values, strict=True)
    ]


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """r_i minus the mean of the others (Ahmadian et al. 2024, equation 7): K / (K - 1) (r_i - mean).

    Exactly 0 for one alone, or where all are equal.
    """
    if len(rewards) < 2 or min(rewards) == max(rewards):
        return [0.0] * len(rewards)
    total = sum(rewards)
    return [reward - (total - reward) / (len(rewards) - 1) for reward in rewards]


def to_go(rewards: Vector, gamma: float = 1.0) -> Vector:
    """G_t = sum_{s >= t} gamma^(s - t) r_s, ``[L]``."""
    import numpy as np

    if gamma == 1.0:
        return np.cumsum(rewards[::-1])[::-1]
    out = np.empty_like(rewards)
    later = 0.0
    for place in range(len(rewards) - 1, -1, -1):
        later = rewards[place] + gamma * later
        out[place] = later
    return out


def whitened(values: Sequence[Sequence[Vector]], floor: float, *, centred: bool) -> list[list[Vector]]:
    """(A - mean) / std over all tokens of the batch; zeros where the deviation is not above the floor.

    In two passes: sqrt(E[x^2] - E[x]^2) of nearly equal numbers is rounding noise that the division blows up.

    Args:
        centred: whether values are against a baseline of their own group. Zeros throughout a group then say that it
            teaches nothing: they stay zeros, and have no part in mean and deviation.
    """
    import numpy as np

    counted = [not centred or any(own.any() for own in group) for group in values]
    every = np.concatenate([own for group in compress(values, counted) for own in group] or [np.zeros(0)])
    deviation = float(every.std(ddof=1)) if len(every) > 1 else 0.0
    return [
        [(own - every.mean()) / deviation if counts and deviation > floor else np.zeros_like(own) for own in group]
        for group, counts in zip(values, counted, strict=True)
    ]
