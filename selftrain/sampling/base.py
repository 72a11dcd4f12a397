"""What every sampler takes and gives.

A sampler sees the whole work list at once and yields responses as they finish, in any order. What a response says
must depend on the work list and its own seed alone, never on which part of the list was already done: so a resumed
run equals an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from selftrain.types import FinishReason, Problem


@dataclass(frozen=True, slots=True)
class Settings:
    """How responses are drawn."""

    temperature: float = 1.0
    """0 is greedy."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    max_tokens: int = 512
    """Longest response in tokens, the end token included."""
    stop: tuple[str, ...] = ()
    """Strings that end a response; the text is cut before them."""


@dataclass(frozen=True, slots=True)
class Request:
    """Samples wanted for one prompt."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    """One per sample, in order of index."""
    settings: Settings
    purpose: str = ""
    """Tells requests for the same problem apart (``greedy``, ``sampled``)."""

    @property
    def key(self) -> tuple[str, str]:
        return self.problem.id, self.purpose


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
    ids_from: str = "engine"


class Sampler(Protocol):
    """An open engine with the weights of one checkpoint."""

    def sample(self, work: Sequence[Request], done: Container[tuple[str, str]] = ()) -> Iterator[list[Completion]]:
        """Yield the responses to every request whose key is not in ``done``, some at a time."""

    def close(self) -> None:
        """Free the engine."""
