"""PRIME's advantage (Cui et al. 2025, "Process Reinforcement through Implicit Rewards"): outcome and process rewards,
each against a leave-one-out baseline of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from selftrain.advantages.base import Group, leave_one_out, to_go, whitened
from selftrain.advantages.group import FLOOR
from selftrain.ranges import NotNegative, Share

if TYPE_CHECKING:
    from selftrain.advantages.base import Vector

LEAST = 1e-5
"""Returns not above it are what fp32 log-probabilities of a response are rounded by: dividing by them makes rewards of
noise."""


@dataclass(frozen=True)
class PrimeRLOO:
    """A_t^i = sum_{s >= t} gamma^(s - t) [r_s^i - b^i] + o^i - mean_{j != i} o^j (equation 5)."""

    variant: Literal["paper", "code", "sequence"] = "paper"
    """How process rewards are centred. paper: b^i is the mean over the others of their mean token reward. code: the
    released code's K / (K - 1) r_t - sum_j mean(r^j) / (K - 1), which the equation does not say; returns at the first
    token agree, inner differences are K / (K - 1) times as large. sequence: the others' mean *sum*, spread over the
    tokens; the other two reward short responses where process rewards are positive on the mean, long ones where they
    are negative."""
    gamma: Share = 1.0
    """Discount of process rewards; the outcome is not discounted."""
    normalise: Literal["none", "global"] = "global"
    """global: process rewards are divided by the largest |reward to go| of the whole batch, before their weight in the
    total counts; beta then has no effect, the weight has."""
    least: NotNegative = LEAST
    """Where that largest reward to go is not above it, process rewards count as 0."""
    whiten: bool = True
    """Whether advantages have mean 0 and deviation 1 over all tokens of the batch."""
    floor: NotNegative = FLOOR
    """Where the deviation over the batch is not above it, whitened advantages are 0."""

    def advantages(self, groups: Sequence[Group]) -> list[list[Vector]]:
        factor = self._factor(groups) if self.normalise == "global" else 1.0
        found = [self._group(group, factor) for group in groups]
        return whitened(found, self.floor, centred=True) if self.whiten else found

    def _factor(self, groups: Sequence[Group]) -> float:
        largest = largest_return(groups)
        return 1.0 / largest if largest > self.least else 0.0

    def _group(self, group: Group, factor: float) -> list[Vector]:
        process = centred([one.process * factor for one in group], self.variant)
        outcomes = leave_one_out([one.outcome for one in group])
        return [to_go(own, self.gamma) + outcome for own, outcome in zip(process, outcomes, strict=True)]


def largest_return(groups: Sequence[Group]) -> float:
    """max |sum_{s >= t} r_s| over all tokens of the batch, r before its weight in the total: what the released code
    takes over each rank's part of it."""
    every = (one.process if one.unweighted is None else one.unweighted for group in groups for one in group)
    return max((float(abs(to_go(own)).max()) for own in every if len(own)), default=0.0)


def centred(rewards: Sequence[Vector], variant: str) -> list[Vector]:
    """Process rewards of one group, each response's against the others'; zeros for one alone."""
    count = len(rewards)
    if count < 2:
        return [own * 0.0 for own in rewards]
    means = [float(own.mean()) if len(own) else 0.0 for own in rewards]
    sums = [float(own.sum()) for own in rewards]
    if variant == "code":
        return [(count * own - sum(means)) / (count - 1) for own in rewards]
    if variant == "paper":
        return [own - (sum(means) - mean) / (count - 1) for own, mean in zip(rewards, means, strict=True)]
    others = [(sum(sums) - own) / (count - 1) for own in sums]
    return [own - other / max(1, len(own)) for own, other in zip(rewards, others, strict=True)]
