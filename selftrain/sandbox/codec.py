"""Values on their way between a program nobody trusts and those who judge it: a closed encoding in JSON.

Only exact built-in types come out of `decode`, whatever wrote the text: no object, method or ``__eq__`` of the writer
survives the trip. Subclasses are sent as the built-in they extend (a ``Counter`` as a dict); anything else is left
where it is and stands in the text as the number of a handle.

JSON's own null, booleans, floats, strings and short integers stand for themselves, everything else is a list that
begins with a tag.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
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
        items = [(encode(key, keep), encode(item, keep)) for key, item in dict.items(value)]
        return ["d", items]
    for tag, kind in SEQUENCES.items():
        if isinstance(value, kind):
            return [tag, [encode(item, keep) for item in kind.__iter__(value)]]
    if isinstance(value, (bytes, bytearray)):
        return ["b" if isinstance(value, bytes) else "a", bytes(memoryview(value)).hex()]
    if isinstance(value, complex):
        return ["c", float(value.real), float(value.imag)]
    return ["h", keep(value)]


SEQUENCES: dict[str, Any] = {"l": list, "t": tuple, "s": set, "z": frozenset}


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
    except (TypeError, ValueError, KeyError, IndexError) as error:
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
    except (ValueError, RecursionError) as error:
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
