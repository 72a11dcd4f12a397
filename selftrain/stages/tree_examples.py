"""What learners are fitted to of search trees: what steps are worth, and better steps beside worse ones.

Right responses of a tree are samples like any others (`selftrain.stages.examples`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from selftrain.labelling.monte_carlo import agreed, of_nodes, progress
from selftrain.labelling.trees import path, simple_targets, step_pairs, value_targets
from selftrain.planning.values import valued
from selftrain.schema import Selection
from selftrain.selection import Candidate
from selftrain.session import Session
from selftrain.stages.trees import Searched, searched
from selftrain.stages.values import Steps, steps_of
from selftrain.types import Example, TreeNode

NAN = float("nan")
KEPT = "kept"


@dataclass(frozen=True)
class EndToken:
    """What ends a response. One that a stop string or id ended, or the policy's own word that it is solved, has none
    and gets it here: reward sources read such responses so."""

    id: int
    special: frozenset[int]
    """Ids that end a response, as it was sampled."""

    def lacking(self, route: Sequence[TreeNode]) -> tuple[int, ...]:
        """What a path lacks of it, from its first step on."""
        last = next((node.ids[-1] for node in reversed(route) if node.ids), None)
        return (self.id,) if route[-1].state == "end" and last not in self.special else ()


def tree_examples(
    session: Session, iterations: Sequence[int], learner: str, name: str, reasons: Counter[str]
) -> Iterator[Example]:
    """The examples of one selection.

    Args:
        iterations: whose trees are read, in this order.
        name: of the selection.
        reasons: counts examples that are kept, and trees that give none.
    """
    selection = session.config.learners[learner].examples[name]
    is_valued = learner in valued(session.config)
    # What a path is worth is asked behind the prompt it was grown under.
    prompters = session.prompters["prompt" if is_valued else "train_prompt"]
    end = EndToken(session.tokenizer.eos_token_id, frozenset(session.tokenizer.all_special_ids))
    pairs: Counter[str] = Counter()
    for iteration in iterations:
        judge = _judged(session, iteration, selection)
        for tree in searched(session.run, iteration, selection.source):
            if selection.kind == "step_pairs":
                found = _pairs(tree, selection, end, is_valued, pairs)
            else:
                worth = targets(tree, selection.values)
                worth = worth if judge is None else agreed(tree.nodes, worth, judge)
                found = list(value_examples(tree.nodes, worth, end))
            reasons.update({KEPT: len(found)} if found else {_nothing(tree, selection, pairs): 1})
            problem = session.problems.by_id[tree.nodes[0].problem_id]
            prompt = prompters[problem.task].ids(problem)
            for one in found:
                id = f"{name}/{iteration}/{one.id}"
                pair = None if one.pair_id is None else f"{iteration}/{one.pair_id}"
                ids = (*prompt, *one.prompt_ids)
                yield replace(one, id=id, pair_id=pair, source=name, prompt_ids=ids, weight=selection.weight)


def _judged(session: Session, iteration: int, selection: Selection) -> Steps | None:
    """By sample, where a reward source says that its steps end and which are right; None where none is asked."""
    labels = selection.labels
    if labels is None or labels.threshold is None:
        return None
    found, bound = steps_of(session, iteration, selection.source, labels.source), labels.threshold
    return {id: (ends, tuple(float(one >= bound) for one in rewards)) for id, (ends, rewards) in found.items()}


def _pairs(tree: Searched, selection: Selection, end: EndToken, is_valued: bool, taken: Counter[str]) -> list[Example]:
    """Both sides of each pair of a tree.

    Args:
        taken: pairs of each problem so far; these are added.
    """
    problem, most = tree.nodes[0].problem_id, selection.max_per_problem
    left = None if most is None else most - taken[problem]
    ranked = list(islice(step_pairs(tree.nodes, selection.rank, margin=selection.margin), left))
    taken[problem] += len(ranked)
    return [side for pair in ranked for side in pair_examples(tree.nodes, pair, end, is_valued)]


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


def _nothing(tree: Searched, selection: Selection, taken: Counter[str]) -> str:
    """Why a tree gives no example."""
    if selection.kind == "step_pairs":
        if taken[tree.nodes[0].problem_id] == selection.max_per_problem:
            return "over the cap"
        return "tree without a better and a worse step"
    if selection.values in ("mcts_star", "simple"):
        return "tree without a right end"
    return "tree without completions" if selection.labels is None else "tree without a response labelled alike"


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


def value_examples(nodes: Sequence[TreeNode], worth: Mapping[int, float], end: EndToken) -> Iterator[Example]:
    """An example for every path that brings a target: each stands in one example, at the last token of its step.

    Prompts are those of the problem, which is left out here. What follows the last target of a path is left out too.
    Where a response lacks its end token, its target stands there and at the last token it has: a search asks for its
    value there, before anything is appended.
    """
    told: set[int] = set()
    for leaf in leaves(nodes):
        route = [nodes[node] for node in path(nodes, leaf.node_id)[1:]]
        lacking = end.lacking(route) if leaf.node_id in worth else ()
        new = {one.node_id for one in route if one.node_id in worth and (one.ids or lacking)} - told
        if not new:
            continue
        told |= new
        ids: list[int] = []
        at: dict[int, float] = {}
        for one in route:
            ids += one.ids
            if one.node_id in new and one.ids:
                at[len(ids) - 1] = worth[one.node_id]
        if lacking:
            ids += lacking
            at[len(ids) - 1] = worth[leaf.node_id]
        size = max(at) + 1
        yield Example(
            id=f"{leaf.tree_id}/{leaf.node_id:05d}",
            problem_id=leaf.problem_id,
            source="",
            prompt_ids=(),
            response_ids=tuple(ids[:size]),
            sample_id=leaf.sample_id,
            eos_added=bool(lacking),
            targets=tuple(at.get(place, NAN) for place in range(size)),
        )


def pair_examples(
    nodes: Sequence[TreeNode], pair: tuple[int, int], end: EndToken, is_valued: bool
) -> tuple[Example, Example]:
    """Two steps behind the same path, which belongs to the prompt.

    Args:
        pair: node ids of the better and of the worse one.
        is_valued: a value head is fitted; its values are read where the steps end, at the targets 1 and 0.
    """
    chosen, rejected = pair
    name = f"{nodes[0].tree_id}/{chosen:05d}>{rejected:05d}"

    def side(role: Literal["chosen", "rejected"], place: int, target: float) -> Example:
        *before, node = (nodes[one] for one in path(nodes, place)[1:])
        lacking = end.lacking([*before, node])
        ids = (*node.ids, *lacking)
        return Example(
            id=f"{name}/{role}",
            problem_id=node.problem_id,
            source="",
            prompt_ids=tuple(token for one in before for token in one.ids),
            response_ids=ids,
            eos_added=bool(lacking),
            targets=(*[NAN] * (len(ids) - 1), target) if is_valued else None,
            pair_id=name,
            role=role,
        )

    return side("chosen", chosen, 1.0), side("rejected", rejected, 0.0)
