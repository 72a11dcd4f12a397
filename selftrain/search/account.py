"""What one tree may still spend: held before an ask goes out, settled when its answer is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selftrain.search.asks import Budget, Propose
from selftrain.search.tree import Node, Spent


@dataclass(slots=True)
class Account:
    """Spent and held together never exceed the budget."""

    budget: Budget
    spent: Spent
    held_tokens: int = 0
    held_proposals: int = 0
    short_of: str = "tokens"
    """What the last ask that was refused had too little of."""

    def longest(self, ask: Propose) -> int:
        """Most tokens one proposal of an ask may have."""
        left = self.budget.response_tokens - ask.node.length
        return left if ask.to_end else min(left, self.budget.step_tokens)

    def hold_proposals(self, ask: Propose, wanted: int, partly: bool) -> int:
        """How many proposals may go out: all or none, or with ``partly`` as many as the budget holds."""
        longest, n = self.longest(ask), wanted
        if self.budget.proposals is not None:
            n = min(n, self._left(self.budget.proposals, self.spent.proposals + self.held_proposals, 1, "proposals", n))
        if self.budget.tokens is not None:
            used = self.spent.tokens + self.held_tokens
            n = min(n, self._left(self.budget.tokens, used, longest, "tokens", n))
        if n < wanted and not partly:
            return 0
        self.held_tokens += n * longest
        self.held_proposals += n
        return n

    def settle_proposals(self, ask: Propose, n: int, drawn: int) -> None:
        self.held_tokens -= n * self.longest(ask)
        self.held_proposals -= n
        self.spent.proposals += n
        self.spent.policy_tokens += drawn

    def pay_values(self, nodes: Sequence[Node], partly: bool) -> list[Node]:
        """Those of the nodes whose unread tokens the budget holds: all or none, or with ``partly`` the first ones.

        The cost of reading is known beforehand, so it is paid at once.
        """
        paid: list[Node] = []
        marked: list[Node] = []
        cost = 0
        for node in nodes:
            unread = _unread(node)
            more = sum(len(one.ids) for one in unread)
            if (
                self.budget.tokens is not None
                and self.spent.tokens + self.held_tokens + cost + more > self.budget.tokens
            ):
                self.short_of = "tokens"
                break
            for one in unread:
                one.read = True
            marked += unread
            paid.append(node)
            cost += more
        if len(paid) < len(nodes) and not partly:
            for one in marked:
                one.read = False
            return []
        self.spent.value_tokens += cost
        self.spent.values += len(paid)
        return paid

    def _left(self, limit: int, used: int, each: int, what: str, wanted: int) -> int:
        fits = (limit - used) // each
        if fits < wanted:
            self.short_of = what
        return fits


def _unread(node: Node) -> list[Node]:
    unread = []
    for one in node.upward():
        if one.read:
            break
        unread.append(one)
    return unread
