"""One of several engines that draw together: what is asked of it, of its kind, and what is noted of where it sits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

from selftrain.sampling.base import Answers, Completion, Request, Take, Unit
from selftrain.sampling.seats import Seat
from selftrain.sampling.vllm_process import EngineFailed


class Replica(Protocol):
    """A sampler in a process of its own, one of several."""

    def draw(self, work: Sequence[Request], take: Take, answers: Answers) -> Iterator[list[Completion]]:
        """Draw what ``take`` gives, until it gives nothing and all that is drawn has come; only the first answer may
        come without waiting.

        Raises:
            EngineFailed: its process failed, died or fell silent.
        """

    def poll(self, timeout: float = 0.0) -> bool:
        """Whether ``draw`` would go on now, or within ``timeout`` seconds; raises EngineFailed."""

    def reload(self, checkpoint: Path) -> bool:
        """Take over the weights of a checkpoint; whether it could be done."""

    def while_waiting(self, check_stop: Callable[[], None]) -> None:
        """Call this while the process is silent."""

    def close(self) -> None:
        """End the process."""


Open = Callable[[Seat, Path], Replica]


class Kind(Protocol):
    """Options of a sampler that can have replicas."""

    @property
    def gpus(self) -> int:
        """GPUs that one replica takes; 0: it needs none, or has one of its own choice."""

    def units(self, work: Sequence[Request], by_index: bool) -> Iterable[Unit]:
        """What is drawn by one process, in the order in which it is begun.

        Args:
            by_index: as `Answers.by_index`.
        """


@dataclass
class Account:
    """What it cost to share work lists."""

    replicas: int
    seconds: float = 0.0
    """From the first request of each list to its last response, added up."""
    idle: float = 0.0
    """Of the replicas, added up, when they had nothing to draw while others had."""
    missing: float = 0.0
    """Of the replicas, added up, when one had died and the next was not ready, or had no place."""
    replaced: int = 0
    empty: int = 0
    """Seats that no machine had room for."""
    redone: int = 0
    """Responses that were begun anew."""
    twice: int = 0
    """Tokens that were seen of these before."""

    @property
    def idle_share(self) -> float:
        """Of the time of all replicas."""
        return self.idle / (self.seconds * self.replicas) if self.seconds else 0.0

    def add(self, other: Account) -> None:
        """What another of as many replicas says, on top."""
        for one in fields(self)[1:]:
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def in_words(self) -> str:
        died = f", {self.replaced} replaced: {self.redone} responses and {self.twice:,} tokens drawn twice"
        empty = f", no room for {self.empty}"
        counted = f"{self.replicas} replica{'s' * (self.replicas > 1)}, {100 * self.idle_share:.1f} % idle"
        return counted + (died if self.replaced else "") + (empty if self.empty else "")


class Member:
    """A seat, who sits there, and what it draws."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.replica: Replica | None = None
        self.coming: Future[Replica] | None = None
        """Who will sit there, after one has died."""
        self.rows: Iterator[list[Completion]] | None = None
        self.finished = 0
        """Responses since its replica came."""
        self.new = False
        """Its replica took the place of one that died."""
        self.since = 0.0
        """When it became idle, or its replica died."""
        self.failure: EngineFailed | None = None
        """What was found while it was waited for."""

    def can_go_on(self, timeout: float) -> bool:
        """Whether the next answer is there, or none will come, at once or within some seconds."""
        assert self.replica is not None
        try:
            return self.replica.poll(timeout)
        except EngineFailed as error:
            self.failure = error
            return True

    def go_on(self) -> list[Completion] | None:
        """The next answer; None where all has come. Raises EngineFailed."""
        assert self.rows is not None
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return next(self.rows, None)
