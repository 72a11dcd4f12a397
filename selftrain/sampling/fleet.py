"""Several replicas of a sampler that draw one work list together.

Each is a process, on GPUs of its own where there are any, and takes the next samples whenever it has room
(`selftrain.sampling.sharing`). One that dies is replaced while the others go on, and what it held is drawn once more,
from the same seeds. A sample follows from its request and its seed, never from who drew it, as far as the engine keeps
to that: `transformers` batches are the same whoever draws them, and in vLLM, whose batches are made as requests come,
neighbours may turn the last bits of a distribution, as they do in a single engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Protocol

from selftrain.sampling.base import ALL, Answers, Completion, Request, Take, Unit
from selftrain.sampling.seats import Seat
from selftrain.sampling.sharing import Part, Shared
from selftrain.sampling.vllm_process import EngineFailed

GLANCE = 0.005
"""Seconds one replica is waited for before the next is looked at."""
NAMED = 3
"""Problems that a message names."""


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
    """Of the replicas, added up, when one had died and the next was not ready."""
    replaced: int = 0
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
        return f"{self.replicas} replicas, {100 * self.idle_share:.1f} % idle" + (died if self.replaced else "")


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


class Fleet:
    """Replicas as one `Sampler`.

    Args:
        kind: options of the sampler.
        opening: starts the replica of a seat with the weights of a checkpoint.

    Raises:
        EngineFailed, ValueError, OSError: a replica does not start; the others are ended.
    """

    def __init__(self, kind: Kind, checkpoint: Path, seats: Sequence[Seat], opening: Open) -> None:
        self._kind, self._checkpoint, self._opening = kind, checkpoint, opening
        self._check_stop: Callable[[], None] = lambda: None
        self._members = [Member(seat) for seat in seats]
        self._threads = ThreadPoolExecutor(len(seats), "replica")
        self.account = Account(len(seats))
        self.spent: dict[str, float] = {}
        """As `selftrain.sampling.vllm.VLLMSampler.spent`, of the replica that took longest."""
        for member in self._members:
            member.coming = self._threads.submit(opening, member.seat, checkpoint)
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for member in self._members:
            if member.coming is not None:
                if member.coming.exception() is None:  # Else it was told, or nobody needs to know any more.
                    member.replica = member.coming.result()
                member.coming = None
        list(self._threads.map(lambda replica: replica.close(), self.replicas))
        for member in self._members:
            member.replica = None
        self._threads.shutdown()

    def while_waiting(self, check_stop: Callable[[], None]) -> None:
        """Call this while a replica is silent; what it raises ends the waiting."""
        self._check_stop = check_stop
        for replica in self.replicas:
            replica.while_waiting(check_stop)

    def reload(self, checkpoint: Path) -> bool:
        """Give all of them other weights; False where one cannot take them, or died meanwhile: they are to be closed,
        and opened anew."""
        self._wait()
        try:
            if not all(self._threads.map(lambda replica: replica.reload(checkpoint), self.replicas)):
                return False
        except EngineFailed:  # Opening it anew tells of it where that fails too.
            return False
        self._checkpoint = checkpoint
        spent = [getattr(replica, "spent", {}) for replica in self.replicas]
        self.spent = {part: max(own.get(part, 0.0) for own in spent) for parts in spent for part in parts}
        return True

    def sleep(self, level: int) -> None:
        """As `selftrain.sampling.vllm.VLLMSampler.sleep`."""
        self._wait()
        list(self._threads.map(lambda replica: replica.sleep(level), self.replicas))

    def sample(self, work: Sequence[Request], answers: Answers = ALL) -> Iterator[list[Completion]]:
        """As `Sampler.sample`.

        Raises:
            EngineFailed: a second replica died over the same samples, or one before it finished any; or none can be
                started in the place of one that died.
        """
        shared = Shared(self._kind.units(work, answers.by_index), answers, len(self._members))
        began = time.monotonic()
        for member in self._members:
            member.since = began
        try:
            while self._seat_all(work, shared):
                for member in self._ready():
                    yield self._step(member, work, shared)
        finally:
            self._leave(shared, began)

    def _seat_all(self, work: Sequence[Request], shared: Shared) -> bool:
        """Give idle replicas something to draw; whether anything is still to come."""
        for number, member in enumerate(self._members):
            if member.coming is not None and member.coming.done():
                self._arrive(member)
                self.account.missing += time.monotonic() - member.since
                member.since = time.monotonic()
            if member.replica is not None and member.rows is None and shared.left:
                part = Part(shared, number)
                member.rows = member.replica.draw(work, part.take, part)
                self.account.idle += time.monotonic() - member.since
        return bool(shared.left or any(member.rows is not None for member in self._members))

    def _ready(self) -> list[Member]:
        """Those that can go on, or whose replica failed; waits for one for a moment."""
        drawing = [member for member in self._members if member.rows is not None]
        if not drawing:
            time.sleep(GLANCE)
            self._check_stop()
        ready = [member for member in drawing if member.can_go_on(0.0)]
        return ready or list(islice((member for member in drawing if member.can_go_on(GLANCE)), 1))

    def _step(self, member: Member, work: Sequence[Request], shared: Shared) -> list[Completion]:
        """The next answer of a replica that can go on."""
        try:
            found = member.go_on()
        except EngineFailed as error:
            self._replace(member, work, shared, error)
            return []
        if found is None:
            member.rows, member.since = None, time.monotonic()
            return []
        shared.done(found)
        member.finished += len(found)
        return found

    def _replace(self, member: Member, work: Sequence[Request], shared: Shared, error: EngineFailed) -> None:
        assert member.replica is not None
        member.replica.close()
        member.replica = member.rows = None
        self.account.replaced += 1
        second = shared.lost(member.seat.number)
        if second:
            problems = list(dict.fromkeys(work[request].problem.id for request, _ in second))
            more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
            raise EngineFailed(
                f"a second replica died over {len(second)} samples of {', '.join(problems[:NAMED])}{more}; one of "
                f"these may be what kills it: {error}"
            ) from error
        if member.new and not member.finished:
            raise EngineFailed(f"a replica that had taken the place of a dead one died at once: {error}") from error
        member.finished, member.new, member.since = 0, True, time.monotonic()
        member.coming = self._threads.submit(self._opening, member.seat, self._checkpoint)

    def _arrive(self, member: Member) -> None:
        """The replica of a seat is there; raises what kept it from starting."""
        coming, member.coming = member.coming, None
        assert coming is not None
        member.replica = coming.result()
        member.replica.while_waiting(self._check_stop)

    def _wait(self) -> None:
        """Wait for all that are coming."""
        for member in self._members:
            if member.coming is not None:
                self._arrive(member)

    def _leave(self, shared: Shared, began: float) -> None:
        """Nobody listens any more; what is under way must not answer the next work list."""
        ended = time.monotonic()
        for member in self._members:
            if member.coming is not None:
                self.account.missing += ended - member.since
            elif member.rows is None:
                self.account.idle += ended - member.since
            else:
                with suppress(EngineFailed):  # It is found dead when it is asked again.
                    member.rows.close()  # type: ignore[attr-defined]
                member.rows = None
        self.account.seconds += ended - began
        self.account.redone += shared.redone
        self.account.twice += shared.twice

    @property
    def replicas(self) -> list[Replica]:
        """Those that are there."""
        return [member.replica for member in self._members if member.replica is not None]
