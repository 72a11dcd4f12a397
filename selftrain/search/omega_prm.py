"""Where a wrong response goes wrong, by binary search (Luo et al. 2024, "OmegaPRM", arXiv 2406.06592, section 3).

A prefix from which some completions are right holds no fatal error yet; the first from which none is ends in one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from selftrain.ranges import Count, NotNegative, Positive, Share, Size
from selftrain.search.asks import Ask, Moves, check_ranges
from selftrain.search.choose import How
from selftrain.search.monte_carlo import completed
from selftrain.search.together import together
from selftrain.search.tree import Node, Tree

Probes = Generator[list[Ask], list[Any], list[tuple[Node, Node]]]


@dataclass(frozen=True)
class OmegaPRM:
    """``n`` whole responses; in each wrong one the first error is searched for with ``completions`` per probe.

    Probed nodes get ``mc``. Problems that no response or every response solves hold nothing to search for.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"judge"})
    whole: ClassVar[bool] = True
    ignores: ClassVar[frozenset[str]] = frozenset({"value"})

    n: Count = 8
    completions: Count = 8
    searches: Size = 0
    """0: every wrong response is searched once. Else so many searches, each of the wrong completion, of a state with
    right ones too, whose Q + U is the largest; completions are then kept, as what later searches go through."""
    alpha: Share = 0.5
    beta: Share = 0.9
    length: Positive = 500
    """L, in tokens."""
    exploration: NotNegative = 0.125
    choose: How = "value"

    def __post_init__(self) -> None:
        check_ranges(self)

    def grow(self, tree: Tree, rng: random.Random) -> Moves:
        leaves = yield from completed(tree.root, self.n, keep=True)
        pool = _mixed(tree.root, leaves)
        if not self.searches:
            yield from together([self.bisect(state, leaf) for state, leaf in pool])
        for _ in range(self.searches):
            if not pool:
                break
            state, leaf = max(pool, key=lambda pair: self.selection(pair[0], pair[1], tree))
            pool.remove((state, leaf))
            pool += yield from self.bisect(state, leaf)
            state.visits += 1

    def bisect(self, state: Node, leaf: Node) -> Probes:
        """The first error between a state with right completions and a wrong leaf; further states to search from."""
        steps = leaf.path()[state.depth :]
        low, high, found = -1, len(steps) - 1, list[tuple[Node, Node]]()
        while high - low > 1:
            middle = (low + high) // 2
            node = steps[middle]
            if node.mc is None:
                completions = yield from completed(node, self.completions, keep=self.searches > 0)
                found += _mixed(node, completions)
            if node.mc is None:  # Nothing was drawn or judged: the error cannot be told from here.
                break
            low, high = (middle, high) if node.mc > 0 else (low, middle)
        return found

    def selection(self, state: Node, leaf: Node, tree: Tree) -> float:
        """Q(s, r) + U(s) = alpha^(1 - MC(s)) beta^(len(r) / L) + c sqrt(sum of all N) / (1 + N(s)) (section 3.3)."""
        assert state.mc is not None
        quality: float = self.alpha ** (1 - state.mc) * self.beta ** ((leaf.length - state.length) / self.length)
        visits = sum(node.visits for node in tree.nodes)
        return quality + self.exploration * math.sqrt(visits) / (1 + state.visits)


def _mixed(state: Node, leaves: Sequence[Node]) -> list[tuple[Node, Node]]:
    """The state with each of its wrong completions, where some are right and some are not."""
    if state.mc is None or not 0 < state.mc < 1:
        return []
    return [(state, leaf) for leaf in leaves if leaf.right is not None and leaf.right < 0.5]
