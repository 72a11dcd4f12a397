"""What a search asks for and what it is told: the contract between strategies, the driver and those who know models.

A strategy is a generator: it yields a list of asks about one tree and is sent the answers, in the same order. The
driver collects the asks of many trees into few calls of three functions:

- ``propose``: for every `Wanted`, up to ``n`` proposals. A proposal is a sequence of steps: one step, or with
  ``to_end`` the whole rest of the response cut into its steps. What is drawn follows from ``seeds`` and the state
  alone. A step that ran into a limit says so in ``reason``; a state that no step fits behind (context overflow) is
  answered by one proposal of one step without ids, with the reason.
- ``value``: for every state a number in [0, 1], how far its response is on the way to a right answer. NaN: unknown.
- ``judge``: for every complete response 1.0 (right), 0.0 (wrong), credit between, or None (could not judge).
- ``solved``: for every state whether its response already holds the answer (the self-critic); optional.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from selftrain.ranges import Count, Positive, violations
from selftrain.search.choose import How
from selftrain.search.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class State:
    """A problem and the response so far."""

    problem: str
    node: int
    """Id of the node in its tree; -1: none that the tree keeps."""
    steps: tuple[tuple[int, ...], ...]
    """Token ids of each step."""
    text: str
    """Of all steps."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Proposals asked of the policy behind one state."""

    state: State
    n: int
    max_tokens: int
    """Most tokens each proposal may have; all its steps together with ``to_end``."""
    to_end: bool
    """The rest of the response, not its next step."""
    greedy: bool
    seeds: tuple[int, ...]
    """One per proposal; in [0, 2**63)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step that was drawn."""

    ids: tuple[int, ...]
    text: str
    """Decoded, with the separator that ends it."""
    ended: bool = False
    """The response is complete with it."""
    reason: str | None = None
    """Why nothing may follow although it has not ended: ``length``, ``context`` ...; None otherwise."""
    prior: float | None = None
    """log p of ``ids``."""


Proposal = Sequence[Step]


@dataclass(frozen=True)
class Functions:
    """What a search stands on; called with what many trees ask for at once."""

    propose: Callable[[Sequence[Wanted]], Sequence[Sequence[Proposal]]]
    value: Callable[[Sequence[State]], Sequence[float]] | None = None
    judge: Callable[[Sequence[State]], Sequence[float | None]] | None = None
    solved: Callable[[Sequence[State]], Sequence[bool]] | None = None


def check_ranges(options: object) -> None:
    """Raises ValueError where a number of a dataclass lies outside the range its type states."""
    for place, complaint in violations(options):
        raise ValueError(f"{place} {complaint}")


@dataclass(frozen=True)
class Budget:
    """What one tree may cost at most. Held before an ask goes out; what was not used comes back."""

    tokens: Count | None = None
    """Drawn by the policy and, of responses, read by the value function."""
    proposals: Count | None = None
    depth: Count = 16
    """Steps a response may be searched through; an unfinished node there is closed. Of whole responses: no limit."""
    step_tokens: Count = 256
    """Most tokens of one step."""
    response_tokens: Count = 2048
    """Most tokens of one response, over all its steps."""
    enough: Positive | None = None
    """Value of a complete response at which its tree ends early."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.tokens is not None and self.tokens < self.step_tokens:
            raise ValueError(f"tokens ({self.tokens}) must hold at least one step of step_tokens ({self.step_tokens})")


Refuse = Callable[[Node, Step], str | None]
"""Why a step is no child of a node; None where it is."""


@dataclass(frozen=True, slots=True)
class Propose:
    """Answered by the new nodes behind ``node``: its new children, or with ``to_end`` the last node of each chain.

    Empty steps and those that a sibling has already are dropped and counted; whole responses may repeat. Fewer than
    ``n`` are drawn where the budget holds no more. A node that is not open gets none.
    """

    node: Node
    n: int
    to_end: bool = False
    greedy: bool = False
    keep: bool = True
    """Whether the new nodes become part of the tree; those of a roll-out do not."""
    refuse: Refuse | None = None
    """Looked at besides; whole responses are not."""
    tries: int = 1
    """How often it is asked in all for proposals that were empty or refused; those that repeat are not drawn again."""


@dataclass(frozen=True, slots=True)
class Value:
    """Answered by the nodes' values, None where there is none; written into the nodes. Closed nodes have none."""

    nodes: Sequence[Node]


@dataclass(frozen=True, slots=True)
class Judge:
    """Answered by what the judge says of complete responses; written into the nodes."""

    nodes: Sequence[Node]


@dataclass(frozen=True, slots=True)
class Solved:
    """Answered by whether each node's response already holds the answer; False where nobody can say."""

    nodes: Sequence[Node]


Ask = Propose | Value | Judge | Solved
Moves = Generator[list[Ask], list[Any], None]
"""What goes on in one tree: yields asks, is sent one answer for each."""


class Strategy(Protocol):
    """How a tree grows: a frozen dataclass whose fields are its options.

    It may also say that it draws ``whole`` responses from the root, a bool, and which functions it ``ignores``, a set
    of names: what is set in vain can then be told before anything is drawn.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Those of ``value`` and ``judge`` that it cannot do without."""

    @property
    def choose(self) -> How:
        """How the answer is chosen among the ends, if nobody says otherwise."""

    def grow(self, tree: Tree, rng: random.Random) -> Moves: ...
