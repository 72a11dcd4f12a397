"""How a budget becomes samples per problem and iterations."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

MARGIN = 1.1
"""What is to come is reckoned a tenth dearer than what was: responses grow longer while a policy learns."""


@dataclass(frozen=True)
class Price:
    """What a block of iterations, from one evaluation to the next, takes of a budget."""

    fixed: float
    """Whatever is sampled: evaluation, fits of so many steps, searches."""
    per_sample: float
    """For each sample per problem."""

    def of(self, samples: float) -> float:
        return MARGIN * (self.fixed + samples * self.per_sample)


@dataclass(frozen=True)
class Choice:
    samples: int
    """Per problem at most; 0: no further block is begun."""
    blocks: int
    """How many are planned, this one included."""


def choose(left: float, price: Price, most: int, least: int, blocks: int) -> Choice:
    """As many of the blocks as the budget has room for with ``least`` samples per problem, each with an equal share of
    what is left, and ``most`` samples at most.

    Args:
        left: of the budget.
        blocks: that the config has left.
    """
    affordable = floor(left / price.of(least)) if price.of(least) > 0 else blocks
    planned = min(blocks, affordable)
    if planned < 1:
        return Choice(0, 0)
    share = left / planned / MARGIN - price.fixed
    samples = floor(share / price.per_sample + 1e-9) if price.per_sample > 0 else most
    return Choice(max(least, min(most, samples)), planned)
