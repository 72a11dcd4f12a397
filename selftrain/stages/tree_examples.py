"""What learners are fitted to of search trees: what steps are worth, and better steps beside worse ones.

Right responses of a tree are samples like any others (`selftrain.stages.examples`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from selftrain.labelling.monte_carlo import of_nodes, progress
from selftrain.labelling.trees import path, simple_targets, step_pairs, value_targets
from selftrain.schema import Selection
from selftrain.selection import Candidate
from selftrain.session import Session
from selftrain.stages.trees import Searched, searched
from selftrain.types import Example, TreeNode

NAN = float("nan")
KEPT = "kept"


def tree_examples(
    session: Session, iterations: Sequence[int], name: str, selection: Selection, reasons: Counter[str]
) -> Iterator[Example]:
    """The examples of one selection.

    Args:
        iterations: whose trees are read, in this order.
        reasons: counts examples that are kept, and trees that give none.
    """
    for iteration in iterations:
        for tree in searched(session.run, iteration, selection.source):
            found = list(_pairs(tree, selection) if selection.kind == "step_pairs" else _values(tree, selection))
            reasons.update({KEPT: len(found)} if found else {_nothing(tree, selection): 1})
            problem = session.problems.by_id[tree.nodes[0].problem_id]
            prompt = session.prompters["train_prompt"][problem.task].ids(problem)
            for one in found:
                id = f"{name}/{iteration}/{one.id}"
                pair = None if one.pair_id is None else f"{iteration}/{one.pair_id}"
                ids = (*prompt, *one.prompt_ids)
                yield replace(one, id=id, pair_id=pair, source=name, prompt_ids=ids, weight=selection.weight)


def worthy(
    session: Session,
    iterations: Sequence[int],
    selection: Selection,
    found: Iterator[Candidate],
    reasons: Counter[str],
) -> Iterator[Candidate]:
    """Samples of which the value function says more than ``value_above``; one it was not asked about is left out."""
    trees = (tree for iteration in iterations for tree in searched(session.run, iteration, selection.source))
    values = {node.sample_id: node.value for tree in trees for node in tree.nodes if node.sample_id is not None}
    for one in found:
        value = values.get(one.sample.id)
        if value is not None and selection.value_above is not None and value > selection.value_above:
            yield one
        else:
            reasons["value too low" if value is not None else "without a value"] += 1


def _nothing(tree: Searched, selection: Selection) -> str:
    """Why a tree gives no example."""
    if selection.kind == "step_pairs":
        return "tree without a better and a worse step"
    if selection.values in ("mcts_star", "simple"):
        return "tree without a right end"
    return "tree without completions"


def targets(tree: Searched, how: str) -> dict[int, float]:
    """What the steps of a tree are worth, by node id; those nothing is known of are left out.

    Args:
        how: as ``values`` of a selection. simple: the shortest right response is the solution, of equals the first.
    """
    nodes, right = tree
    if how == "mcts_star":
        return value_targets(nodes, right)
    if how == "simple":
        ends = [node for node, is_right in right.items() if is_right]
        return simple_targets(nodes, min(ends, key=lambda node: (nodes[node].depth, node))) if ends else {}
    if how == "progress":
        return _progress(nodes)
    return of_nodes(nodes, is_hard=how == "monte_carlo_hard")


def _progress(nodes: Sequence[TreeNode]) -> dict[int, float]:
    """Of every path; a step has the same number in each."""
    found: dict[int, float] = {}
    for leaf in leaves(nodes):
        route = path(nodes, leaf.node_id)[1:]
        told = progress([nodes[node].mc for node in route], nodes[0].mc)
        found |= {node: number for node, number in zip(route, told, strict=True) if number is not None}
    return found


def leaves(nodes: Sequence[TreeNode]) -> Iterator[TreeNode]:
    """Nodes that nothing follows, in order, the root left out."""
    above = {node.parent for node in nodes}
    return (node for node in nodes[1:] if node.node_id not in above)


def _values(tree: Searched, selection: Selection) -> Iterator[Example]:
    return value_examples(tree.nodes, targets(tree, selection.values))


def value_examples(nodes: Sequence[TreeNode], worth: Mapping[int, float]) -> Iterator[Example]:
    """An example for every path that brings a target: each stands in one example, at the last token of its step.

    Prompts are those of the problem, which is left out here. What follows the last target of a path is left out too.
    """
    told: set[int] = set()
    for leaf in leaves(nodes):
        route = [nodes[node] for node in path(nodes, leaf.node_id)[1:]]
        new = {one.node_id for one in route if one.node_id in worth and one.ids} - told
        if not new:
            continue
        told |= new
        ids: list[int] = []
        at: dict[int, float] = {}
        for one in route:
            ids += one.ids
            if one.node_id in new:
                at[len(ids) - 1] = worth[one.node_id]
        size = max(at) + 1
        numbers = tuple(at.get(place, NAN) for place in range(size))
        name = f"{leaf.tree_id}/{leaf.node_id:05d}"
        yield Example(name, leaf.problem_id, "", (), tuple(ids[:size]), sample_id=leaf.sample_id, targets=numbers)


def _pairs(tree: Searched, selection: Selection) -> Iterator[Example]:
    """Steps behind the same path, which belongs to the prompt."""
    nodes = tree.nodes
    ranked = step_pairs(nodes, selection.rank, margin=selection.margin)
    for chosen, rejected in islice(ranked, selection.max_per_problem):
        before = tuple(token for node in path(nodes, nodes[chosen].parent) for token in nodes[node].ids)
        pair = f"{nodes[0].tree_id}/{chosen:05d}>{rejected:05d}"
        for place, role in ((chosen, "chosen"), (rejected, "rejected")):
            node = nodes[place]
            made = Example(f"{pair}/{role}", node.problem_id, "", before, node.ids, pair_id=pair)
            yield replace(made, role=role)  # type: ignore[arg-type]
