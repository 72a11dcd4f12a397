"""Values on their way between a program nobody trusts and those who judge it: a closed encoding in JSON.

Only exact built-in types come out of `decode`, whatever wrote the text: no object, method or ``__eq__`` of the writer
survives the trip. Subclasses are sent as the built-in they extend (a ``Counter`` as a dict), dates, fractions and other
``VALUES`` as what they are; anything else is left where it is and stands in the text as the number of a handle.

JSON's own null, booleans, floats, strings and short integers stand for themselves, everything else is a list that
begins with a tag.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

MESSAGE_BYTES = 16 << 20
"""Longest message that is read."""
SHORT = 1 << 53
"""Integers below it travel in decimal; longer ones in hexadecimal, which takes linear time."""
CLIPPED = 300
"""Characters of a message of an exception that are kept."""

Keep = Callable[[Any], int]
"""Stores an object and returns its handle."""


class Unsendable(TypeError):
    """A value that is no plain data, where nothing else can be sent."""


class Malformed(ValueError):
    """Bytes that are no message."""


def refuse(value: Any) -> int:
    """A `Keep` that keeps nothing."""
    raise Unsendable(f"a {type(value).__name__} is no plain data")


def encode(value: Any, keep: Keep = refuse) -> Any:
    """What stands for a value in JSON.

    Raises:
        Unsendable: from ``refuse``.
        RecursionError: it is nested too deeply, or holds itself.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        number = int.__add__(value, 0)
        return number if -SHORT < number < SHORT else ["i", hex(number)]
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, dict):
        return ["d", [[encode(key, keep), encode(item, keep)] for key, item in dict.items(value)]]
    for tag, kind in SEQUENCES.items():
        if isinstance(value, kind):
            return [tag, [encode(item, keep) for item in kind.__iter__(value)]]
    return _rare(value) or ["h", keep(value)]


def _rare(value: Any) -> list[Any] | None:
    if isinstance(value, (bytes, bytearray)):
        return ["b" if isinstance(value, bytes) else "a", bytes(memoryview(value)).hex()]
    if isinstance(value, complex):
        return ["c", float(value.real), float(value.imag)]
    for tag, (kind, parts, _) in VALUES.items():
        if isinstance(value, kind):
            return [tag, *map(encode, parts(value))]
    return None


SEQUENCES: dict[str, Any] = {"l": list, "t": tuple, "s": set, "z": frozenset, "q": deque}
VALUES: dict[str, tuple[Any, Callable[[Any], tuple[Any, ...]], Callable[..., Any]]] = {
    "range": (range, lambda v: (v.start, v.stop, v.step), range),
    "decimal": (Decimal, lambda v: (str(v),), Decimal),
    "fraction": (Fraction, lambda v: (v.numerator, v.denominator), Fraction),
    "datetime": (datetime, lambda v: (v.isoformat(),), datetime.fromisoformat),
    "date": (date, lambda v: (v.isoformat(),), date.fromisoformat),
    "timedelta": (timedelta, lambda v: (v.days, v.seconds, v.microseconds), timedelta),
}
"""Tag, type, what a value is made of, and how it is made of that: immutable types of the standard library."""


def decode(data: Any, handle: Callable[[int], Any] | None = None) -> Any:
    """The value that JSON stands for.

    Args:
        handle: makes what represents an object that stayed where it is.

    Raises:
        Malformed: it stands for none.
    """
    if not isinstance(data, list):
        if data is None or type(data) in (bool, int, float, str):
            return data
        raise Malformed("no value")
    try:
        tag, *rest = data
        return _decoded(tag, rest, handle)
    except Malformed:
        raise
    except (TypeError, ValueError, KeyError, IndexError, ArithmeticError) as error:
        raise Malformed(f"no value: {error}") from error


def _decoded(tag: Any, rest: list[Any], handle: Callable[[int], Any] | None) -> Any:
    if tag == "i":
        return int(rest[0], 16)
    if tag == "d":
        return {decode(key, handle): decode(item, handle) for key, item in rest[0]}
    if tag == "b":
        return bytes.fromhex(rest[0])
    if tag == "a":
        return bytearray.fromhex(rest[0])
    if tag == "c":
        return complex(float(rest[0]), float(rest[1]))
    if tag == "h" and handle is not None and type(rest[0]) is int:
        return handle(rest[0])
    if tag in VALUES:
        return VALUES[tag][2](*map(decode, rest))
    return SEQUENCES[tag](decode(item, handle) for item in rest[0])


def send(fd: int, message: Any) -> None:
    """Write one message; raises BrokenPipeError where nobody reads."""
    text = json.dumps(message).encode()
    data = memoryview(len(text).to_bytes(4, "big") + text)
    while data:
        data = data[os.write(fd, data) :]


def receive(fd: int) -> Any:
    """The next message.

    Raises:
        EOFError: there is none.
        Malformed: what came is none.
    """
    size = int.from_bytes(_read(fd, 4), "big")
    if size > MESSAGE_BYTES:
        raise Malformed(f"a message of {size} bytes")
    try:
        return json.loads(_read(fd, size))
    except (ValueError, RecursionError, MemoryError) as error:
        raise Malformed("no JSON") from error


def _read(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = os.read(fd, min(size - len(data), 1 << 16))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def described(error: BaseException) -> list[str]:
    """Type and message of an exception, both short."""
    try:
        text = str(error)
    except Exception:  # Its class may be of the program's own making.
        text = ""
    return [type(error).__name__[:CLIPPED], text[:CLIPPED]]


def reported(error: BaseException) -> list[str]:
    """Type and message, and the built-in type it is or extends, which an ``except`` of a test may name."""
    return [*described(error), next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")]
