"""Searches by simulation, against examples worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from searching import Script, World, node, search

from selftrain.registry import build
from selftrain.search.asks import Functions, Proposal, State, Step, Wanted
from selftrain.search.choose import choose
from selftrain.search.mcts_star import MCTSStar, V, upper_bound
from selftrain.search.presets import PRESETS
from selftrain.search.tree import Node, Tree


def statistics(tree: Tree) -> dict[str, tuple[int, Any]]:
    return {one.response: (one.visits, pytest.approx(V(one))) for one in tree.nodes}


BY_HAND = {
    "": ["aa ", "bb "],
    "aa ": ["xx ", "aa1 ", "ab1 "],  # The first is the roll-out's.
    "bb ": ["ba1 ", "bb1 "],
    "bb bb1 ": ["yy "],
    "aa ab1 ": ["zz "],
}
BY_HAND_VALUES = {
    "aa ": 0.5,
    "bb ": 0.3,
    "aa xx ": 0.9,
    "bb ba1 ": 0.2,
    "bb bb1 ": 0.6,
    "bb bb1 yy ": 0.4,
    "aa aa1 ": 0.4,
    "aa ab1 ": 0.8,
    "aa ab1 zz ": 0.2,
}


def test_mcts_star_by_hand() -> None:
    """c = 0.5, an unvisited child counts V + 0.9, alpha = 0.5, one step of roll-out.

    1. The root gets aa (0.5) and bb (0.3). From aa, the better one, the roll-out sees 0.9: V_aa = 0.25 + 0.45 = 0.7,
       n = 1. Back: N_root = 1, V_root = 0.7.
    2. aa: 0.7 + 0.5 sqrt(2 ln 1 / 1) = 0.7. bb: 0.3 + 0.9 = 1.2. So bb gets ba1 (0.2) and bb1 (0.6); the roll-out from
       bb1 sees 0.4: V_bb1 = 0.5, n = 1. Back: V_bb = 0.5 (ba1 has no visits), n_bb = 1; N_root = 2, V_root = 0.6.
    3. aa: 0.7 + 0.5 sqrt(2 ln 2) = 1.289. bb: 0.5 + 0.589 = 1.089. So aa gets aa1 (0.4) and ab1 (0.8); the roll-out
       sees 0.2: V_ab1 = 0.5. Back: V_aa = 0.5, n_aa = 2; N_root = 3, V_root = (2 * 0.5 + 1 * 0.5) / 3 = 0.5.
    """
    script = Script(BY_HAND, BY_HAND_VALUES)
    expected: list[dict[str, tuple[int, float]]] = [
        {"": (1, 0.7), "aa ": (1, 0.7), "bb ": (0, 0.3)},
        {"": (2, 0.6), "aa ": (1, 0.7), "bb ": (1, 0.5), "bb ba1 ": (0, 0.2), "bb bb1 ": (1, 0.5)},
        {"": (3, 0.5), "aa ": (2, 0.5), "bb ": (1, 0.5), "aa aa1 ": (0, 0.4), "aa ab1 ": (1, 0.5)},
    ]
    for iterations, numbers in enumerate(expected, 1):
        script = Script(BY_HAND, BY_HAND_VALUES)
        tree = search(MCTSStar(branch=2, iterations=iterations), script.functions())
        assert {response: statistics(tree)[response] for response in numbers} == numbers
    assert tree.ended == "done"
    bound = upper_bound(node(tree, "aa "), exploration=0.5, unvisited=0.9)
    assert bound == pytest.approx(0.5 + 0.5 * math.sqrt(2 * math.log(3) / 2))


def test_an_unvisited_child_is_not_forced_first() -> None:
    """With 0 in the place of 0.9, aa (0.7) is gone on with before bb (0.3) is seen at all."""
    tree = search(MCTSStar(branch=2, iterations=2, unvisited=0.0), Script(BY_HAND, BY_HAND_VALUES).functions())
    assert node(tree, "aa ").visits == 2 and node(tree, "bb ").visits == 0


def test_numbers_where_nothing_was_visited_yet() -> None:
    parent = Node(0)
    child = Node(1, parent, value=0.5, virtual=1)
    assert upper_bound(child, 0.5, 0.9) == 0.0
    child.virtual, child.visits, child.value_sum = 0, 1, 0.5
    assert upper_bound(child, 0.5, 0.9) == 0.5


def test_the_first_leaf_over_the_gate_ends_a_simple_search_and_is_completed() -> None:
    script = Script(
        {"": ["aa ", "bb "], "aa ": ["xx ", "end!"]}, {"aa ": 0.8, "bb ": 0.1, "aa xx ": 0.9, "aa end!": 0.7}
    )
    tree = search(MCTSStar(mode="simple", branch=2, unvisited=0.5), script.functions())
    assert tree.ended == "gate" and tree.found is not None
    assert tree.found.response == "aa end!" and choose(tree) is tree.found
    assert script.calls[-1][0].to_end and script.calls[-1][0].greedy
    assert node(tree, "").visits == 1


def test_a_full_search_completes_a_leaf_over_the_gate_and_goes_on() -> None:
    script = Script(
        {"": ["aa ", "bb "], "aa ": ["xx ", "end!"], "bb ": ["b1 ", "b2 "], "bb b1 ": ["yy "]},
        {"aa ": 0.8, "bb ": 0.1, "aa xx ": 0.9, "aa end!": 0.7, "bb b1 ": 0.1, "bb b2 ": 0.1, "bb b1 yy ": 0.1},
    )
    tree = search(MCTSStar(branch=2, unvisited=0.5, iterations=9), script.functions(), seed=3)
    over = node(tree, "aa ")
    assert (over.state, over.reason, over.visits) == ("open", "gate", 9)
    assert node(tree, "bb ").visits == 0
    assert V(over) == pytest.approx(0.85)
    assert [child.text for child in over.children] == ["end!"] and over.children[0].visits == 0


class Finished(World):
    """Ends a response by a token without text; ``at`` is how many steps stand before it."""

    at = 1

    def proposal(self, wanted: Wanted, seed: int) -> Proposal:
        if wanted.to_end and wanted.state.text.count(";") >= self.at:
            return [Step((9,), "", ended=True)]
        return super().proposal(wanted, seed)


def test_a_completion_that_is_the_end_token_alone_is_an_end() -> None:
    """Every step is over the gate: each leaf is completed once and then done."""
    world = Finished(depth=9)
    tree = search(MCTSStar(branch=2, iterations=9), world.functions(value=lambda states: [0.9] * len(states)))
    assert tree.ended == "exhausted" and tree.dropped["empty"] == 0
    assert [(end.depth, end.text, end.ids) for end in tree.ends()] == [(2, "", (9,))] * len(tree.root.children)
    assert sum(one.to_end for call in world.proposed for one in call) == len(tree.root.children)


def test_a_leaf_over_the_gate_that_has_no_completion_is_closed() -> None:
    class Mute(World):
        def proposal(self, wanted: Wanted, seed: int) -> Proposal:
            return [Step((9,), " ", ended=False)] if wanted.to_end else super().proposal(wanted, seed)

    world = Mute(depth=9)
    tree = search(MCTSStar(branch=2, iterations=9), world.functions(value=lambda states: [0.9] * len(states)))
    assert tree.ended == "exhausted"
    assert {(leaf.state, leaf.reason) for leaf in tree.root.children} == {("closed", "stuck")}
    assert sum(one.to_end for call in world.proposed for one in call) == len(tree.root.children) == 2


def test_short_and_repeated_steps_are_drawn_again_with_other_seeds() -> None:
    steps = {"": ["x", "aa ", "aa ", "y", "bb "], "aa ": ["aa", "r", "cc "], "bb ": []}
    script = Script(steps, {"aa ": 0.5, "bb ": 0.3, "aa cc ": 0.4})
    tree = search(MCTSStar(branch=3, iterations=1), script.functions())
    assert [child.text for child in tree.root.children] == ["aa ", "bb "]
    assert tree.dropped == {"short": 3, "repeated": 1, "in path": 1}
    assert [one.n for call in script.calls for one in call] == [3, 1, 1, 1, 1, 1]
    seeds = [seed for call in script.calls for one in call for seed in one.seeds]
    assert len({*seeds}) == len(seeds) == 8


def test_a_node_behind_which_three_tries_bring_nothing_is_closed() -> None:
    script = Script({"": ["x"] * 9}, {})
    tree = search(MCTSStar(branch=3, iterations=5), script.functions())
    assert [one.n for call in script.calls for one in call] == [3, 3, 3]
    assert (tree.root.state, tree.root.reason, tree.ended) == ("closed", "stuck", "exhausted")


def test_the_self_critic_ends_responses() -> None:
    script = Script({"": ["so the answer is 4 ", "bb "]}, {"so the answer is 4 ": 0.1, "bb ": 0.2})
    functions = script.functions()
    asked: list[str] = []

    def solved(states: Sequence[State]) -> list[bool]:
        asked.extend(state.text for state in states)
        return [state.text == "bb " for state in states]

    tree = search(MCTSStar(branch=2), Functions(functions.propose, functions.value, solved=solved))
    assert [(one.state, one.reason) for one in tree.root.children] == [("end", "solved")] * 2
    assert asked == ["bb "] and tree.ended == "exhausted"


def test_presets_are_the_three_of_the_reference_code_and_fields_win() -> None:
    table = {
        name: (s.iterations, s.exploration, s.roll_forward_steps, s.end_gate, s.unvisited)
        for name, s in PRESETS.items()
    }
    assert table == {
        "task": (None, 0.7, 3, 0.9, 1.0),
        "evaluate": (100, 0.4, 2, 0.9, 0.8),
        "self_train": (50, 0.5, 1, 0.8, 0.9),
    }
    assert {(s.branch, s.roll_branch, s.alpha) for s in PRESETS.values()} == {(3, 1, 0.5)}
    own = MCTSStar(preset="evaluate", exploration=0.0, branch=7).settings
    assert (own.exploration, own.branch, own.iterations, own.unvisited) == (0.0, 7, 100, 0.8)


@pytest.mark.parametrize(
    "name, options, complaint",
    [
        ("mcts_star", {"preset": "best"}, "unknown preset 'best' .known: task, evaluate, self_train."),
        ("mcts_star", {"preset": "task"}, "leaves the number of iterations open: set iterations"),
        ("mcts_star", {"branch": 0}, "branch must be at least 1, got 0"),
        ("uct", {"rollouts": 0}, "rollouts must be at least 1, got 0"),
        ("beam", {"width": 0}, "width must be at least 1, got 0"),
        ("lookahead", {"steps": 0}, "steps must be at least 1, got 0"),
        ("diverse_beam", {"groups": 0}, "groups must be at least 1, got 0"),
        ("best_of_n", {"n": 0}, "n must be at least 1, got 0"),
        ("monte_carlo", {"completions": 0}, "completions must be at least 1, got 0"),
        ("omega_prm", {"alpha": 2.0}, "alpha is a share, from 0 to 1, got 2"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build("search", name, options)


@pytest.mark.parametrize("name", ["mcts_star", "uct"])
def test_virtual_loss_spreads_the_leaves_of_one_tree(name: str) -> None:
    one, many = World(depth=6), World(depth=6)
    options = {"mcts_star": {"iterations": 20}, "uct": {"rollouts": 20, "branch": 3}}[name]
    trees = [
        search(build("search", name, {**options, "leaves": leaves}), world.functions())
        for leaves, world in ((1, one), (4, many))
    ]
    assert max(len(call) for call in one.proposed) == 1
    assert max(len(call) for call in many.proposed) >= 3
    assert all(len({wanted.state.text for wanted in call}) == len(call) for call in many.proposed if call[0].n > 1)
    assert len(many.proposed) < 0.7 * len(one.proposed)
    assert [tree.root.visits for tree in trees] == [20, 20]
    assert all(node.virtual == 0 for tree in trees for node in tree.nodes)
