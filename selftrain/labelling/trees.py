"""What is learnt from a finished search tree: targets of a value model, pairs of steps.

`value_targets` is ReST-MCTS* (Zhang et al. 2024, arXiv:2406.03816): with ``m`` the reasoning distance of a node, the
fewest steps from the one before it to a right end, its value is ``V = max(0, V_parent + (1 - V_parent) r / m)``, where
``r`` is 1 for a step that leads to a right end and -1 for one that does not. The distance of wrong steps is that of the
published code. `step_pairs` is rStar-Math (Guan et al. 2025, arXiv:2501.04519).

Ends are named by node id. An end that could not be judged is not among them and counts as one that was never reached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from selftrain.labelling.pairs import in_turn, spread
from selftrain.types import TreeNode

CUT = ("length", "context", "tool_limit")
"""Why nodes are closed in the middle of a step."""
Number = Literal["q", "mc", "value"]
"""What ranks steps: the mean over visits, the share of completions that are right, the value function's word."""


def value_targets(tree: Sequence[TreeNode], right: Mapping[int, bool]) -> dict[int, float]:
    """V by node id, the root left out; nodes below which no judged end was reached have none.

    Empty where no end is right: nothing is known of distances then.

    Args:
        tree: one tree, parents before children.
        right: whether each judged end is right.
    """
    distances = _distances(tree, right)
    good = set(distances)
    for end in right:
        _take_over(tree, end, distances)
    values = {0: 0.0}
    for node in tree[1:]:
        if node.node_id in distances and node.parent in values:
            before, sign = values[node.parent], 1.0 if node.node_id in good else -1.0
            values[node.node_id] = max(0.0, before + (1.0 - before) * sign / distances[node.node_id])
    return {node: value for node, value in values.items() if node}


def _distances(tree: Sequence[TreeNode], right: Mapping[int, bool]) -> dict[int, int]:
    """m of the nodes that lead to a right end: 1 there, one more than the least of the children elsewhere."""
    found = {end: 1 for end, is_right in right.items() if is_right}
    for node in reversed(tree[1:]):
        if node.node_id in found:
            further = found[node.node_id] + 1
            found[node.parent] = min(found.get(node.parent, further), further)
    return found


def _take_over(tree: Sequence[TreeNode], end: int, distances: dict[int, int]) -> None:
    """Give an end and what leads to it the distance of the nearest node above that has one."""
    route = []
    while end >= 0 and end not in distances:
        route.append(end)
        end = tree[end].parent
    if end >= 0:
        distances.update(dict.fromkeys(route, distances[end]))


def simple_targets(tree: Sequence[TreeNode], solution: int) -> dict[int, float]:
    """Targets where one solution was found, of ``L`` steps: ``depth / L`` on the way to it, and
    ``max(0, (depth of the parent - 1) / L)`` for steps that leave it.

    Args:
        solution: node id of its end.
    """
    route = set(path(tree, solution))
    steps = tree[solution].depth
    return {
        node.node_id: (node.depth if node.node_id in route else max(0, tree[node.parent].depth - 1)) / steps
        for node in tree[1:]
        if node.parent in route
    }


def path(tree: Sequence[TreeNode], node: int) -> list[int]:
    """Node ids from the root to a node, both among them."""
    found = []
    while node >= 0:
        found.append(node)
        node = tree[node].parent
    return found[::-1]


def step_pairs(
    tree: Sequence[TreeNode], number: Number = "q", *, most: int = 2, margin: float = 0.0
) -> list[tuple[int, int]]:
    """Pairs ``(chosen, rejected)`` of node ids: steps that follow the same one, the best of them against the worst.
    Steps that a limit cut short stand in no pair.

    The first pair of every place in the tree comes before the second of any, so that the first few are of many places.

    Args:
        number: what they are compared by; children that have none stand in no pair.
        most: best ones of a node, and worst ones, at most; no step is both.
        margin: the number of the chosen is larger by more than this.
    """
    children: defaultdict[int, list[tuple[float, TreeNode]]] = defaultdict(list)
    for node in tree[1:]:
        if (known := _number(node, number)) is not None and node.reason not in CUT:
            children[node.parent].append((known, node))
    return list(in_turn(_best_and_worst(own, most, margin) for own in children.values()))


def _best_and_worst(own: Sequence[tuple[float, TreeNode]], most: int, margin: float) -> Iterator[tuple[int, int]]:
    """The best with the worst first."""
    ranked = sorted(own, key=lambda one: -one[0])
    count = min(most, len(ranked) // 2)
    for (high, chosen), (low, rejected) in spread(ranked[:count], ranked[len(ranked) - count :][::-1]):
        if high - low > margin and chosen.ids != rejected.ids:
            yield chosen.node_id, rejected.node_id


def _number(node: TreeNode, number: Number) -> float | None:
    if number == "q":
        return node.value_sum / node.visits if node.visits else None
    return node.mc if number == "mc" else node.value
