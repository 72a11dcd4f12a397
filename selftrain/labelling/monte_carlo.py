"""Labels of steps from completions: of each prefix of a solution, how many of the responses that go on from it are
right.

Sources: hard and soft labels are Math-Shepherd (Wang et al. 2024, arXiv:2312.08935); relative progress is GenPRM (Zhao
et al. 2025, arXiv:2504.00891); leaving out what follows the first wrong step, the threshold, and the consensus with a
judge are Zhang et al. 2025, arXiv:2501.07301.

A share or label of None: nothing is known of the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from selftrain.labelling.trees import path
from selftrain.types import TreeNode

Labels = list[float | None]
Shares = Sequence[float | None]
"""Right completions of each step's prefix, as shares."""

PROGRESS = 0.8
"""GenPRM's threshold, the best of those it tried."""


def shares(right: Sequence[int], drawn: Sequence[int]) -> Labels:
    """Share of right completions after each step; None where none was drawn.

    Raises:
        ValueError: lengths differ, or more are right than were drawn.
    """
    if wrong := [(r, n) for r, n in zip(right, drawn, strict=True) if not 0 <= r <= n]:
        raise ValueError(f"{wrong[0][0]} right of {wrong[0][1]} completions is no count")
    return [r / n if n else None for r, n in zip(right, drawn, strict=True)]


def hard(found: Shares, wrong_up_to: float = 0.0) -> Labels:
    """1 for steps from which a completion came out right, else 0.

    Args:
        wrong_up_to: largest share that still means wrong; 0: not a single completion is right.
    """
    return [None if share is None else float(share > wrong_up_to) for share in found]


def soft(found: Shares) -> Labels:
    """The shares themselves."""
    return list(found)


def relative_progress(found: Shares, start: float | None) -> Labels:
    """``P_t = MC_t / MC_{t-1}``, of the first step over the share of right responses to the problem.

    0 from the first share of 0 on. None where one of the two shares is not known, and for all steps of a problem that
    no response solves: a ratio to 0 says nothing of a step.

    Args:
        start: share of the responses to the problem alone that are right.
    """
    if start == 0:
        return [None] * len(found)
    ratios: Labels = []
    before, lost = start, False
    for share in found:
        lost = lost or share == 0
        known = share is not None and before is not None
        ratios.append(0.0 if lost else share / before if known else None)  # type: ignore[operator]
        before = share
    return ratios


def progress(found: Shares, start: float | None, at_least: float = PROGRESS) -> Labels:
    """1 for steps whose relative progress is at least this, else 0."""
    return [None if ratio is None else float(ratio >= at_least) for ratio in relative_progress(found, start)]


def until_first_wrong(labels: Shares) -> Labels:
    """Labels up to the first of 0, that one included; what follows it is not known."""
    first = first_wrong(labels)
    return [label if first < 0 or step <= first else None for step, label in enumerate(labels)]


def first_wrong(labels: Shares) -> int:
    """Index of the first step with a label of 0; -1: there is none."""
    return next((step for step, label in enumerate(labels) if label == 0), -1)


def consensus(own: Shares, judge: Shares) -> Labels | None:
    """The labels up to the first wrong step where both find the same one, or both none; None: they do not agree.

    A step before it that one of them does not know could be the first wrong one: no agreement either.

    Args:
        own: of completions, 0 or 1.
        judge: of a model that was asked about each step, 0 or 1.

    Raises:
        ValueError: they are about different numbers of steps.
    """
    if len(own) != len(judge):
        raise ValueError(f"labels of {len(own)} and of {len(judge)} steps are not of the same solution")
    first = first_wrong(own)
    before = slice(0, first if first >= 0 else None)
    if first != first_wrong(judge) or None in (*own[before], *judge[before]):
        return None
    return until_first_wrong(own)


def agreed(
    tree: Sequence[TreeNode], own: Mapping[int, float], judge: Mapping[str, tuple[Sequence[int], Sequence[float]]]
) -> dict[int, float]:
    """Labels by node id that `consensus` keeps of the complete responses of a tree.

    Args:
        own: of completions, 0 or 1, by node id.
        judge: by sample id, where the judge's steps end in the response and their labels, 0 or 1. A response that it
            gave none, or cut into other steps, is no agreement.
    """
    found: dict[int, float] = {}
    for leaf in tree:
        if leaf.state != "end" or (told := judge.get(leaf.sample_id or "")) is None:
            continue
        route = [tree[place] for place in path(tree, leaf.node_id) if tree[place].ids]
        ends, labels = told
        # The last end may be one further: the judge reads an end token behind responses that lack it.
        if list(ends[:-1]) != [*accumulate(len(node.ids) for node in route)][:-1] or len(labels) != len(route):
            continue
        both = consensus([own.get(node.node_id) for node in route], labels) or []
        found |= {node.node_id: label for node, label in zip(route, both, strict=False) if label is not None}
    return found


def of_nodes(tree: Sequence[TreeNode], *, is_hard: bool = False) -> dict[int, float]:
    """Labels by node id of the states of a tree from which completions were drawn, the root left out: the share of
    right ones, or whether there was one."""
    known = {node.node_id: node.mc for node in tree[1:] if node.mc is not None}
    return {node: float(share > 0) if is_hard else share for node, share in known.items()}
