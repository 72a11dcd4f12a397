"""What every search strategy keeps to."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from searching import BUDGET, STRATEGIES, World, fitted, search, target

from selftrain.registry import build
from selftrain.search.asks import Budget, Functions, Proposal, State, Step, Wanted
from selftrain.search.choose import choose
from selftrain.search.driver import advance
from selftrain.search.tree import records_of, tree_of
from selftrain.types import TreeNode

NAMES = [*STRATEGIES]
VALUED = [name for name in NAMES if name.partition(",")[0] not in {"monte_carlo", "omega_prm"}]
WHOLE = {"best_of_n", "weighted_best_of_n", "monte_carlo", "omega_prm", "omega_prm, searches"}
PROBLEMS = [f"p{number}" for number in range(12)]


def trees(name: str, lanes: int, world: World | None = None, budget: Budget = BUDGET) -> dict[str, list[TreeNode]]:
    functions = (world or World()).functions()
    done = advance(PROBLEMS[:6], STRATEGIES[name], functions, budget=budget, lanes=lanes, seed=7)
    return {tree.problem: records_of(tree, "t", tree.problem) for tree in done}


@pytest.mark.parametrize("name", [name for name in VALUED if not name.startswith("uct")])
def test_the_known_best_leaf_is_found(name: str) -> None:
    world = World(depth=3)
    found = 0
    for problem in PROBLEMS:
        tree = search(STRATEGIES[name], world.functions(), problem)
        answers = {end.id: end.response for end in tree.ends()}
        chosen = choose(tree, "value", answers)
        found += chosen is not None and chosen.response == target(problem, 3)
    assert found >= 11, found


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_tree_whatever_stands_beside_it(name: str) -> None:
    alone = trees(name, lanes=1)
    assert alone == trees(name, lanes=64) == trees(name, lanes=5)
    assert len({tuple(node.text for node in tree) for tree in alone.values()}) > 1
    tight = Budget(tokens=90, depth=8, step_tokens=8, response_tokens=40)
    assert trees(name, 1, budget=tight) == trees(name, 64, budget=tight)


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_is_another_tree(name: str) -> None:
    first, second = (search(STRATEGIES[name], World().functions(), seed=seed) for seed in (0, 1))
    assert [node.ids for node in first.nodes] != [node.ids for node in second.nodes]


@pytest.mark.parametrize("name", NAMES)
def test_the_budget_is_never_exceeded(name: str) -> None:
    draw = random.Random(name)
    short = 0
    for case in range(20):
        budget = Budget(
            tokens=draw.choice([None, draw.randint(8, 400)]),
            proposals=draw.choice([None, draw.randint(1, 40)]),
            depth=draw.randint(1, 6),
            step_tokens=8,
            response_tokens=draw.randint(8, 64),
        )
        world = World()
        tree = search(STRATEGIES[name], world.functions(), f"p{case}", budget)
        assert tree.spent.policy_tokens == world.tokens
        assert tree.spent.proposals == sum(one.n for call in world.proposed for one in call)
        assert budget.tokens is None or tree.spent.tokens <= budget.tokens
        assert budget.proposals is None or tree.spent.proposals <= budget.proposals
        assert all(one.n * one.max_tokens <= (budget.tokens or 10**9) for call in world.proposed for one in call)
        short += tree.ended in {"tokens", "proposals"}
    assert short >= 5


@pytest.mark.parametrize("name", ["beam", "mcts_star", "uct"])
def test_what_an_ask_did_not_use_is_spent_on_others(name: str) -> None:
    tree = search(STRATEGIES[name], World(depth=8).functions(), budget=replace(BUDGET, tokens=200))
    assert 200 - 2 * BUDGET.step_tokens <= tree.spent.tokens <= 200
    assert tree.ended == "tokens"


@pytest.mark.parametrize(
    "name, options, asked", [("best_of_n", {"n": 16}, 16), ("monte_carlo", {"n": 4, "completions": 5}, 4 + 5 * 4 * 3)]
)
def test_what_did_not_fit_beside_the_rest_is_asked_for_later(name: str, options: dict[str, int], asked: int) -> None:
    """Of 200 tokens for each response next to nothing is used: all are drawn in the end, each by a seed of its own."""
    world = World()
    budget = replace(BUDGET, tokens=900, response_tokens=200)
    tree = search(build("search", name, options), world.functions(value=None), budget=budget)
    assert tree.ended == "done" and not tree.starved and tree.spent.tokens <= 900
    seeds = [seed for call in world.proposed for one in call for seed in one.seeds]
    assert tree.spent.proposals == len(seeds) == len({*seeds}) == asked
    assert len(world.proposed[0]) == 1 and world.proposed[0][0].n == 4


def test_a_tree_has_the_budget_of_its_problem() -> None:
    budgets = {"short": replace(BUDGET, depth=2), "long": BUDGET}
    done = advance(["short", "long"], STRATEGIES["beam"], World().functions(), budget=budgets.__getitem__)
    assert {tree.problem: max(node.depth for node in tree.nodes) for tree in done} == {"short": 2, "long": 4}


def test_values_are_counted_by_the_tokens_that_were_not_read_before() -> None:
    tree = search(STRATEGIES["beam"], World().functions())
    assert tree.spent.value_tokens == sum(len(node.ids) for node in tree.nodes)
    assert tree.spent.values == len(tree.nodes) - 1


@pytest.mark.parametrize("name", VALUED)
@pytest.mark.parametrize(
    "value, warning",
    [
        (0.5, "the value function says the same of all nodes"),
        (math.nan, "gave no number for"),
        (math.inf, "gave no number for"),
        (3.0, "lay outside [0, 1]"),
    ],
)
def test_values_that_say_nothing_are_survived(name: str, value: float, warning: str) -> None:
    functions = World().functions(value=lambda states: [value] * len(states))
    tree = search(STRATEGIES[name], functions)
    assert any(warning in line for line in tree.warnings), tree.warnings
    assert tree.ends()
    assert all(node.value is None or 0 <= node.value <= 1 for node in tree.nodes)
    assert (not math.isfinite(value)) == all(node.value is None for node in tree.nodes)


class Peculiar(World):
    """Some of its steps are empty, repeat, or leave no room for a next one."""

    def step(self, problem: str, text: str, seed: int, greedy: bool) -> Step:
        usual = super().step(problem, text, seed, greedy)
        if text == "" and seed % 3 == 0:
            return Step((7,), " \n")
        if text.startswith("a0;") and text != "a0;":
            return Step((), "", reason="context")
        if text.startswith("b0;") and text != "b0;":
            return replace(usual, ended=False, reason="length")
        return usual

    def proposal(self, wanted: Wanted, seed: int) -> Proposal:
        steps: list[Step] = []
        text = wanted.state.text
        while not steps or (wanted.to_end and not steps[-1].ended and steps[-1].reason is None):
            steps.append(self.step(wanted.state.problem, text, seed + len(steps), wanted.greedy))
            text += steps[-1].text
        return fitted(steps, wanted.max_tokens)


@pytest.mark.parametrize("name", NAMES)
def test_bad_proposals_close_a_node_or_are_dropped_and_the_search_goes_on(name: str) -> None:
    reasons, dropped, ended = set(), set(), 0
    for problem in PROBLEMS:
        tree = search(STRATEGIES[name], Peculiar().functions(), problem)
        reasons |= {node.reason for node in tree.nodes if node.state == "closed"}
        dropped |= {*tree.dropped}
        ended += bool(tree.ends())
        assert name in WHOLE or all(node.text.strip() for node in tree.nodes[1:])
        assert all(not node.children for node in tree.nodes if node.state == "closed")
    assert {"context", "length"} <= reasons
    assert ended >= 10
    if name not in WHOLE:
        assert {"empty", "repeated"} <= dropped


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_that_proposes_nothing_of_use_ends_the_search(name: str) -> None:
    def propose(wanted: Sequence[Wanted]) -> list[list[Proposal]]:
        return [[[Step((1,), " ")]] * one.n for one in wanted]

    tree = search(STRATEGIES[name], World().functions(propose=propose))
    assert len(tree.nodes) == 1 and tree.dropped["empty"] > 0
    assert tree.root.reason == (None if name in WHOLE else "stuck")
    assert choose(tree) is None


def test_a_step_at_the_depth_limit_is_closed() -> None:
    tree = search(STRATEGIES["beam"], World().functions(), budget=replace(BUDGET, depth=2))
    deepest = [node for node in tree.nodes if node.depth == 2]
    assert deepest and {node.reason for node in deepest} == {"depth"}
    assert max(node.depth for node in tree.nodes) == 2 and tree.ends() == []


@pytest.mark.parametrize("name", ["beam", "mcts_star", "uct"])
def test_lanes_keep_calls_full(name: str) -> None:
    class Seen(Exception):
        pass

    class Brief(World):
        def propose(self, wanted: Sequence[Wanted]) -> list[list[Proposal]]:
            if len(self.proposed) == 3:
                raise Seen
            return super().propose(wanted)

    world = Brief()
    problems = [f"p{number}" for number in range(64)]
    with pytest.raises(Seen):
        list(advance(problems, STRATEGIES[name], world.functions(), budget=BUDGET, lanes=64))
    assert [len({one.state.problem for one in call}) for call in world.proposed] == [64] * 3
    first = {"beam": 4 * 12, "mcts_star": 12, "uct": 12}[name]
    assert sum(one.n for one in world.proposed[0]) == 64 * first
    assert sum(world.valued[:1]) > 64


def test_a_finished_tree_leaves_at_once_and_the_next_problem_takes_its_lane() -> None:
    class Long(World):
        def step(self, problem: str, text: str, seed: int, greedy: bool) -> Step:
            return replace(super().step(problem, text, seed, greedy), ended=text != "" or self.short)

        short = False

        def proposal(self, wanted: Wanted, seed: int) -> Proposal:
            self.short = wanted.state.problem != "long"
            return super().proposal(wanted, seed)

    world = Long(depth=9)
    done = advance(["long", "b", "c"], STRATEGIES["beam"], world.functions(), budget=BUDGET, lanes=2)
    assert [tree.problem for tree in done] == ["b", "long", "c"]
    together = [{one.state.problem for one in call} for call in world.proposed]
    assert together == [{"long", "b"}, {"long", "c"}]


def test_a_good_enough_response_ends_its_tree() -> None:
    tree = search(STRATEGIES["mcts_star"], World(depth=2).functions(), budget=replace(BUDGET, enough=0.99))
    assert tree.ended == "enough"
    assert max(end.worth for end in tree.ends()) == 1.0


def test_a_missing_function_and_answers_that_do_not_fit_are_errors() -> None:
    world = World()
    with pytest.raises(ValueError, match="Beam needs a value function"):
        search(STRATEGIES["beam"], Functions(world.propose))
    with pytest.raises(ValueError, match="value gave 1 answers about"):
        search(STRATEGIES["beam"], world.functions(value=lambda states: [0.5]))
    with pytest.raises(ValueError, match="propose gave 0 answers to 1 that were wanted"):
        search(STRATEGIES["beam"], world.functions(propose=lambda wanted: []))
    with pytest.raises(ValueError, match="propose drew 9 tokens where max_tokens is 8"):
        long = Step((0,) * 9, "x")
        search(STRATEGIES["beam"], world.functions(propose=lambda wanted: [[[long]]]))
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        Budget(depth=0)
    with pytest.raises(ValueError, match="must hold at least one step"):
        Budget(tokens=10, step_tokens=11)


@pytest.mark.parametrize("name", NAMES)
def test_a_tree_comes_back_from_its_records(name: str) -> None:
    tree = search(STRATEGIES[name], World().functions())
    records = records_of(tree, "t", "p")
    assert all(record.parent < record.node_id for record in records)
    again = tree_of(records[::-1])
    assert records_of(again, "t", "p") == records
    assert [node.length for node in again.nodes] == [node.length for node in tree.nodes]
    with pytest.raises(ValueError, match="are not the nodes 0, 1, 2"):
        tree_of(records[1:])


def test_a_state_holds_the_whole_response() -> None:
    seen: list[State] = []
    world = World()

    def value(states: Sequence[State]) -> list[float]:
        seen.extend(states)
        return world.value(states)

    tree = search(STRATEGIES["beam"], world.functions(value=value))
    for state in seen:
        node = tree.nodes[state.node]
        assert state.steps == tuple(one.ids for one in node.path()) and state.text == node.response
