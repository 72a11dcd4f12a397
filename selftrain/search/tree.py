"""The tree of one problem while a search goes on, and the same tree as records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from selftrain.types import TreeNode

NodeState = Literal["open", "end", "closed"]


@dataclass(slots=True, eq=False)
class Node:
    """A state of the search: the steps from the root to here."""

    id: int
    """Place in its tree; -1 for one that a roll-out passes through and the tree does not keep."""
    parent: Node | None = field(default=None, repr=False)
    depth: int = 0
    ids: tuple[int, ...] = ()
    """What this node adds to its parent's response."""
    text: str = ""
    prior: float | None = None
    """log p of ``ids`` under the distribution they were drawn from."""
    length: int = 0
    """Tokens from the root to here."""
    state: NodeState = "open"
    """end: the response is complete; closed: nothing may follow, for ``reason``."""
    reason: str | None = None
    value: float | None = None
    """What the value function said, in [0, 1]; None where it was not asked or gave no number."""
    visits: int = 0
    value_sum: float = 0.0
    """Over its visits."""
    virtual: int = 0
    """Visits of simulations still under way; taken back when they end."""
    right: float | None = None
    """What the judge said of an end: 1.0, 0.0 or credit between them; None: not asked or could not judge."""
    mc: float | None = None
    """Share of the completions from here that are right, where some were drawn."""
    read: bool = False
    """The value function has read the path to here, or is about to."""
    done: bool = False
    """Nothing open is left at or under this node, as far as its strategy has looked."""
    children: list[Node] = field(default_factory=list, repr=False)

    @property
    def open(self) -> bool:
        return self.state == "open"

    @property
    def worth(self) -> float:
        """The value to compare by: 0 where there is none, and where no response can come of it."""
        return 0.0 if self.value is None or self.state == "closed" else self.value

    def path(self) -> list[Node]:
        """From the first step to this node; the root, which has no tokens, is left out."""
        steps, node = [], self
        while node.parent is not None:
            steps.append(node)
            node = node.parent
        return steps[::-1]

    def upward(self) -> Iterator[Node]:
        """This node, its parent, ... the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    @property
    def response(self) -> str:
        """The text from the root to here."""
        return "".join(step.text for step in self.path())

    def close(self, reason: str) -> None:
        """Nothing may follow here any more."""
        self.state, self.reason, self.done = "closed", reason, True


@dataclass(slots=True)
class Spent:
    """What one tree has cost."""

    policy_tokens: int = 0
    """Drawn, those of dropped proposals and of roll-outs too."""
    value_tokens: int = 0
    """Of responses, read by the value function: every token of the tree once, however many nodes lie beyond it."""
    proposals: int = 0
    """Steps or responses asked of the policy."""
    values: int = 0
    """Nodes valued."""
    judged: int = 0

    @property
    def tokens(self) -> int:
        return self.policy_tokens + self.value_tokens


@dataclass(slots=True)
class Tree:
    """All nodes of one problem's search, parents before children."""

    problem: str
    nodes: list[Node] = field(default_factory=lambda: [Node(0)])
    spent: Spent = field(default_factory=Spent)
    dropped: Counter[str] = field(default_factory=Counter)
    """Proposals that became no node, by reason."""
    warnings: list[str] = field(default_factory=list)
    ended: str | None = None
    """Why the search ended: the strategy had ``done`` all it does, ``exhausted`` the tree or come over its ``gate``; a
    response was good ``enough``; no ``tokens`` or ``proposals`` were left. None while it goes on."""
    starved: bool = False
    """Some ask got no answer, because the budget was too small for it."""
    found: Node | None = None
    """The response the strategy settled on, where it is the strategy that decides."""

    @property
    def root(self) -> Node:
        return self.nodes[0]

    def ends(self) -> list[Node]:
        """Complete responses, in the order they were drawn."""
        return [node for node in self.nodes if node.state == "end"]

    def stuck(self, node: Node) -> None:
        """Nothing of use was proposed behind a node; where the budget was too small to ask, the node stays open."""
        if node.open and not self.starved:
            node.close("stuck")


def records_of(tree: Tree, tree_id: str, problem_id: str) -> list[TreeNode]:
    """The tree as rows; whose response an end is (``sample_id``) is filled in by who makes samples of them."""
    return [
        TreeNode(
            tree_id=tree_id,
            problem_id=problem_id,
            node_id=node.id,
            parent=-1 if node.parent is None else node.parent.id,
            depth=node.depth,
            ids=node.ids,
            text=node.text,
            prior=node.prior,
            value=node.value,
            visits=node.visits,
            value_sum=node.value_sum,
            state=node.state,
            reason=node.reason,
            mc=node.mc,
        )
        for node in tree.nodes
    ]


def tree_of(records: Sequence[TreeNode]) -> Tree:
    """The tree that rows hold, in any order; what it cost and what was judged is not among them.

    Raises:
        ValueError: rows of several trees, or a node without its parent.
    """
    rows = sorted(records, key=lambda row: row.node_id)
    if len({row.tree_id for row in rows}) != 1 or [row.node_id for row in rows] != [*range(len(rows))]:
        raise ValueError(f"{len(rows)} rows are not the nodes 0, 1, 2 ... of one tree")
    tree = Tree(rows[0].problem_id, nodes=[])
    for row in rows:
        if not -1 <= row.parent < row.node_id or (row.parent < 0) != (row.node_id == 0):
            raise ValueError(f"node {row.node_id} of tree {row.tree_id} has the parent {row.parent}")
        parent = tree.nodes[row.parent] if row.node_id else None
        tree.nodes.append(_node(row, parent))
        if parent is not None:
            parent.children.append(tree.nodes[-1])
    return tree


def _node(row: TreeNode, parent: Node | None) -> Node:
    return Node(
        id=row.node_id,
        parent=parent,
        depth=row.depth,
        ids=row.ids,
        text=row.text,
        prior=row.prior,
        length=len(row.ids) + (parent.length if parent else 0),
        state=row.state,
        reason=row.reason,
        value=row.value,
        visits=row.visits,
        value_sum=row.value_sum,
        mc=row.mc,
    )
