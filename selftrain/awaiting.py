"""Results that must be waited for, in an event loop of this process or beside one."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache
from typing import Any


def settled(result: Any) -> Any:
    """A result, waited for where it is awaitable."""
    if not inspect.isawaitable(result):
        return result
    if not _in_event_loop():
        return event_loop().run(_awaited(result))
    # Called by what does not wait itself, inside what does: another thread waits, always the same.
    context = copy_context()
    return _aside().submit(lambda: _loop_aside().run(_awaited(result), context=context)).result()


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def at_once(coroutine: Coroutine[Any, Any, object]) -> object:
    """The result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("the verifier waits for something, but none of those it is made of is async")


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@lru_cache(maxsize=1)
def event_loop() -> asyncio.Runner:
    """One for the whole process, so that the connections an async verifier keeps stay of use."""
    return asyncio.Runner()


@lru_cache(maxsize=1)
def _aside() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "verifier-aside")


@lru_cache(maxsize=1)
def _loop_aside() -> asyncio.Runner:
    return asyncio.Runner()
