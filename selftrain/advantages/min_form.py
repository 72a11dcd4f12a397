"""PURE's credit assignment (Cheng et al. 2025, "Stop Summation"): a solution is worth its worst step.

Summing process rewards teaches to write more steps that are worth a little; the minimum does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selftrain.advantages.base import Group, Rollout, leave_one_out, to_go
from selftrain.ranges import Count, Positive

if TYPE_CHECKING:
    from selftrain.advantages.base import Vector


@dataclass(frozen=True)
class PureMinForm:
    """A_t^i = sum_{s >= t} [r*_s - b^i] + o^i - mean_{j != i} o^j, with r* = softmax(-r / T) r over the steps."""

    temperature: Positive = 0.1
    """T; as it falls, the sum of r* goes to the least step reward."""
    length: Count | None = None
    """Tokens the others' mean sum of r* is spread over; the longest response of the batch where none is given."""

    def advantages(self, groups: Sequence[Group]) -> list[list[Vector]]:
        longest = max((one.length for group in groups for one in group), default=0)
        return [self._group(group, self.length or max(1, longest)) for group in groups]

    def _group(self, group: Group, length: int) -> list[Vector]:
        if len(group) < 2:
            return [one.process * 0.0 for one in group]
        process = [self._worst(one) for one in group]
        sums = [float(own.sum()) for own in process]
        outcomes = leave_one_out([one.outcome for one in group])
        return [
            to_go(own - (sum(sums) - total) / (len(group) - 1) / length) + outcome
            for own, total, outcome in zip(process, sums, outcomes, strict=True)
        ]

    def _worst(self, rollout: Rollout) -> Vector:
        """``[L]`` each step's r*, at its last token; zeros for a response without a step."""
        import numpy as np

        earned = np.zeros(rollout.length)
        if not rollout.length or not rollout.step_ends:
            return earned
        ends = np.asarray(rollout.step_ends)
        steps = np.diff(np.concatenate([[0.0], np.cumsum(rollout.process)[ends - 1]]))
        earned[ends - 1] = min_form(steps, self.temperature)
        return earned


def min_form(steps: Vector, temperature: float) -> Vector:
    """softmax(-r / T) r, ``[steps]`` (equation 6)."""
    import numpy as np

    weights = np.exp((steps.min() - steps) / temperature)
    return np.asarray(steps * weights / weights.sum())
