"""A problem whose best response is known, as the functions a search stands on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from selftrain.registry import TABLES, build
from selftrain.search.asks import Budget, Functions, Proposal, State, Step, Strategy, Wanted
from selftrain.search.driver import advance
from selftrain.search.tree import Node, Tree

OPTIONS: dict[str, dict[str, Any]] = {
    "best_of_n": {"n": 100},
    "weighted_best_of_n": {"n": 100},
    "beam": {"branch": 12},
    "diverse_beam": {"groups": 3, "branch": 12},
    "lookahead": {"branch": 12},
    "mcts_star": {"iterations": 30, "branch": 12},
    "uct": {"branch": 12, "guided": True},
    "monte_carlo": {"n": 3, "completions": 2},
    "omega_prm": {"n": 12, "completions": 12},
}
STRATEGIES: dict[str, Strategy] = {name: build("search", name, OPTIONS.get(name, {})) for name in TABLES["search"]} | {
    "mcts_star, simple": build("search", "mcts_star", {**OPTIONS["mcts_star"], "mode": "simple"}),
    "mcts_star, leaves": build("search", "mcts_star", {**OPTIONS["mcts_star"], "leaves": 4}),
    "uct, leaves": build("search", "uct", {**OPTIONS["uct"], "leaves": 4}),
    "omega_prm, searches": build("search", "omega_prm", {**OPTIONS["omega_prm"], "searches": 4}),
}
BUDGET = Budget(depth=8, step_tokens=8, response_tokens=64)


def target(problem: str, depth: int) -> str:
    """The right response: a letter for every step, followed by how deep it stands."""
    letters = random.Random(problem)
    return "".join(f"{letters.choice('abc')}{place};" for place in range(depth))


@dataclass
class World:
    """Every step is ``a``, ``b`` or ``c`` and its place; one sequence is right, which a greedy policy writes."""

    depth: int = 4
    proposed: list[list[Wanted]] = field(default_factory=list)
    valued: list[int] = field(default_factory=list)
    tokens: int = 0
    """Drawn by now."""

    def step(self, problem: str, text: str, seed: int, greedy: bool) -> Step:
        draw = random.Random(0 if greedy else seed)
        place = text.count(";")
        letter = target(problem, place + 1)[-3] if greedy else draw.choice("abc")
        ids = (ord(letter), place, *[0] * draw.randrange(3))
        return Step(ids, f"{letter}{place};", ended=place + 1 == self.depth, prior=-1.0)

    def proposal(self, wanted: Wanted, seed: int) -> Proposal:
        steps: list[Step] = []
        text = wanted.state.text
        while not steps or (wanted.to_end and not steps[-1].ended):
            steps.append(self.step(wanted.state.problem, text, seed + len(steps), wanted.greedy))
            text += steps[-1].text
        return fitted(steps, wanted.max_tokens)

    def propose(self, wanted: Sequence[Wanted]) -> list[list[Proposal]]:
        self.proposed.append([*wanted])
        answers = [[self.proposal(one, seed) for seed in one.seeds] for one in wanted]
        self.tokens += sum(len(step.ids) for own in answers for proposal in own for step in proposal)
        return answers

    def value(self, states: Sequence[State]) -> list[float]:
        """Share of the right response that is there, nearly nothing behind a wrong step."""
        self.valued.append(len(states))
        return [self.worth(state) for state in states]

    def worth(self, state: State) -> float:
        right, steps = target(state.problem, self.depth), state.text.count(";")
        return steps / self.depth if right.startswith(state.text) else 0.01 * steps

    def judge(self, states: Sequence[State]) -> list[float | None]:
        return [float(state.text == target(state.problem, self.depth)) for state in states]

    def functions(self, **others: Any) -> Functions:
        return Functions(**({"propose": self.propose, "value": self.value, "judge": self.judge} | others))


def fitted(steps: Sequence[Step], most: int) -> list[Step]:
    """What a model would have written of it within so many tokens."""
    kept: list[Step] = []
    for step in steps:
        if len(step.ids) > most:
            return [*kept, Step(step.ids[:most], step.text[:1], reason="length")]
        most -= len(step.ids)
        kept.append(step)
    return kept


def search(
    strategy: Strategy, functions: Functions, problem: str = "p", budget: Budget = BUDGET, seed: int = 0
) -> Tree:
    """The tree of one problem."""
    [tree] = advance([problem], strategy, functions, budget=budget, seed=seed)
    return tree


@dataclass
class Script:
    """Gives what is written for a response, in order; ``!`` ends one. Its values and verdicts are written too."""

    steps: dict[str, list[str]]
    values: dict[str, float] = field(default_factory=dict)
    right: frozenset[str] = frozenset()
    calls: list[list[Wanted]] = field(default_factory=list)
    given: Counter[str] = field(default_factory=Counter)

    def propose(self, wanted: Sequence[Wanted]) -> list[list[Proposal]]:
        self.calls.append([*wanted])
        return [[self.proposal(one) for _ in range(one.n)] for one in wanted]

    def proposal(self, wanted: Wanted) -> Proposal:
        text = wanted.state.text
        step = self.steps[text][self.given[text]]
        self.given[text] += 1
        return [Step((len(step),), step, ended=step.endswith("!"))]

    def functions(self) -> Functions:
        def value(states: Sequence[State]) -> list[float]:
            return [self.values[state.text] for state in states]

        def judge(states: Sequence[State]) -> list[float]:
            return [float(state.text in self.right) for state in states]

        return Functions(self.propose, value, judge)


def node(tree: Tree, response: str) -> Node:
    [found] = [one for one in tree.nodes if one.response == response]
    return found
