"""Inside the sandbox of the tests: what a call of the program does there beside its result."""

from __future__ import annotations

import builtins
from collections import deque
from typing import Any


class ProgramError(Exception):
    """Stands for an exception of a type that is no built-in one."""


def raised(name: str, text: str, kin: str) -> Exception:
    """The built-in exception an exception is or extends, else a `ProgramError`.

    What ends a loop of a test is one too: ``all(map(f, ...))`` would be true of a function that raises StopIteration.
    """
    kind = getattr(builtins, kin, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UNHEARD):
        try:
            return kind(text)
        except TypeError:  # UnicodeError and its like are made of more than a text.
            pass
    return ProgramError(f"{name}: {text}")


UNHEARD = (StopIteration, StopAsyncIteration)


def change(old: Any, new: Any) -> Any:
    """Make a value of a test what the program made of its copy, in place where that can be."""
    if isinstance(old, list) and type(new) is list:
        old[:] = [*map(change, old, new), *new[len(old) :]]
    elif isinstance(old, dict) and type(new) is dict:
        merged = {key: change(old[key], item) if key in old else item for key, item in new.items()}
        old.clear()
        old.update(merged)
    elif isinstance(old, set) and type(new) is set:
        old.clear()
        old.update(new)
    elif isinstance(old, bytearray) and type(new) is bytearray:
        old[:] = new
    elif isinstance(old, deque) and type(new) is deque:
        old.clear()
        old.extend(new)
    elif isinstance(old, tuple) and type(new) is tuple:
        list(map(change, old, new))
    else:
        return new
    return old
