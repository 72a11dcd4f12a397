"""MCTS* of ReST-MCTS* (Zhang et al. 2024, arXiv 2406.03816, section 3.3; its code: THUDM/ReST-MCTS).

V of a node is what the value function said until the node is expanded, then the mean of its children's by visits; it
stands in ``value_sum = visits * V``. Simplified: no written analysis stands in the prompt of the next step.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from selftrain.ranges import Count, NotNegative, Share, Size
from selftrain.search.asks import Ask, Moves, Propose, Solved, Step, Value, check_ranges
from selftrain.search.choose import How
from selftrain.search.presets import PRESETS, Preset, Settings
from selftrain.search.simulations import best_child, descend, leaves_of, note_done
from selftrain.search.together import together
from selftrain.search.tree import Node, Tree

TRIES = 3
"""How often a proposal that is too short or stands in the path already is asked for."""
New = Generator[list[Ask], list[Any], list[Node]]


@dataclass(frozen=True)
class MCTSStar:
    """Tree search by values, with a greedy roll-out from the best new child.

    What is None is as the preset has it.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"value"})

    preset: Preset = "self_train"
    """Which of the reference code's sets of defaults."""
    mode: Literal["simple", "full"] = "full"
    """simple: the first leaf over the gate ends the search. full: it is not expanded, and the search goes on. Either
    way its response is written to its end greedily; with simple so is the best node's where none came over the gate."""
    iterations: Count | None = None
    exploration: NotNegative | None = None
    """c in V + c sqrt(2 ln N_parent / n)."""
    unvisited: NotNegative | None = None
    """What stands in for c sqrt(...) at a child without visits. Finite: such a child need not come first."""
    end_gate: Share | None = None
    """V from which on a leaf counts as solved."""
    branch: Count | None = None
    """Steps proposed to expand a node."""
    roll_forward_steps: Size | None = None
    roll_branch: Count | None = None
    """Steps proposed at each step of a roll-out, of which the one of the largest value is taken."""
    alpha: Share | None = None
    """Weight of the largest value a roll-out met, against the child's own."""
    leaves: Count = 1
    """Simulations of one tree at a time. More keep fewer problems' calls full; with 1 it is the published algorithm."""
    end_texts: tuple[str, ...] = ("answer is", "\\boxed")
    """A response that holds one of them is complete (the self-critic's short cut)."""
    shortest: Size = 2
    """Characters a step must have, unless it ends the response."""
    choose: How = "value"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"unknown preset '{self.preset}' (known: {', '.join(PRESETS)})")
        check_ranges(self)
        if self.settings.iterations is None:
            raise ValueError(f"preset {self.preset} leaves the number of iterations open: set iterations")

    @property
    def settings(self) -> Settings:
        """The preset with what this strategy sets itself."""
        preset = vars(PRESETS[self.preset])
        own = {name: getattr(self, name) for name in preset}
        return Settings(**{name: preset[name] if value is None else value for name, value in own.items()})

    def grow(self, tree: Tree, rng: random.Random) -> Moves:
        settings = self.settings
        left = settings.iterations or 0
        while left > 0 and tree.found is None:
            if tree.root.done:
                tree.ended = tree.ended or "exhausted"
                break
            leaves = self.select(tree, rng, settings, min(self.leaves, left))
            left -= len(leaves)
            if tree.found is None:
                yield from together([self.iterate(tree, leaf, rng, settings) for leaf in leaves])
        if self.mode == "simple":
            best = tree.found or max(tree.nodes, key=V)
            tree.found = (yield from _complete(best)) if best.open else best

    def select(self, tree: Tree, rng: random.Random, settings: Settings, most: int) -> list[Node]:
        """The leaves to go on from; those over the gate are marked."""

        def score(child: Node) -> tuple[float]:
            return (upper_bound(child, settings.exploration, settings.unvisited),)

        leaves = leaves_of(lambda: descend(tree.root, score, rng), most)
        for leaf in leaves:
            if leaf.parent is None or V(leaf) < settings.end_gate:
                continue
            if self.mode == "simple":
                tree.found, tree.ended = leaf, tree.ended or "gate"
                break
            if leaf.open:
                leaf.reason = "gate"
        return leaves

    def iterate(self, tree: Tree, leaf: Node, rng: random.Random, settings: Settings) -> Moves:
        """Expand, simulate and propagate back from one leaf."""
        if leaf.open and not leaf.children and leaf.reason == "gate":
            yield from _complete(leaf)
            if not leaf.children:
                tree.stuck(leaf)
        elif leaf.open and leaf.reason is None and (children := (yield from self.expand(tree, leaf, settings.branch))):
            yield from self.simulate(best_child(children, lambda child: (V(child),), rng), settings)
        backward(leaf)
        note_done(leaf)

    def expand(self, tree: Tree, leaf: Node, branch: int) -> New:
        """``branch`` next steps with their values; a node behind which nothing of use was proposed is closed."""
        children = yield from self._valued(leaf, branch, keep=True)
        if not children:
            tree.stuck(leaf)
        for child in children:
            child.done = not child.open
        return children

    def simulate(self, child: Node, settings: Settings) -> Moves:
        """Greedy roll-out: V <- (1 - alpha) V + alpha times the largest value on the way."""
        node, values = child, []
        for _ in range(settings.roll_forward_steps):
            following = yield from self._valued(node, settings.roll_branch, keep=False)
            if not following:
                break
            node = max(following, key=lambda one: one.worth)
            values.append(node.worth)
        value = (1 - settings.alpha) * V(child) + settings.alpha * max(values) if values else V(child)
        child.visits += 1
        child.value_sum = child.visits * value

    def _valued(self, node: Node, n: int, keep: bool) -> New:
        [new] = yield [Propose(node, n, keep=keep, refuse=self._refuse, tries=TRIES)]
        if new:
            yield [Value(new)]
            yield from self._criticise(new)
        return list(new)

    def _criticise(self, nodes: Sequence[Node]) -> Moves:
        """The self-critic: which responses are complete although the policy did not end them."""
        unclear = []
        for node in nodes:
            if node.open and any(text in node.response for text in self.end_texts):
                node.state, node.reason = "end", "solved"
            elif node.open:
                unclear.append(node)
        [solved] = yield [Solved(unclear)]
        for node, done in zip(unclear, solved, strict=True):
            if done:
                node.state, node.reason = "end", "solved"

    def _refuse(self, node: Node, step: Step) -> str | None:
        text = step.text.strip()
        if step.ended:
            return None
        if len(text) < self.shortest:
            return "short"
        return "in path" if text in node.response else None


