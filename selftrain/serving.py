"""What runs inside a worker process of `selftrain.verification`: chunks of responses in, rows of verdicts out.

A plain verifier judges one response after the other. An async one has several under way, each with its own deadline
inside the event loop. A batched one gets what has come of its task in one call; where that fails as a whole (it raises,
or does not return one verdict for each), it is asked about each response alone. The same happens after a death or an
overrun that nobody knows the culprit of: the parent then sends one response at a time.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selftrain.asking import under_way
from selftrain.awaiting import event_loop
from selftrain.board import GROUP, Board
from selftrain.deadline import ends
from selftrain.judging import OUT_OF_MEMORY, Judge, Judgement, Request, VerifierSpec, failed, load
from selftrain.types import Status
from selftrain.workers import Handler

Row = tuple[Status, float | None, str | None, str | None, str | None, float]
"""A verdict on its way between processes: a judgement and its seconds."""

FLUSH_SECONDS = 0.05
"""A worker keeps finished verdicts back for at most this long; they are judged again where it is killed meanwhile."""
BEATS = 8
"""While async verifiers wait, the event loop shows that it is alive this often within a deadline."""
CANCEL_SECONDS = 0.2
"""Time a cancelled judgement gets to end; a process that keeps one is replaced."""


def serve(specs: Mapping[str, VerifierSpec], fd: int, seconds: float, memory_mb: int) -> Handler:
    """Start-up of a worker; the handler answers a chunk of requests by rows, in one or more lists.

    To an empty chunk it answers with the tasks whose responses are judged together.
    """
    judges = {task: load(spec) for task, spec in specs.items()}
    board = Board(fd)
    os.close(fd)
    _limit(memory_mb)
    desk = _Desk(judges, board, seconds)

    def judge(requests: Sequence[Request]) -> Iterator[list[Row] | list[str]]:
        if not requests:
            yield [task for task, judge in judges.items() if judge.form in ("async", "batch")]
            return
        rows: list[Row] = []
        flushed = time.monotonic()
        for row in desk.rows(requests):
            rows.append(row)
            full = row[:-1] == OUT_OF_MEMORY
            if full or time.monotonic() - flushed > FLUSH_SECONDS:
                yield rows
                rows, flushed = [], time.monotonic()
            if full:
                os._exit(0)  # It may hold on to what filled it; the next response gets a fresh process.
        yield rows
        if desk.spoilt:
            os._exit(0)

    return judge


@dataclass
class _Desk:
    """Where a worker judges; what it is at stands on the board."""

    judges: Mapping[str, Judge]
    board: Board
    seconds: float
    spoilt: bool = False
    """A judgement that was given up goes on."""

    def rows(self, requests: Sequence[Request]) -> Iterator[Row]:
        """In order."""
        position = 0
        for task, run in itertools.groupby(requests, key=lambda request: request.task):
            judge, group = self.judges[task], list(run)
            together = None
            if judge.form == "async":
                together = self._at_once(judge, group, position if len(group) == 1 else GROUP)
            elif judge.form == "batch" and len(group) > 1:
                together = self._batch(judge, group)
            yield from together or (self._single(judge, place, one) for place, one in enumerate(group, position))
            position += len(group)

    def _begin(self, position: int) -> float:
        start = time.monotonic()
        self.board.write(position, start)
        ends(start + self.seconds)
        return start

    def _single(self, judge: Judge, position: int, request: Request) -> Row:
        start = self._begin(position)
        judgement = judge.single(request.problem, request.response)
        took = time.monotonic() - start
        return (*(_overrun(took) if took > self.seconds else judgement), took)

    def _batch(self, judge: Judge, group: Sequence[Request]) -> list[Row] | None:
        """None where it failed as a whole. Each response is charged its share of the time."""
        start = self._begin(GROUP)
        try:
            judgements = judge.batch(group)
        except MemoryError:
            os._exit(0)  # As above; the parent asks again, one by one.
        share = (time.monotonic() - start) / len(group)
        return None if judgements is None else [(*judgement, share) for judgement in judgements]

    def _at_once(self, judge: Judge, group: Sequence[Request], position: int) -> list[Row]:
        try:
            return event_loop().run(self._concurrent(judge, group, position))
        except (MemoryError, SystemExit, KeyboardInterrupt):  # Of a task the verifier started itself.
            os._exit(1)  # The parent asks again, one by one.

    async def _concurrent(self, judge: Judge, group: Sequence[Request], position: int) -> list[Row]:
        gate, lock = asyncio.Semaphore(judge.concurrent), asyncio.Lock()
        beat = asyncio.create_task(self._beat(position))
        try:
            return list(await asyncio.gather(*(self._later(judge, gate, lock, request) for request in group)))
        finally:
            beat.cancel()

    async def _beat(self, position: int) -> None:
        """The parent kills a worker whose event loop stands still for as long as one judgement may take."""
        while True:
            self._begin(position)
            await asyncio.sleep(self.seconds / BEATS)

    async def _later(self, judge: Judge, gate: asyncio.Semaphore, lock: asyncio.Lock, request: Request) -> Row:
        async with gate:
            start, turns = time.monotonic(), under_way(lock)
            ends(start + self.seconds)
            task = asyncio.create_task(judge.later(request.problem, request.response))
            took = 0.0
            while not task.done() and took < self.seconds:
                await asyncio.wait([task], timeout=self.seconds - took)
                took = time.monotonic() - start - turns.waited
            if not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=CANCEL_SECONDS)
                self.spoilt |= not task.done()
                return (*_overrun(took), took)
            judgement = failed(asyncio.CancelledError()) if task.cancelled() else task.result()
            return (*judgement, took)


def _overrun(took: float) -> Judgement:
    return "timeout", None, None, f"took {took:.3g} s", None


def _limit(memory_mb: int) -> None:
    """Bound the address space of this process, and have crashes leave no core dumps."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * resource.getpagesize() + (memory_mb << 20)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or bound < hard:
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
