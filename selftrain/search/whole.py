"""Whole responses beside each other: best-of-n and what votes among them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from selftrain.ranges import Count
from selftrain.search.asks import Moves, Propose, Value, check_ranges
from selftrain.search.choose import How
from selftrain.search.tree import Tree


@dataclass(frozen=True)
class BestOfN:
    """``n`` whole responses, each valued at its end (Stiennon et al. 2020; Cobbe et al. 2021).

    Without a value function they can be voted among (self-consistency).
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    whole: ClassVar[bool] = True

    n: Count = 16
    choose: How = "value"

    def __post_init__(self) -> None:
        check_ranges(self)

    def grow(self, tree: Tree, rng: random.Random) -> Moves:
        [leaves] = yield [Propose(tree.root, self.n, to_end=True)]
        yield [Value(leaves)]


@dataclass(frozen=True)
class WeightedBestOfN(BestOfN):
    """The same responses; the answer with the largest sum of values is chosen (Li et al. 2023)."""

    choose: How = "weighted_vote"