def V(node: Node) -> float:
    """The paper's V: 0 where no response can come of a node."""
    if node.state == "closed":
        return 0.0
    return node.value_sum / node.visits if node.visits else node.worth


def upper_bound(child: Node, exploration: float, unvisited: float) -> float:
    """V + c sqrt(2 ln N_parent / n); a virtual visit counts as one of value 0."""
    assert child.parent is not None
    visits, above = child.visits + child.virtual, child.parent.visits + child.parent.virtual
    if not visits:
        return V(child) + unvisited
    return V(child) * child.visits / visits + exploration * math.sqrt(2 * math.log(max(1, above)) / visits)


def backward(node: Node) -> None:
    """N += 1 up the path; V = sum(n_c V_c) / sum(n_c) over the children."""
    for one in node.upward():
        value, visits = V(one), sum(child.visits for child in one.children)
        if visits:
            value = sum(child.visits * V(child) for child in one.children) / visits
        one.visits += 1
        one.value_sum = one.visits * value


def _complete(node: Node) -> Generator[list[Ask], list[Any], Node | None]:
    """The end of a response whose rest is written greedily; None where it does not come to one."""
    [leaves] = yield [Propose(node, 1, to_end=True, greedy=True)]
    yield [Value(leaves)]
    for leaf in leaves:
        for step in leaf.path()[node.depth :]:
            step.done = True
    return next((leaf for leaf in leaves if leaf.state == "end"), None)
