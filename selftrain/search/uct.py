"""UCT with terminal rewards (Kocsis and Szepesvari 2006), as in rStar-Math (Guan et al. 2025, arXiv 2501.04519).

Every simulation goes on to the end of a response; Q of a node is the mean of the rewards, +1 or -1, of the responses
through it. rStar-Math's depth of 16 is the budget's.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal

from selftrain.ranges import Count, NotNegative
from selftrain.search.asks import Ask, Judge, Moves, Propose, Value, check_ranges
from selftrain.search.choose import How
from selftrain.search.simulations import best_child, descend, leaves_of, note_done
from selftrain.search.together import together
from selftrain.search.tree import Node, Tree


@dataclass(frozen=True)
class UCT:
    """Tree search whose rewards come from complete responses alone."""

    rollouts: Count = 16
    branch: Count = 8
    exploration: NotNegative = 2.0
    """c in Q + c sqrt(ln N_parent / N); children without visits come first."""
    reward: Literal["judge", "value"] = "judge"
    """Who says whether a complete response is right; ``value``, for problems without answers: 2 value - 1."""
    guided: bool = False
    """Among children without visits, those of larger values come first, as with rStar-Math's preference model."""
    leaves: Count = 1
    """Roll-outs of one tree at a time, each from a leaf of its own."""
    choose: How = "value"

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.reward, "value"} if self.guided else {self.reward})

    @property
    def ignores(self) -> frozenset[str]:
        return frozenset({"value"}) - self.needs

    def grow(self, tree: Tree, rng: random.Random) -> Moves:
        left = self.rollouts
        while left > 0:
            if tree.root.done:
                tree.ended = tree.ended or "exhausted"
                return
            leaves = leaves_of(
                lambda: descend(tree.root, self.upper_bound, rng, live_only=True), min(self.leaves, left)
            )
            left -= len(leaves)
            yield from together([self.simulate(tree, leaf, rng) for leaf in leaves])

    def simulate(self, tree: Tree, leaf: Node, rng: random.Random) -> Moves:
        """From a leaf to the end of a response, expanding every node on the way."""
        node = leaf
        while node.open:
            children = yield from self.expand(tree, node)
            if not children:
                break
            node = best_child([c for c in children if c.state != "closed"] or children, self.upper_bound, rng)
        if not node.open:  # Where the budget ran out on the way there is nothing to tell.
            reward = yield from self._reward(node)
            backward(node, reward)
            note_done(node)

    def expand(self, tree: Tree, node: Node) -> Generator[list[Ask], list[Any], list[Node]]:
        """``branch`` next steps; a node behind which nothing of use was proposed is closed."""
        [children] = yield [Propose(node, self.branch)]
        if not children:
            tree.stuck(node)
        if self.guided:
            yield [Value(children)]
        return list(children)

    def upper_bound(self, child: Node) -> tuple[float, float]:
        """Q + c sqrt(ln N_parent / N), and the value for those that have no visits; a virtual visit counts as lost."""
        assert child.parent is not None
        visits, above = child.visits + child.virtual, child.parent.visits + child.parent.virtual
        if not visits:
            return math.inf, child.worth
        mean = (child.value_sum - child.virtual) / visits
        return mean + self.exploration * math.sqrt(math.log(max(1, above)) / visits), child.worth

    def _reward(self, node: Node) -> Generator[list[Ask], list[Any], float]:
        if node.state == "closed":
            return -1.0
        [[credit]] = yield [Judge([node])] if self.reward == "judge" else [Value([node])]
        return 0.0 if credit is None else 2.0 * credit - 1.0


def backward(node: Node, reward: float) -> None:
    """N += 1 and q += reward up the path; Q = q / N."""
    for one in node.upward():
        one.visits += 1
        one.value_sum += reward
