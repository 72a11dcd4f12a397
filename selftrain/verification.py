"""Judge responses with any verifier, in worker processes that are killed when they overrun.

A verifier is a callable ``(Problem, response) -> Verdict | float | bool`` (`selftrain.judging` says what else it may
be). Whatever it does, hang (in C code too), raise, exhaust memory, exit, kill its parent, or return nonsense, costs the
one response it was judging: that one gets the status ``timeout`` or ``error``, never a silent ``wrong``, and the worker
is replaced.

Responses travel in chunks. The worker writes the position it is at, and since when, on a small shared *board*, so
that the parent can enforce the deadline of a single response without a message for each. Where a worker dies over
several responses that it judged together, the rest of the chunk is sent one by one, so that the culprit is known.
"""

from __future__ import annotations

import os
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from selftrain import board, registry
from selftrain.board import GROUP, READING, Board
from selftrain.judging import Request, VerifierError, VerifierSpec
from selftrain.serving import Row
from selftrain.types import Verdict
from selftrain.workers import Worker, WorkerDied

START_SECONDS = 300.0
"""Longest start-up of a worker: import and construction of all verifiers."""
CHUNK_ITEMS = 64
CHUNK_CHARACTERS = 1 << 20
CHUNK_SECONDS = 0.1
"""Chunks shrink so that one takes about this long: slow verifiers share the work evenly."""
READ_SECONDS = 10.0
"""Time a worker gets to read a chunk, beyond the deadline of one response."""


class Seated(Protocol):
    """The place of one worker, wherever it is."""

    def wait_ready(self) -> None:
        """Return when its worker has loaded all verifiers; raises what kept it from that."""

    def together(self) -> frozenset[str]:
        """Tasks whose responses are judged together."""

    def judge(self, requests: Sequence[Request]) -> list[Row]:
        """A row per request, in order."""

    def stop(self) -> None:
        """Kill the worker and let no other do any work; from any thread."""

    def close(self) -> None:
        """Free what is held, once it is stopped and nobody judges."""


Specs = Mapping[str, VerifierSpec]
Put = Callable[[Specs, int, float, int], Iterable[Seated]]
"""Starts so many workers, with the deadline and the memory of `VerifierPool`."""


class VerifierPool:
    """Worker processes that judge responses; a context manager.

    Args:
        verifiers: the verifier of each task.
        workers: number of processes; each loads all verifiers and keeps them until the pool is closed.
        seconds: wall-clock deadline of one judgement; start-up is not charged to it.
        memory_mb: address space a worker may take beyond what it has after start-up, in MiB.
        put: starts them elsewhere; None: on this machine.

    Raises:
        VerifierError: on entering, where a verifier does not load.
    """

    def __init__(
        self,
        verifiers: Mapping[str, VerifierSpec],
        *,
        workers: int = 2,
        seconds: float = 10.0,
        memory_mb: int = 2048,
        put: Put | None = None,
    ) -> None:
        self._put = put or here
        self._specs = {task: replace(spec, options=dict(spec.options)) for task, spec in verifiers.items()}
        self._workers, self._seconds, self._memory_mb = workers, seconds, memory_mb
        self._seats: list[Seated] = []
        self._free: queue.SimpleQueue[Seated] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(workers, "verifier")
        self._pace = CHUNK_SECONDS / 8
        """Running mean of the seconds of one judgement."""
        self._together: frozenset[str] = frozenset()
        """Tasks whose responses are judged together: their chunks are full, however long they take."""

    def __enter__(self) -> VerifierPool:
        try:
            self._seats.extend(self._put(self._specs, self._workers, self._seconds, self._memory_mb))
            for seat in self._seats:
                seat.wait_ready()
                self._free.put(seat)
            self._together = self._seats[0].together()
        except BaseException:
            self.__exit__()
            raise
        return self

    def stop(self) -> None:
        """End every worker at once, from any thread: who waits for verdicts gets a RuntimeError, now and later."""
        for seat in self._seats:
            seat.stop()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for seat in self._seats:
            seat.close()

    def judge(self, requests: Iterable[Request]) -> Iterator[Verdict]:
        """A verdict per request, in order, as they come; memory stays bounded. From any thread, several at once."""
        if not self._seats:
            raise RuntimeError("the pool has no workers yet: use it as `with VerifierPool(...) as pool:`")
        window: deque[Future[list[Verdict]]] = deque()
        try:
            for chunk in self._chunks(requests):
                window.append(self._threads.submit(self._judge, chunk))
                while window and (len(window) >= 8 * self._workers or window[0].done()):
                    yield from window.popleft().result()
            while window:
                yield from window.popleft().result()
        finally:
            for future in window:
                future.cancel()

    def _chunks(self, requests: Iterable[Request]) -> Iterator[list[Request]]:
        chunk: list[Request] = []
        characters = 0
        for request in requests:
            if request.task not in self._specs:
                near = registry.nearest(request.task, self._specs)
                raise VerifierError(f"no verifier for task '{request.task}' ({near})")
            chunk.append(request)
            characters += len(request.response)
            items = CHUNK_ITEMS if request.task in self._together else CHUNK_SECONDS / self._pace
            if len(chunk) >= min(CHUNK_ITEMS, items) or characters >= CHUNK_CHARACTERS:
                yield chunk
                chunk, characters = [], 0
        if chunk:
            yield chunk

    def _judge(self, chunk: list[Request]) -> list[Verdict]:
        seat = self._free.get()
        try:
            rows = seat.judge(chunk)
        finally:
            self._free.put(seat)
        alone = [row[-1] for request, row in zip(chunk, rows, strict=True) if request.task not in self._together]
        if alone:
            self._pace = max(1e-6, 0.7 * self._pace + 0.3 * sum(alone) / len(alone))
        return [_verdict(row, self._specs[request.task].label) for request, row in zip(chunk, rows, strict=True)]


