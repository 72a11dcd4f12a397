"""One tree under way: which of its asks are out, and what becomes of their answers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from selftrain import seeds
from selftrain.search.account import Account
from selftrain.search.asks import (
    Ask,
    Budget,
    Functions,
    Judge,
    Proposal,
    Propose,
    Solved,
    State,
    Strategy,
    Value,
    Wanted,
)
from selftrain.search.growing import grown
from selftrain.search.health import Tally
from selftrain.search.tree import Node, Tree


@dataclass(slots=True, eq=False)
class Errand:
    """One ask on its way."""

    ask: Ask
    ordinal: int
    """Of its tree's asks, from 0 on."""
    nodes: Sequence[Node] = ()
    """Those it is asked about."""
    wanted: Wanted | None = None
    out: bool = False
    answered: bool = False
    given_up: bool = False
    """The budget holds nothing of it."""
    missing: int = 0
    """Proposals still wanted of this try; the nodes of those that are there are ``new``."""
    new: list[Node] = field(default_factory=list)
    failed: int = 0
    """Proposals of this try that are worth another."""
    sent: int = 0
    """Proposals of this try that went out."""
    tried: int = 0
    answer: Any = None


class Lane:
    """Carries one tree from its root to its end."""

    def __init__(self, problem: str, strategy: Strategy, functions: Functions, budget: Budget, seed: int) -> None:
        self.tree = Tree(problem)
        self.over = False
        self._functions, self._budget, self._seed = functions, budget, seed
        self._account = Account(budget, self.tree.spent)
        self._tally = Tally()
        self._moves = strategy.grow(self.tree, random.Random(seeds.derive(seed, problem)))
        self._errands: list[Errand] = []
        self._asked = 0
        self._resume(None)
        self.go_on()

    def out(self, kind: type[Ask]) -> Iterator[Errand]:
        """Asks of a kind whose answers are waited for."""
        return (errand for errand in self._errands if errand.out and isinstance(errand.ask, kind))

    def propose_answered(self, errand: Errand, proposals: Sequence[Proposal]) -> None:
        ask, wanted = errand.ask, errand.wanted
        assert isinstance(ask, Propose) and wanted is not None
        self._check(wanted, proposals)
        drawn = sum(len(step.ids) for proposal in proposals for step in proposal)
        self._account.settle_proposals(ask, wanted.n, drawn)
        new, failed = grown(self.tree, ask, proposals, self._budget)
        errand.new += new
        errand.failed += failed
        errand.missing -= wanted.n
        errand.out = False
        if not errand.missing:
            errand.tried += 1
            errand.missing, errand.failed, errand.sent = errand.failed, 0, 0
        if not errand.missing or errand.tried == ask.tries or not ask.node.open:
            self._close(errand, errand.new)

    def values_answered(self, errand: Errand, values: Sequence[float]) -> None:
        for node, value in zip(errand.nodes, values, strict=True):
            node.value = self._tally.number(value)
        assert isinstance(errand.ask, Value)
        self._close(errand, [node.value for node in errand.ask.nodes])
        enough = self._budget.enough
        if enough is not None and any(n.state == "end" and n.id >= 0 and n.worth >= enough for n in errand.nodes):
            self._end("enough")

    def judged(self, errand: Errand, answers: Sequence[float | None]) -> None:
        for node, right in zip(errand.nodes, answers, strict=True):
            node.right = right
        self.tree.spent.judged += len(errand.nodes)
        self._close(errand, list(answers))

    def solved_answered(self, errand: Errand, answers: Sequence[bool]) -> None:
        self._close(errand, list(answers))

    def go_on(self) -> None:
        """Let out what the budget holds and resume the strategy, until something is waited for."""
        while not self.over:
            self._send()
            if any(errand.out for errand in self._errands):
                return
            if self._errands and all(errand.given_up for errand in self._errands):
                self._end(self._account.short_of)
            else:
                self._resume([errand.answer for errand in self._errands])

    def _resume(self, answers: list[Any] | None) -> None:
        try:
            asks = next(self._moves) if answers is None else self._moves.send(answers)
        except StopIteration:
            self._end("done")
            return
        self._errands = [Errand(ask, self._asked + place) for place, ask in enumerate(asks)]
        for errand in self._errands:
            errand.missing = errand.ask.n if isinstance(errand.ask, Propose) else 0
        self._asked += len(asks)

    def _send(self) -> None:
        """What the budget holds goes out; the rest waits for what comes back, or is given up where nothing will."""
        for errand in self._waiting():
            self._let_out(errand, partly=False)
        for errand in self._waiting():
            if any(other.out for other in self._errands):
                return
            self._let_out(errand, partly=True)
            if not errand.out:
                self._give_up(errand)

    def _waiting(self) -> list[Errand]:
        return [errand for errand in self._errands if not errand.out and not errand.answered]

    def _let_out(self, errand: Errand, partly: bool) -> None:
        ask = errand.ask
        if isinstance(ask, Propose):
            if not ask.node.open or errand.missing < 1:
                self._close(errand, errand.new)
            elif self._account.longest(ask) < 1:
                ask.node.close("length")
                self._close(errand, errand.new)
            elif n := self._account.hold_proposals(ask, errand.missing, partly):
                errand.wanted, errand.out = self._wanted(ask, n, errand), True
                errand.sent += n
            return
        function = {Value: self._functions.value, Judge: self._functions.judge, Solved: self._functions.solved}[
            type(ask)
        ]
        nodes = [node for node in ask.nodes if self._asks_about(ask, node)] if function else []
        if not nodes:
            self._close(errand, self._known(ask))
            return
        errand.nodes = self._account.pay_values(nodes, partly) if isinstance(ask, Value) else nodes
        errand.out = bool(errand.nodes)
        if errand.out and len(errand.nodes) < len(nodes):
            self._limited()

    def _give_up(self, errand: Errand) -> None:
        self._limited()
        self.tree.starved = True
        errand.given_up = not errand.new
        self._close(errand, errand.new if isinstance(errand.ask, Propose) else self._known(errand.ask))

    def _limited(self) -> None:
        self.tree.ended = self.tree.ended or self._account.short_of

    def _wanted(self, ask: Propose, n: int, errand: Errand) -> Wanted:
        place = (self._seed, self.tree.problem, ask.node.id, errand.ordinal, errand.tried)
        drawn = tuple(seeds.derive(*place, index) for index in range(errand.sent, errand.sent + n))
        return Wanted(self.state(ask.node), n, self._account.longest(ask), ask.to_end, ask.greedy, drawn)

    def state(self, node: Node) -> State:
        path = node.path()
        return State(self.tree.problem, node.id, tuple(one.ids for one in path), "".join(one.text for one in path))

    @staticmethod
    def _asks_about(ask: Ask, node: Node) -> bool:
        return not isinstance(ask, Value) or (node.value is None and node.state != "closed")

    @staticmethod
    def _known(ask: Ask) -> list[Any]:
        """What is said of nodes nobody is asked about."""
        assert not isinstance(ask, Propose)
        if isinstance(ask, Value):
            return [node.value for node in ask.nodes]
        return [False if isinstance(ask, Solved) else None] * len(ask.nodes)

    @staticmethod
    def _close(errand: Errand, answer: Any) -> None:
        errand.answer, errand.answered, errand.out = answer, True, False

    def _check(self, wanted: Wanted, proposals: Sequence[Proposal]) -> None:
        if len(proposals) > wanted.n:
            raise ValueError(f"propose gave {len(proposals)} proposals where {wanted.n} were wanted")
        for proposal in proposals:
            if not wanted.to_end and len(proposal) != 1:
                raise ValueError(f"propose gave {len(proposal)} steps where one was wanted")
            if (drawn := sum(len(step.ids) for step in proposal)) > wanted.max_tokens:
                raise ValueError(f"propose drew {drawn} tokens where max_tokens is {wanted.max_tokens}")

    def _end(self, why: str) -> None:
        self._moves.close()
        self._errands, self.over = [], True
        if self.tree.ended is None or why == "enough":
            self.tree.ended = why
        self.tree.warnings += self._tally.warnings()
