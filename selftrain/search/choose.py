"""Which of a tree's responses is the answer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Literal

from selftrain.search.tree import Node, Tree

How = Literal["value", "vote", "weighted_vote"]


def way(strategy: object) -> How:
    """How a strategy chooses, where nobody says otherwise."""
    how: How = getattr(strategy, "choose", "value")
    return how


def choose(tree: Tree, how: How = "value", answers: Mapping[int, str | None] | None = None) -> Node | None:
    """The end to give as the answer; None where the tree has none (with a vote: none that has an answer).

    ``value``: the one the strategy settled on, else the largest value (best-of-n). ``vote``: the answer of most ends
    (self-consistency, Wang et al. 2022). ``weighted_vote``: the answer with the largest sum of values (Li et al. 2023,
    "Making Language Models Better Reasoners with Step-Aware Verifier"). Votes are cast by all ends and give the end of
    the largest value among those with that answer. Ties go to what was drawn first.

    Args:
        answers: final answer of each end, by node id; needed for votes.
    """
    ends = tree.ends()
    if how == "value":
        settled = tree.found is not None and tree.found.state == "end"
        return tree.found if settled else max(ends, key=standing, default=None)
    if answers is None:
        raise ValueError(f"{how} needs the answers of the ends")
    camps: defaultdict[str, list[Node]] = defaultdict(list)
    for end in ends:
        if (answer := answers.get(end.id)) is not None:
            camps[answer].append(end)
    votes = {
        answer: math.fsum(end.worth if how == "weighted_vote" else 1.0 for end in camp)
        for answer, camp in camps.items()
    }
    return max(camps[max(votes, key=votes.__getitem__)], key=standing) if votes else None


def standing(node: Node) -> float:
    """What an end is compared by: its value; where it has none the mean over its visits."""
    if node.value is None and node.visits:
        return node.value_sum / node.visits
    return node.worth
