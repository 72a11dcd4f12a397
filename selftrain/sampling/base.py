"""What every sampler takes and gives.

A sampler sees the whole work list at once and yields responses as they finish, in any order. What a response says
must depend on the work list and its own seed alone, never on which part of the list was already done: so a resumed
run equals an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from selftrain.schema import Sampling
from selftrain.types import FinishReason, Message, Problem

Place = tuple[int, int]
"""Of a request in the work list, and index of the sample."""

Unit = tuple[Place, ...]
"""Samples that are drawn by the same process: one, or those that share a batch."""

Take = Callable[[], Unit | None]
"""Gives the next unit that is to be drawn; None where there is none now."""


@dataclass(frozen=True, slots=True)
class Request:
    """Samples wanted for one prompt."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    """One per sample, in order of index."""
    settings: Sampling
    purpose: str = ""
    """Tells requests for the same problem apart (``greedy``, ``sampled``)."""
    messages: tuple[Message, ...] = ()
    """The prompt as a chat, for servers that take no token ids; empty where the prompt is plain text."""
    text: str = ""
    """The prompt as text, chat template applied."""
    keep_stop: bool = False
    """A stop string stays: ids go up to and with the token that completes it, as they were drawn, and the text is
    theirs. What comes next can then be asked for with a prompt that goes on from there."""
    expected: float | None = None
    """Tokens a response will have, as far as earlier ones tell; what is drawn does not depend on it."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One response."""

    request: int
    """Index into the work list."""
    index: int
    """Which of the request's samples."""
    ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    logprobs: tuple[float, ...] | None = None
    ids_from: Literal["engine", "retokenised"] = "engine"
    segments: tuple[int, ...] = ()
    """Where in ``ids`` a later process went on after a kill."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A response that was not finished when its process was killed."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None = None
    segments: tuple[int, ...] = ()
    """Where in ``ids`` a later process had gone on after a kill before."""


class Answers(Protocol):
    """What is known of the responses to a work list while they grow: each by its request's place and its index."""

    def wanted(self, request: int, index: int) -> bool:
        """Whether it is neither there already nor superfluous."""

    @property
    def by_index(self) -> bool:
        """Whether later samples of a prompt may become superfluous, so that the earlier ones are better drawn first."""

    def dropped(self) -> Sequence[tuple[int, int]]:
        """Those that have become superfluous since this was last asked; a sampler may end them early."""

    def begun(self, request: int, index: int) -> Begun | None:
        """What an earlier process had of it; to be asked once."""

    def given_up(self, request: int, index: int, tokens: int) -> None:
        """Tell that a response which was dropped ended early, and how many tokens were drawn for it, those of earlier
        processes too. One that ends all the same is yielded like any other."""

    def grown(self, request: int, index: int, ids: Sequence[int], logprobs: Sequence[float] | None) -> None:
        """Keep further tokens of an unfinished response, for a process that goes on with it after a kill."""

    def lost(self, request: int, index: int, tokens: int) -> None:
        """Tell that the engine drawing a response died, and that it is drawn once more from where this process began:
        what was kept of it since, ``tokens`` of them, no longer counts."""


@dataclass(frozen=True)
class AllWanted:
    """Answers to a work list that nothing is known of."""

    done: frozenset[tuple[int, int]] = frozenset()
    by_index: bool = False

    def wanted(self, request: int, index: int) -> bool:
        return (request, index) not in self.done

    def dropped(self) -> Sequence[tuple[int, int]]:
        return ()

    def begun(self, request: int, index: int) -> Begun | None:
        return None

    def given_up(self, request: int, index: int, tokens: int) -> None:
        """Nobody counts."""

    def grown(self, request: int, index: int, ids: Sequence[int], logprobs: Sequence[float] | None) -> None:
        """Nothing is kept."""

    def lost(self, request: int, index: int, tokens: int) -> None:
        """Nothing was kept."""


ALL = AllWanted()


class Sampler(Protocol):
    """An open engine with the weights of one checkpoint."""

    def sample(self, work: Sequence[Request], answers: Answers = ALL) -> Iterator[list[Completion]]:
        """Yield every response that is wanted, some at a time; others may be among them, and lists may be empty."""

    def close(self) -> None:
        """Free the engine."""
