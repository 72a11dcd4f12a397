"""How proposals become nodes: what is dropped, and what closes a node."""

from __future__ import annotations

from collections.abc import Sequence

from selftrain.search.asks import Budget, Proposal, Propose, Step
from selftrain.search.tree import Node, Tree


def grown(tree: Tree, ask: Propose, proposals: Sequence[Proposal], budget: Budget) -> tuple[list[Node], int]:
    """The new nodes that answer an ask, and how many proposals are worth another try."""
    if ask.to_end:
        leaves = [node for proposal in proposals if (node := _chain(tree, ask, proposal)) is not None]
        return leaves, len(proposals) - len(leaves)
    siblings = list(ask.node.children) if ask.keep else []
    new, failed = [], 0
    for (step,) in proposals:
        if (reason := _dropped(ask, step, siblings)) is not None:
            tree.dropped[reason] += 1
            failed += reason != "repeated"
            continue
        child = _append(tree, ask.node, step, ask.keep)
        if child.open and child.depth >= budget.depth:
            child.close("depth")
        if child.open and child.length >= budget.response_tokens:
            child.close("length")
        siblings.append(child)
        new.append(child)
    if not siblings and not ask.node.children:
        _close_where_nothing_fits(ask.node, [step for (step,) in proposals])
    return new, failed


def _chain(tree: Tree, ask: Propose, proposal: Proposal) -> Node | None:
    """A whole response as a chain of nodes; the last of them."""
    ended_here = bool(proposal) and proposal[-1].ended and bool(ask.node.response.strip())
    if not ended_here and not any(step.text.strip() for step in proposal):
        tree.dropped[proposal[0].reason if proposal and proposal[0].reason else "empty"] += 1
        if proposal and not ask.node.children:
            _close_where_nothing_fits(ask.node, proposal[:1])
        return None
    node = ask.node
    for step in proposal:
        node = _append(tree, node, step, ask.keep)
    if node.open:
        node.close("length")
    return node


def _append(tree: Tree, parent: Node, step: Step, keep: bool) -> Node:
    node = Node(
        id=len(tree.nodes) if keep else -1,
        parent=parent,
        depth=parent.depth + 1,
        ids=step.ids,
        text=step.text,
        prior=step.prior,
        length=parent.length + len(step.ids),
    )
    if step.ended:
        node.state = "end"
    elif step.reason is not None:
        node.close(step.reason)
    if keep:
        tree.nodes.append(node)
        parent.children.append(node)
    return node


def _dropped(ask: Propose, step: Step, siblings: Sequence[Node]) -> str | None:
    if not step.ids and not step.ended:
        return step.reason or "empty"
    if not step.text.strip() and not (step.ended and ask.node.response.strip()):
        return "empty"
    if any(step.text == other.text and step.ended == (other.state == "end") for other in siblings):
        return "repeated"
    return ask.refuse(ask.node, step) if ask.refuse else None


def _close_where_nothing_fits(node: Node, steps: Sequence[Step]) -> None:
    """A context overflow comes as a step without ids that has a reason."""
    if reason := next((step.reason for step in steps if step.reason is not None and not step.ids), None):
        node.close(reason)
