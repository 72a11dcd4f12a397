"""REINFORCE++ (Hu et al. 2025): reward to go, whitened over all tokens of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from selftrain.advantages.base import Group, Rollout, to_go, whitened
from selftrain.advantages.group import FLOOR, group_centred
from selftrain.ranges import NotNegative, Share

if TYPE_CHECKING:
    from selftrain.advantages.base import Vector


@dataclass(frozen=True)
class ReinforcePP:
    """G_t = sum_{s >= t} gamma^(s - t) r_s, the outcome at the last token, then (G - mean) / std over the batch."""

    gamma: Share = 1.0
    baseline: Literal["none", "group"] = "none"
    """group: the mean outcome of the group is taken off first (REINFORCE++-baseline)."""
    floor: NotNegative = FLOOR
    """Where the deviation over the batch is not above it, all advantages are 0."""

    def advantages(self, groups: Sequence[Group]) -> list[list[Vector]]:
        centred = self.baseline == "group"
        found = [_centred(group) for group in groups] if centred else groups
        returns = [[to_go(rewards(one), self.gamma) for one in group] for group in found]
        return whitened(returns, self.floor, centred=centred)


def rewards(rollout: Rollout) -> Vector:
    """``[L]`` the outcome at the last token, beside what every token earns."""
    earned = rollout.process.copy()
    earned[-1:] += rollout.outcome
    return earned


def _centred(group: Group) -> list[Rollout]:
    if len(group) < 2:  # Nothing says whether what it earned is much.
        return [replace(one, outcome=0.0, process=one.process * 0.0) for one in group]
    outcomes = group_centred([one.outcome for one in group])
    return [replace(one, outcome=outcome) for one, outcome in zip(group, outcomes, strict=True)]
