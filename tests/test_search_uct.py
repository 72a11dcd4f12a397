"""UCT with terminal rewards, against an example worked out by hand."""

from __future__ import annotations

import math

import pytest
from searching import BUDGET, Script, World, node, search, target

from selftrain.search.asks import State
from selftrain.search.uct import UCT


def test_uct_by_hand() -> None:
    """c = 2; among children without visits those of the larger value come first.

    1. a (0.9), then a1: right, +1. 2. b has no visits: b1, wrong, -1. 3. a: 1 + 2 sqrt(ln 2 / 1) = 2.665, b: 0.665; a1
    is done, so a2: wrong, -1; nothing is left under a. 4. b2: right, +1; nothing is left at all.
    """
    steps = {"": ["a ", "b "], "a ": ["a1!", "a2!"], "b ": ["b1!", "b2!"]}
    values = {"a ": 0.9, "b ": 0.1, "a a1!": 0.8, "a a2!": 0.2, "b b1!": 0.5, "b b2!": 0.4}
    script = Script(steps, values, right=frozenset({"a a1!", "b b2!"}))
    expected: list[dict[str, tuple[int, float]]] = [
        {"": (1, 1), "a ": (1, 1), "a a1!": (1, 1), "b ": (0, 0)},
        {"": (2, 0), "a ": (1, 1), "b ": (1, -1), "b b1!": (1, -1)},
        {"": (3, -1), "a ": (2, 0), "a a2!": (1, -1), "b ": (1, -1)},
        {"": (4, 0), "a ": (2, 0), "b ": (2, 0), "b b2!": (1, 1)},
    ]
    for rollouts, numbers in enumerate(expected, 1):
        script.given.clear()
        tree = search(UCT(rollouts=rollouts, branch=2, guided=True), script.functions())
        assert {text: (node(tree, text).visits, node(tree, text).value_sum) for text in numbers} == numbers
        if rollouts == 2:
            bound, _ = UCT().upper_bound(node(tree, "a "))
            assert bound == pytest.approx(1 + 2 * math.sqrt(math.log(2)))
    script.given.clear()
    assert search(UCT(rollouts=9, branch=2, guided=True), script.functions()).ended == "exhausted"
    assert [node(tree, text).right for text in ("a a1!", "a a2!")] == [1.0, 0.0]


@pytest.mark.parametrize("leaves", [1, 4])
def test_uct_goes_where_the_rewards_are(leaves: int) -> None:
    """Of 81 responses 16 are looked at; the more of one is right the larger its reward, or the smaller."""

    def share(state: State) -> float:
        return sum(a == b for a, b in zip(state.text[::3], target(state.problem, 4)[::3], strict=True)) / 4

    towards = World(depth=4).functions(judge=lambda states: [share(state) for state in states], value=None)
    away = World(depth=4).functions(judge=lambda states: [1 - share(state) for state in states], value=None)
    found = []
    for functions in (towards, away):
        trees = [search(UCT(branch=12, leaves=leaves), functions, f"p{number}") for number in range(12)]
        first = [max(tree.root.children, key=lambda child: child.visits).text for tree in trees]
        found.append(sum(text == target(tree.problem, 1) for text, tree in zip(first, trees, strict=True)))
    assert found == [12, 0]


def test_uct_rewards_dead_ends_and_unjudged_responses() -> None:
    nobody = World(depth=1).functions(judge=lambda states: [None] * len(states))
    tree = search(UCT(rollouts=2, branch=3), nobody)
    assert tree.root.visits == 2 and tree.root.value_sum == 0
    short = search(UCT(rollouts=1, branch=3), World(depth=3).functions(), budget=type(BUDGET)(depth=1, step_tokens=8))
    assert (short.root.visits, short.root.value_sum) == (1, -1)
