"""Advantages of a response against the others to its problem; every token of it has the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selftrain.advantages.base import Group, leave_one_out, spread
from selftrain.ranges import NotNegative

if TYPE_CHECKING:
    from selftrain.advantages.base import Vector

FLOOR = 1e-3
"""Deviations not above it are none: dividing by them makes rounding residues the advantage."""


@dataclass(frozen=True)
class RLOO:
    """REINFORCE leave-one-out (Ahmadian et al. 2024, equation 7): r_i minus the mean of the others' rewards."""

    def advantages(self, groups: Sequence[Group]) -> list[list[Vector]]:
        return spread(groups, [leave_one_out([one.total for one in group]) for group in groups])


@dataclass(frozen=True)
class GRPO:
    """(r_i - mean) / std of the group, std of a sample (Shao et al. 2024, section 4.1.2)."""

    floor: NotNegative = FLOOR
    """Where the deviation is not above it, all advantages of the group are 0."""

    def advantages(self, groups: Sequence[Group]) -> list[list[Vector]]:
        return spread(groups, [self._scaled([one.total for one in group]) for group in groups])

    def _scaled(self, rewards: Sequence[float]) -> list[float]:
        centred = group_centred(rewards)
        deviation = (sum(value**2 for value in centred) / max(1, len(centred) - 1)) ** 0.5
        return [value / deviation if deviation > self.floor else 0.0 for value in centred]


@dataclass(frozen=True)
class DrGRPO:
    """r_i - mean of the group (Liu et al. 2025, section 3.2): no division, which favours problems that are nearly
    always or never solved. Goes with ``aggregate: constant``."""

    def advantages(self, groups: Sequence[Group]) -> list[list[Vector]]:
        return spread(groups, [group_centred([one.total for one in group]) for group in groups])


@dataclass(frozen=True)
class ReMax:
    """r_i minus the reward of the greedy response, process rewards in both (Li et al. 2023, equation 7); 0 where that
    one could not be judged."""

    greedy: str = "greedy"
    """The step of Grow that draws that response: ``{n: 1, temperature: 0}``."""

    def advantages(self, groups: Sequence[Group]) -> list[list[Vector]]:
        return spread(
            groups, [[0.0 if one.greedy is None else one.total - one.greedy for one in group] for group in groups]
        )


def group_centred(rewards: Sequence[float]) -> list[float]:
    """r_i - mean; exactly 0 where all are equal."""
    if not rewards or min(rewards) == max(rewards):
        return [0.0] * len(rewards)
    mean = sum(rewards) / len(rewards)
    return [reward - mean for reward in rewards]