def _verdict(row: Row, label: str) -> Verdict:
    status, value, answer, reason, by, seconds = row
    return Verdict(status, value, answer, reason, seconds, label, by)


def here(specs: Specs, count: int, seconds: float, memory_mb: int) -> Iterator[Seat]:
    """Workers of this machine."""
    return (Seat(specs, seconds, memory_mb) for _ in range(count))


class Seat:
    """The place of a worker of this machine: hands it chunks, replaces it when it dies or overruns."""

    def __init__(self, specs: Specs, seconds: float, memory_mb: int) -> None:
        self._specs, self._seconds, self._memory_mb = specs, seconds, memory_mb
        self._fd = os.memfd_create("selftrain-verifier")
        os.ftruncate(self._fd, board.BYTES)
        self._board = Board(self._fd)
        self._stopped = False
        self._worker = self._start()

    def _start(self) -> Worker:
        self._ready = False
        arguments = (self._specs, self._fd, self._seconds, self._memory_mb)
        return Worker("selftrain.serving:serve", *arguments, fds=[self._fd])

    def wait_ready(self) -> None:
        self._check_open()
        if not self._ready:
            self._worker.wait_ready(START_SECONDS)
            self._ready = True

    def together(self) -> frozenset[str]:
        """Tasks whose responses are judged together."""
        self._worker.send([])
        return frozenset(self._worker.receive())

    def stop(self) -> None:
        """Kill the worker and let no other do any work; from any thread."""
        self._stopped = True
        self._worker.kill()

    def close(self) -> None:
        self._worker.close()
        self._board.close()
        os.close(self._fd)

    def judge(self, requests: Sequence[Request]) -> list[Row]:
        rows: dict[int, Row] = {}
        failures = 0
        one_by_one = False
        while todo := [index for index in range(len(requests)) if index not in rows]:
            asked = todo[:1] if one_by_one else todo
            judged, death = self._attempt([requests[index] for index in asked])
            self._check_open()
            if death is not None:
                one_by_one = one_by_one or self._board.read()[0] == GROUP
                self._worker.close()
                self._worker = self._start()
                failures = 0 if judged else failures + 1
                if failures == 3:  # It dies before it comes to any response: nothing to learn from more attempts.
                    judged, failures = {0: ("error", None, None, death, None, 0.0)}, 0
            rows |= {todo[position]: row for position, row in judged.items()}
        return [rows[index] for index in range(len(requests))]

    def _attempt(self, requests: Sequence[Request]) -> tuple[dict[int, Row], str | None]:
        """Rows by position, and how the worker died where it did; some rows are missing then."""
        self.wait_ready()
        rows: list[Row] = []
        self._board.write(READING, time.monotonic() + READ_SECONDS)
        try:
            self._worker.send(requests)
            while len(rows) < len(requests):
                if self._worker.poll(min(self._seconds, max(0.0, self._left()))):
                    rows += self._worker.receive()
                elif self._left() <= 0:
                    self._worker.kill()  # The board stands still now; what was sent before can still be received.
        except WorkerDied:
            death = f"the worker process {self._worker.kill()}"
            return dict(enumerate(rows)) | self._culprit(len(rows), death), death
        return dict(enumerate(rows)), None

    def _culprit(self, received: int, death: str) -> dict[int, Row]:
        position, since = self._board.read()
        if position < received:  # It died between two responses, or of an earlier one.
            return {}
        seconds = time.monotonic() - since
        if seconds >= self._seconds:
            return {position: ("timeout", None, None, f"killed after {seconds:.3g} s", None, seconds)}
        return {position: ("error", None, None, death, None, seconds)}

    def _check_open(self) -> None:
        if self._stopped:
            raise RuntimeError("the verifier pool was closed while it was judging")

    def _left(self) -> float:
        """Seconds until the response the worker is at overruns."""
        _, since = self._board.read()
        return since + self._seconds - time.monotonic()
