"""Beam search over steps, by value: one beam, diverse beams, and values that look ahead."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from selftrain.ranges import Count
from selftrain.search.asks import Ask, Moves, Propose, Value, check_ranges
from selftrain.search.choose import How, standing
from selftrain.search.together import together
from selftrain.search.tree import Node, Tree

Valuing = Generator[list[Ask], list[Any], None]


@dataclass(frozen=True)
class Beam:
    """Keeps the best ``width`` of ``width * branch`` (Snell et al. 2024, "Scaling LLM Test-Time Compute", section 5.2).

    The first step is drawn ``width * branch`` times. A complete response keeps its place in the beam as long as it is
    among the best; the search ends when all of the beam are complete. Where nothing may follow behind any of it, the
    search goes on from the best of what was left behind.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"value"})

    width: Count = 4
    branch: Count = 4
    choose: How = "value"

    def __post_init__(self) -> None:
        check_ranges(self)

    def grow(self, tree: Tree, rng: random.Random) -> Moves:
        beam = [tree.root]
        while any(node.open for node in beam):
            growing = [node for node in beam if node.open]
            n = self.branch if growing != [tree.root] else self.width * self.branch
            children = yield from _expand(tree, growing, [n] * len(growing))
            yield from self.valued(children)
            beam = _best([node for node in beam if node.state == "end"] + children, self.width)
            if not beam:
                beam = _best([node for node in tree.nodes if node.open and not node.children], self.width)

    def valued(self, nodes: Sequence[Node]) -> Valuing:
        """Give nodes what they are compared by."""
        yield [Value(nodes)]


@dataclass(frozen=True)
class Lookahead(Beam):
    """A beam whose step is worth what the value function says of a greedy roll-out from it (Snell et al. 2024, 5.2).

    The roll-out's tokens are spent; its steps are no part of the tree. What a step is worth stands in its
    ``value_sum`` over one visit; ``value`` is that of the nodes themselves, which only ends have.
    """

    steps: Count = 3
    """Steps the roll-out goes, or to its end where that is nearer."""

    def valued(self, nodes: Sequence[Node]) -> Valuing:
        reached = yield from together([_rolled(node, self.steps) for node in nodes])
        [values] = yield [Value(reached)]
        for node, value in zip(nodes, values, strict=True):
            node.visits, node.value_sum = 1, value or 0.0


@dataclass(frozen=True)
class DiverseBeam:
    """``groups`` subtrees beside each other, each grown greedily from the best of ``branch`` steps.

    Diverse verifier tree search (Beeching, Tunstall and Rush 2024, "Scaling test-time compute with open models"). Steps
    that repeat are drawn once, so that groups that stand on one node part where there are steps enough for it.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"value"})

    groups: Count = 4
    branch: Count = 4
    choose: How = "value"

    def __post_init__(self) -> None:
        check_ranges(self)

    def grow(self, tree: Tree, rng: random.Random) -> Moves:
        places = [tree.root] * self.groups
        while growing := Counter(node for node in places if node.open):
            children = yield from _expand(tree, [*growing], [count * self.branch for count in growing.values()])
            yield [Value(children)]
            places = [step for node, count in growing.items() for step in self._parted(node, count)]

    @staticmethod
    def _parted(node: Node, groups: int) -> list[Node]:
        """Where the groups on one node go: each to the best of its own share of the children."""
        children = [child for child in node.children if child.state != "closed"]
        shares = [children[group::groups] or children for group in range(groups)]
        return [max(share, key=standing) for share in shares if share]


def _expand(tree: Tree, nodes: Sequence[Node], counts: Sequence[int]) -> Generator[list[Ask], list[Any], list[Node]]:
    """New children of all nodes; a node that has none then is closed."""
    answers = yield [Propose(node, n) for node, n in zip(nodes, counts, strict=True)]
    for node, children in zip(nodes, answers, strict=True):
        if not children:
            tree.stuck(node)
    return [child for children in answers for child in children]


def _best(nodes: Sequence[Node], width: int) -> list[Node]:
    """Those of the largest standing; of equals those drawn first."""
    return sorted((node for node in nodes if node.state != "closed"), key=_rank, reverse=True)[:width]


def _rank(node: Node) -> float:
    """A step that was rolled out is worth what was found there."""
    return node.value_sum / node.visits if node.visits else standing(node)


def _rolled(node: Node, steps: int) -> Generator[list[Ask], list[Any], Node]:
    """The node greedy steps lead to."""
    for _ in range(steps):
        if not node.open:
            break
        [following] = yield [Propose(node, 1, greedy=True, keep=False)]
        if not following or following[0].state == "closed":
            break
        [node] = following
    return node
