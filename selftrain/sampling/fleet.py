"""Several replicas of a sampler that draw one work list together.

Each is a process, on GPUs of its own where there are any, and takes the next samples whenever it has room
(`selftrain.sampling.sharing`). One that dies is replaced while the others go on, and what it held is drawn once more,
from the same seeds; where no machine has room for another, its seat stays empty. A sample follows from its request and
its seed, never from who drew it, as far as the engine keeps to that: `transformers` batches are the same whoever draws
them, and in vLLM, whose batches are made as requests come, neighbours may turn the last bits of a distribution, as they
do in a single engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path

from selftrain.errors import NoRoom
from selftrain.sampling.base import ALL, Answers, Completion, Request
from selftrain.sampling.replica import Account, Kind, Member, Open, Replica
from selftrain.sampling.seats import Seat
from selftrain.sampling.sharing import Part, Shared
from selftrain.sampling.vllm_process import EngineFailed
from selftrain.workers import MachineLost

GLANCE = 0.005
"""Seconds one replica is waited for before the next is looked at."""
NAMED = 3
"""Problems that a message names."""


class Fleet:
    """Replicas as one `Sampler`.

    Args:
        kind: options of the sampler.
        opening: starts the replica of a seat with the weights of a checkpoint.

    Raises:
        EngineFailed, ValueError, OSError: a replica does not start; the others are ended.
        NoRoom: there is room for none.
    """

    def __init__(self, kind: Kind, checkpoint: Path, seats: Sequence[Seat], opening: Open) -> None:
        self._kind, self._checkpoint, self._opening = kind, checkpoint, opening
        self._check_stop: Callable[[], None] = lambda: None
        self._members = [Member(seat) for seat in seats]
        self._threads = ThreadPoolExecutor(len(seats), "replica")
        self.account = Account(len(seats))
        self.failures: list[str] = []
        """Why replicas were replaced."""
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
        except EngineFailed as error:  # Opening it anew tells of it where that fails too.
            self.failures.append(str(error))
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
            NoRoom: the last one died, and there is no place for another.
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
        self.failures.append(str(error))
        blamed = not isinstance(error.__cause__, MachineLost)
        second = shared.lost(member.seat.number, blamed)
        if second:
            problems = list(dict.fromkeys(work[request].problem.id for request, _ in second))
            more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
            raise EngineFailed(
                f"a second replica died over {len(second)} samples of {', '.join(problems[:NAMED])}{more}; one of "
                f"these may be what kills it: {error}"
            ) from error
        if blamed and member.new and not member.finished:
            raise EngineFailed(f"a replica that had taken the place of a dead one died at once: {error}") from error
        member.finished, member.new, member.since = 0, True, time.monotonic()
        member.coming = self._threads.submit(self._opening, member.seat, self._checkpoint)

    def _arrive(self, member: Member) -> None:
        """The replica of a seat is there, or has no place while others have one; raises what kept it from starting."""
        coming, member.coming = member.coming, None
        assert coming is not None
        try:
            member.replica = coming.result()
        except NoRoom:
            self.account.empty += 1
            if not any(other.replica or other.coming for other in self._members):
                raise
            return
        member.replica.while_waiting(self._check_stop)

    def _wait(self) -> None:
        """Wait for all that are coming."""
        for member in self._members:
            if member.coming is not None:
                self._arrive(member)

    def _leave(self, shared: Shared, began: float) -> None:
        """Nobody listens any more; what is under way must not answer the next work list."""
        ended = time.monotonic()
        with ExitStack() as leaving:  # Of all, also where one raises.
            for member in self._members:
                if member.replica is None:
                    self.account.missing += ended - member.since
                elif member.rows is None:
                    self.account.idle += ended - member.since
                else:
                    leaving.enter_context(suppress(EngineFailed))  # It is found dead when it is asked again.
                    leaving.callback(member.rows.close)  # type: ignore[attr-defined]
                    member.rows = None
        self.account.seconds += ended - began
        self.account.redone += shared.redone
        self.account.twice += shared.twice

    @property
    def replicas(self) -> list[Replica]:
        """Those that are there."""
        return [member.replica for member in self._members if member.replica is not None]
