"""What searches by simulation share: the way down to a leaf, and which leaves several simulations start from."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from selftrain.search.tree import Node

Score = Callable[[Node], tuple[float, ...]]


def descend(root: Node, score: Score, rng: random.Random, live_only: bool = False) -> Node:
    """From the root by the best score to a node that is not expanded; with ``live_only`` into nothing that is done."""
    node = root
    while node.children and node.reason is None:
        node = best_child([child for child in node.children if not (live_only and child.done)], score, rng)
    return node


def best_child(children: Sequence[Node], score: Score, rng: random.Random) -> Node:
    """That of the best score; ties are broken at random."""
    scores = [score(child) for child in children]
    highest = max(scores)
    return rng.choice([child for child, own in zip(children, scores, strict=True) if own == highest])


def leaves_of(select: Callable[[], Node], most: int) -> list[Node]:
    """Up to ``most`` different leaves, each selected under a virtual visit to those before it.

    A virtual visit counts as one that brought nothing, so that the next selection turns elsewhere; all are taken back.
    Ends where the best leaf has been chosen already.
    """
    chosen: list[Node] = []
    while len(chosen) < most and (leaf := select()) not in chosen:
        chosen.append(leaf)
        _visit(leaf, 1)
    for leaf in chosen:
        _visit(leaf, -1)
    return chosen


def note_done(leaf: Node) -> None:
    """Tell a leaf and what stands above it whether anything open is left there."""
    for node in leaf.upward():
        node.done = all(child.done for child in node.children) if node.children else not node.open


def _visit(leaf: Node, visits: int) -> None:
    for node in leaf.upward():
        node.virtual += visits
