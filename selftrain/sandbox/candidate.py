"""Inside the sandbox: a program nobody trusts, run from its text.

As a *module* its functions are called by messages, and results go back in the encoding of `codec`. The program shares
this interpreter and may change all of it; it then lies about its own results, which it may do anyway. Nothing here
knows what is expected of it.

As a *script* it reads standard input and writes standard output, as ``python solution.py`` would.
"""

from __future__ import annotations

import os
import random
import sys
import types
from itertools import islice
from typing import Any

from selftrain.sandbox.codec import Malformed, Unsendable, decode, described, encode, receive, send

ITEMS = 1_000_000
"""Items taken from an iterator at most."""
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

    def keep(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    while True:
        try:
            operation, *operands = receive(requests)
        except EOFError:
            return
        try:
            value = answer(operation, [decode(operand, kept.__getitem__) for operand in operands], names)
            reply = ["value", encode(value, keep)]
        except (Unsendable, Malformed):
            raise
        except BaseException as error:  # As above.
            reply = ["raised", *described(error)]
        send(replies, reply)


def answer(operation: str, operands: list[Any], names: dict[str, Any]) -> Any:
    if operation == "call":
        function, args, named = operands
        return function(*args, **named)
    if operation == "name":
        return (True, names[operands[0]]) if operands[0] in names else (False, None)
    if operation == "attribute":
        return getattr(*operands)
    if operation == "assign":
        return setattr(*operands)
    if operation == "item":
        return operands[0][operands[1]]
    if operation == "length":
        return len(operands[0])
    if operation == "truth":
        return bool(operands[0])
    return list(islice(iter(operands[0]), ITEMS))
