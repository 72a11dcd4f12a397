"""Inside the sandbox: a program nobody trusts, run from its text.

As a *module* its functions are called by messages, and results go back in the encoding of `codec`. The program shares
this interpreter and may change all of it; it then lies about its own results, which it may do anyway. Nothing here
knows what is expected of it.

As a *script* it reads standard input and writes standard output, as ``python solution.py`` would.
"""

from __future__ import annotations

import operator
import os
import random
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selftrain.sandbox.codec import Malformed, Unsendable, decode, described, encode, receive, reported, send

DEEP = 5000
"""Python calls within each other while a result is written down, or read: three for each level of nesting."""
NAME = "solution"
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
"""What compiling hostile text raises."""


def read_all(fd: int) -> str:
    """The text of a memory file."""
    with open(fd, "rb") as file:
        file.seek(0)
        return file.read().decode("utf-8", "surrogatepass")


def texts(fd: int) -> list[str]:
    """What the program goes on from, and the program; a NUL stands between them."""
    prefix, _, program = read_all(fd).partition("\0")
    return [text for text in (prefix, program) if text]


def run_script(fds: list[int]) -> None:
    """Run the program of a memory file; returns, or raises SystemExit, as it ends."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = [f"{NAME}.py"]
    random.seed(0)
    for text in texts(fds[0]):
        exec(compile(text, f"{NAME}.py", "exec", dont_inherit=True), module.__dict__)


def run_module(fds: list[int]) -> None:
    """Run the program of a memory file, then answer messages until nobody asks."""
    source, requests, replies = fds
    send(replies, ["hello"])
    module = types.ModuleType(NAME)
    sys.modules[NAME] = module
    random.seed(0)
    try:
        codes = [compile(text, f"{NAME}.py", "exec", dont_inherit=True) for text in texts(source)]
    except UNREADABLE as error:
        return send(replies, ["unreadable", *described(error)])
    try:
        for code in codes:
            exec(code, module.__dict__)
    except BaseException as error:  # sys.exit() too: whatever a program does when it is loaded is its own failure.
        return send(replies, ["raised", *described(error)])
    send(replies, ["ready"])
    serve(requests, replies, module.__dict__)
    os._exit(0)


def serve(requests: int, replies: int, names: dict[str, Any]) -> None:
    kept: list[Any] = []
    places: dict[int, int] = {}

    def keep(value: Any) -> int:
        place = places.setdefault(id(value), len(kept))
        if place == len(kept):
            kept.append(value)
        return place

    while True:
        try:
            operation, *operands = receive(requests)
        except EOFError:
            return
        try:
            given = [decode(operand, kept.__getitem__) for operand in operands]
            value = answer(operation, given, names)
            with deep():
                reply = ["value", encode(value, keep)]
                if operation == "call" and value is None:
                    reply.append(encode(given[1:], keep))  # What works in place returns None.
        except (Unsendable, Malformed):
            raise
        except BaseException as error:  # As above.
            reply = ["raised", *reported(error)]
        with deep():
            send(replies, reply)


@contextmanager
def deep() -> Iterator[None]:
    """Room for the recursion of our own that results need; the program's own bound is as it was."""
    bound = sys.getrecursionlimit()
    sys.setrecursionlimit(max(bound, DEEP))
    try:
        yield
    finally:
        sys.setrecursionlimit(bound)


def following(iterator: Any, number: int) -> tuple[list[Any], list[str] | None]:
    """The next items, and why there are no more: nothing where there may be, else what was raised, if anything."""
    items: list[Any] = []
    try:
        for _ in range(number):
            items.append(next(iterator))
    except StopIteration:
        return items, []
    except BaseException as error:  # As above.
        return items, reported(error)
    return items, None


def answer(operation: str, operands: list[Any], names: dict[str, Any]) -> Any:
    if operation == "call":
        function, args, named = operands
        return function(*args, **named)
    if operation in OPERATIONS:
        return OPERATIONS[operation](*operands)
    if operation == "name":
        return (True, names[operands[0]]) if operands[0] in names else (False, None)
    raise Malformed(operation)


OPERATIONS: dict[str, Any] = {
    "attribute": getattr,
    "assign": setattr,
    "item": operator.getitem,
    "put": operator.setitem,
    "remove": operator.delitem,
    "length": len,
    "truth": bool,
    "text": format,
    "shown": repr,
    "instance": isinstance,
    "iterator": iter,
    "following": following,
    "enter": lambda context: type(context).__enter__(context),
    "leave": lambda context: type(context).__exit__(context, None, None, None),
}
"""What is done with objects that stay here. Nothing of it compares: then the program would be told what is expected."""
