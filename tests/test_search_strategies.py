"""What beams, whole responses and labels by completions do of their own."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from searching import BUDGET, World, search, target

from selftrain.registry import build
from selftrain.search.asks import State, Step
from selftrain.search.beam import Beam, DiverseBeam, Lookahead
from selftrain.search.choose import choose
from selftrain.search.health import reversed_told
from selftrain.search.monte_carlo import MonteCarlo
from selftrain.search.omega_prm import OmegaPRM
from selftrain.search.tree import Node, Tree


def leaf(tree: Tree, text: str, value: float | None, visits: int = 0, value_sum: float = 0.0) -> Node:
    node = Node(len(tree.nodes), tree.root, 1, (1,), text, state="end", value=value, visits=visits, value_sum=value_sum)
    tree.nodes.append(node)
    return node


def test_choosing_by_value_by_vote_and_by_weighted_vote() -> None:
    tree = Tree("p")
    for text, value in [("7", 0.9), ("8", 0.4), ("8", 0.3), ("8", None), ("9", 0.5), ("9", 0.45), ("none", 1.0)]:
        leaf(tree, text, value)
    answers = {node.id: None if node.text == "none" else node.text for node in tree.ends()}
    chosen = {how: choose(tree, how, answers) for how in ("value", "vote", "weighted_vote")}
    assert {how: node.id for how, node in chosen.items() if node} == {"value": 7, "vote": 2, "weighted_vote": 5}
    assert choose(tree, "vote", {}) is None
    with pytest.raises(ValueError, match="vote needs the answers"):
        choose(tree, "vote")


def test_an_end_without_a_value_is_compared_by_what_its_visits_brought() -> None:
    tree = Tree("p")
    leaf(tree, "a", None, visits=2, value_sum=-2.0)
    better = leaf(tree, "b", None, visits=4, value_sum=2.0)
    assert choose(tree) is better
    assert choose(Tree("p")) is None


def test_the_weighted_strategy_only_chooses_otherwise() -> None:
    plain, weighted = build("search", "best_of_n", {"n": 5}), build("search", "weighted_best_of_n", {"n": 5})
    assert (plain.choose, weighted.choose) == ("value", "weighted_vote")
    trees = [search(strategy, World().functions()) for strategy in (plain, weighted)]
    assert [node.ids for node in trees[0].nodes] == [node.ids for node in trees[1].nodes]
    assert len(trees[0].ends()) == 5 and len(trees[0].nodes) == 1 + 5 * 4


def test_whole_responses_do_without_a_value_function() -> None:
    tree = search(build("search", "best_of_n", {}), World().functions(value=None, judge=None))
    assert len(tree.ends()) == 16 and tree.spent.values == 0 and tree.warnings == []


def test_a_beam_goes_on_from_the_best_and_draws_width_times_branch() -> None:
    world = World(depth=3)
    tree = search(Beam(width=2, branch=9), world.functions())
    assert [sum(one.n for one in call) for call in world.proposed] == [18, 18, 18]
    assert [len(call) for call in world.proposed] == [1, 2, 2]
    right = target("p", 3)
    for call in world.proposed[1:]:
        assert any(right.startswith(one.state.text) for one in call)
    expanded = [node for node in tree.nodes if node.children and node.parent is not None]
    assert len(expanded) == 4


def test_a_beam_whose_nodes_are_all_closed_goes_on_from_what_it_left_behind() -> None:
    class Trap(World):
        """Behind the step of the largest value nothing fits."""

        def step(self, problem: str, text: str, seed: int, greedy: bool) -> Step:
            if text.startswith("a"):
                return Step((), "", reason="context")
            return super().step(problem, text, seed, greedy)

    world = Trap(depth=2)
    worth = {"a": 1.0, "b": 0.5, "c": 0.2}
    tree = search(
        Beam(width=1, branch=20), world.functions(value=lambda states: [worth[one.text[0]] for one in states])
    )
    assert [(node.text, node.reason) for node in tree.nodes if node.state == "closed"] == [("a0;", "context")]
    assert {end.text[0] + end.response[0] for end in tree.ends()} == {"ab", "bb", "cb"}


def test_diverse_beams_keep_apart() -> None:
    world = World(depth=3)
    search(DiverseBeam(groups=3, branch=12), world.functions())
    assert [len(call) for call in world.proposed] == [1, 3, 3]
    assert len({one.state.text[0] for one in world.proposed[2]}) == 3
    assert [one.n for one in world.proposed[0]] == [36]


def test_lookahead_sees_what_a_step_leads_to() -> None:
    """The value function knows whole responses only: a beam gropes, one that looks ahead does not."""
    world = World(depth=4)

    def at_the_end(states: Sequence[State]) -> list[float]:
        return [float(state.text == target(state.problem, 4)) for state in states]

    found = {}
    for strategy in (Beam(width=1, branch=24), Lookahead(width=1, branch=24, steps=3)):
        trees = [search(strategy, world.functions(value=at_the_end), f"p{number}") for number in range(8)]
        found[type(strategy).__name__] = sum(max(end.worth for end in tree.ends()) for tree in trees)
    assert found["Lookahead"] == 8 > 4 > found["Beam"]
    kept = {node.id for tree in trees for node in tree.nodes}
    assert -1 not in kept and all(node.visits == 1 for tree in trees for node in tree.nodes[1:])


class Skilled(World):
    """Goes on rightly with chance 0.8 while it is right; nothing mends a wrong step."""

    def step(self, problem: str, text: str, seed: int, greedy: bool) -> Step:
        usual = super().step(problem, text, seed, greedy)
        right = target(problem, text.count(";") + 1)
        letter = right[-3] if random.Random(seed).random() < 0.8 else usual.text[0]
        return Step(usual.ids, letter + usual.text[1:], usual.ended)


def first_error(response: str, problem: str) -> int:
    return next(
        place
        for place, (own, right) in enumerate(zip(response.split(";"), target(problem, 6).split(";"), strict=True))
        if own != right
    )


def test_monte_carlo_values_are_shares_of_right_completions() -> None:
    world = Skilled(depth=4)
    tree = search(MonteCarlo(n=6, completions=10), world.functions())
    right = target("p", 4)
    for node in tree.nodes:
        assert node.mc is not None
        if node.state == "open":
            assert (node.mc * (10 if node.depth else 6)) % 1 == pytest.approx(0, abs=1e-9)
        if not right.startswith(node.response):
            assert node.mc == 0
    assert tree.root.mc == sum(end.response == right for end in tree.ends()) / 6
    steps = [node for node in tree.nodes if node.state == "open" and node.depth]
    assert tree.spent.proposals == 6 + 10 * len(steps)
    assert [len(call) for call in world.proposed] == [1, len(steps)]
    assert sum(node.mc or 0 for node in steps if right.startswith(node.response)) > 0


def test_monte_carlo_leaves_out_what_could_not_be_judged() -> None:
    world = Skilled(depth=4)
    tree = search(MonteCarlo(n=2, completions=3), world.functions(judge=lambda states: [None] * len(states)))
    assert all(node.mc is None for node in tree.nodes)


def test_the_first_error_is_found_by_bisection() -> None:
    wrong = 0
    for number in range(8):
        world = Skilled(depth=6)
        tree = search(OmegaPRM(n=6, completions=24), world.functions(), f"p{number}")
        if tree.root.mc in {0.0, 1.0}:
            continue
        for end in tree.ends():
            path = end.path()
            probed = [place for place, node in enumerate(path[:-1]) if node.mc is not None]
            if end.right == 1.0:
                assert probed == []
                continue
            wrong += 1
            assert len(probed) <= math.ceil(math.log2(6))
            zero = next(place for place, node in enumerate(path) if node.mc == 0)
            assert zero == first_error(end.response, f"p{number}")
    assert wrong >= 10


def test_searches_by_rollout_keep_completions_and_choose_by_the_published_formula() -> None:
    tree = search(OmegaPRM(n=6, completions=6, searches=5), Skilled(depth=6).functions(), "p1")
    assert sum(node.visits for node in tree.nodes) == 5
    branching = [node for node in tree.nodes if node.depth and len(node.children) > 1]
    assert branching and all(len(node.children) == 7 for node in branching)
    state = Node(1, Tree("p").root, 1, (0,), "", length=1, mc=0.75, visits=3)
    rollout = Node(2, state, 2, (0,) * 250, "", length=251)
    score = OmegaPRM().selection(state, rollout, Tree("p", [Node(0, visits=6), state]))
    assert score == pytest.approx(0.5**0.25 * 0.9**0.5 + 0.125 * 3 / 4)


def test_problems_that_nobody_or_everybody_solves_are_not_searched() -> None:
    for credit in (0.0, 1.0):
        world = World()
        tree = search(OmegaPRM(n=4), world.functions(judge=lambda states, credit=credit: [credit] * len(states)))
        assert len(world.proposed) == 1 and tree.root.mc == credit


def test_a_reversed_value_function_is_told_of_from_16_pairs_on() -> None:
    wrong_way, tie, right_way = (0.1, 0.9), (0.5, 0.5), (0.9, 0.1)
    assert reversed_told([wrong_way] * 15) is None
    assert reversed_told([wrong_way] * 8 + [tie] * 8) == (
        "the value function may be reversed: it puts the wrong response above the right one in 75% of 16 pairs"
    )
    assert reversed_told([wrong_way] * 11 + [right_way] * 5) is None


def test_completions_that_were_cut_short_are_not_right() -> None:
    class Endless(World):
        def step(self, problem: str, text: str, seed: int, greedy: bool) -> Step:
            return Step((1, 2, 3), "x", ended=len(text) == 40)

    tree = search(MonteCarlo(n=2, completions=2), Endless().functions(), budget=BUDGET)
    assert {node.mc for node in tree.nodes} == {0.0}
    assert {node.reason for node in tree.nodes if node.state == "closed"} == {"length"}
