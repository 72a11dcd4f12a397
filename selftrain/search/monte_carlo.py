"""What a step is worth as the share of its completions that are right (Wang et al. 2024, "Math-Shepherd", 3.3)."""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, ClassVar

from selftrain.ranges import Count
from selftrain.search.asks import Ask, Judge, Moves, Propose, check_ranges
from selftrain.search.choose import How
from selftrain.search.together import together
from selftrain.search.tree import Node, Tree


@dataclass(frozen=True)
class MonteCarlo:
    """``n`` whole responses, and ``completions`` from behind each of their steps.

    A node's ``mc`` is the mean credit of its completions, the last step's what its own response got. Completions are
    no part of the tree.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"judge"})
    whole: ClassVar[bool] = True
    ignores: ClassVar[frozenset[str]] = frozenset({"value"})

    n: Count = 8
    completions: Count = 8
    choose: How = "value"

    def __post_init__(self) -> None:
        check_ranges(self)

    def grow(self, tree: Tree, rng: random.Random) -> Moves:
        leaves = yield from completed(tree.root, self.n, keep=True)
        steps = [node for leaf in leaves for node in leaf.path()[:-1]]
        yield from together([completed(node, self.completions, keep=False) for node in steps])


def completed(node: Node, n: int, keep: bool) -> Generator[list[Ask], list[Any], list[Node]]:
    """Completions of a node, judged; ``mc`` of the node and of the last nodes, which are the result.

    A completion that was cut short is not right. One that could not be judged is left out of the share, which is None
    where nothing else is there.
    """
    [leaves] = yield [Propose(node, n, to_end=True, keep=keep)]
    yield [Judge([leaf for leaf in leaves if leaf.state == "end"])]
    for leaf in leaves:
        leaf.mc = leaf.right if leaf.state == "end" else 0.0
    shares = [leaf.mc for leaf in leaves if leaf.mc is not None]
    node.mc = sum(shares) / len(shares) if shares else None
    return list(leaves)
