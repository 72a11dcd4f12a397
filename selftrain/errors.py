"""What stops a run, and what becomes of the errors of engines, devices and servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")


class RunError(RuntimeError):
    """The run cannot go on; the message says what to do."""


class NoRoom(RunError):
    """No machine has room for a process."""


class StaleStage(RunError):
    """A finished stage does not fit the config it is resumed with."""


class NotHere(ValueError):
    """This machine lacks what is asked for; another may have it."""


def failing_as_run_error(items: Iterator[Item], who: str) -> Iterator[Item]:
    """What an iterator yields; what engines, devices and servers fail with becomes a `RunError` that names who."""
    try:
        yield from items
    except RunError:
        raise
    except (RuntimeError, ValueError, ConnectionError, TimeoutError) as error:
        raise RunError(
            f"{who} failed: {type(error).__name__}: {error}; when it is mended, the same command goes on from here "
            "(--debug shows where it failed)"
        ) from error
