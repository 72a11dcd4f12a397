"""Verifiers that ask others: how they wait for them together.

A verifier made of others, its parts (fields of the types in `selftrain.nested`), is an ``async def __call__`` that asks
them through `ask`, and says ``follows_parts = True``. Where a part is async, so is the whole: as many responses are
under way at once. Where none is, it is judged like any verifier that does not wait, without an event loop.

What does not wait, among parts that do, holds up everybody: such parts judge one after the other, what came in for the
others is looked at in between, and the time a response waits for its turn is not charged to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from selftrain.deadline import delay
from selftrain.judging import judge_of, of_judgement
from selftrain.types import Problem, Verdict


class Turns:
    """Waits of one response for its turns.

    Args:
        lock: one for all responses that are under way together.
    """

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock = lock
        self._waited, self._since = 0.0, 0.0

    @property
    def waited(self) -> float:
        """Seconds it has waited so far."""
        return self._waited + (time.monotonic() - self._since if self._since else 0.0)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Inside, nobody else has a turn, and no part may wait."""
        self._since, before = time.monotonic(), self._waited
        async with self._lock:
            await asyncio.sleep(0)  # Replies to others, and the sign that the loop is alive, have their chance.
            self._waited, self._since = self.waited, 0.0
            delay(self._waited - before)
            token = _TURNS.set(None)
            try:
                yield
            finally:
                _TURNS.reset(token)


_TURNS: ContextVar[Turns | None] = ContextVar("turns", default=None)


def under_way(lock: asyncio.Lock) -> Turns:
    """The response that is begun here is under way with others that share the lock."""
    turns = Turns(lock)
    _TURNS.set(turns)
    return turns


async def ask(verifier: Any, problem: Problem, response: str) -> Verdict | None:
    """What a part says; None where it says that this is none of its problems.

    Whatever it raises is a verdict with the status ``error``, but for MemoryError, which ends the worker.
    """
    judge, turns = judge_of(verifier), _TURNS.get()
    if judge.form in ("async", "parts"):
        return of_judgement(await judge.later(problem, response))
    if turns is None:
        return of_judgement(judge.single(problem, response))
    async with turns.turn():
        return of_judgement(judge.single(problem, response))
