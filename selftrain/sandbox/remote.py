"""Inside the sandbox of the tests: the program under test, and its objects, at the other end of two pipes."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any, NoReturn

from selftrain.sandbox.codec import Malformed, Unsendable, decode, encode, receive, send


class Gone(BaseException):
    """The program ended or broke off; no test can catch it with ``except Exception``."""


class Unfit(BaseException):
    """The tests cannot be used; that is no failure of the program."""


class ProgramError(Exception):
    """Stands for an exception of a type that is no built-in one."""


class Remote:
    """An object of the program."""

    __slots__ = ("_handle", "_program")

    def __init__(self, program: Program, handle: int) -> None:
        object.__setattr__(self, "_program", program)
        object.__setattr__(self, "_handle", handle)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._program.ask("call", self, args, named)

    def __getattr__(self, name: str) -> Any:
        return self._program.ask("attribute", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._program.ask("assign", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._program.ask("item", self, key)

    def __len__(self) -> int:
        length = self._program.ask("length", self)
        return length if type(length) is int else self._no_data()

    def __bool__(self) -> bool:
        truth = self._program.ask("truth", self)
        return truth if type(truth) is bool else self._no_data()

    def __iter__(self) -> Iterator[Any]:
        items = self._program.ask("items", self)
        return iter(items) if type(items) is list else self._no_data()

    def _no_data(self, *_: Any) -> Any:
        raise TypeError("the program returned an object that is no plain data")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _no_data


class Program:
    """The program at the other end of two pipes."""

    def __init__(self, requests: int, replies: int) -> None:
        self._requests, self._replies = requests, replies
        self.gone: str | None = None
        self.calls = 0

    def start(self) -> None:
        """Wait until it is loaded; raises Gone where it is not."""
        kind, *rest = self._reply()
        if kind != "ready":
            where = "is no Python program" if kind == "unreadable" else "failed when it was loaded"
            self.break_off(f"the program {where}: {': '.join(map(str, rest))}")

    def hello(self) -> None:
        """The first message is sent before any foreign code is read."""
        if self._reply() != ["hello"]:
            self.break_off("the program did not start")

    def name(self, name: str) -> tuple[bool, Any]:
        found = self.ask("name", name)
        if type(found) is not tuple or len(found) != 2 or type(found[0]) is not bool:
            self.break_off("the program wrote where its answers go")
        return found[0], found[1]

    def ask(self, operation: str, *operands: Any) -> Any:
        self.calls += operation == "call"
        if self.gone is not None:
            raise Gone
        try:
            message = [operation, *(encode(operand, self._handle) for operand in operands)]
        except (Unsendable, RecursionError) as error:
            raise Unfit(f"the tests pass what cannot be sent to a program: {error}") from error
        try:
            send(self._requests, message)
        except BrokenPipeError:
            self.break_off("the program ended")
        kind, *rest = self._reply()
        if kind == "value" and len(rest) == 1:
            return self._value(rest[0])
        if kind == "raised" and len(rest) == 2:
            raise raised(str(rest[0]), str(rest[1]))
        self.break_off("the program wrote where its answers go")

    def _reply(self) -> list[Any]:
        try:
            reply = receive(self._replies)
        except EOFError:
            self.break_off("the program ended")
        except Malformed:
            reply = None
        if type(reply) is not list or not reply:
            self.break_off("the program wrote where its answers go")
        return list(reply)

    def _value(self, data: Any) -> Any:
        try:
            return decode(data, lambda handle: Remote(self, handle))
        except Malformed:
            self.break_off("the program wrote where its answers go")

    def _handle(self, value: Any) -> int:
        if type(value) is not Remote:
            raise Unsendable(f"a {type(value).__name__} is no plain data")
        handle: int = object.__getattribute__(value, "_handle")
        return handle

    def break_off(self, reason: str) -> NoReturn:
        self.gone = reason
        raise Gone


def raised(name: str, text: str) -> Exception:
    """The built-in exception of that name, else a `ProgramError`."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:  # UnicodeError and its like are made of more than a text.
            pass
    return ProgramError(f"{name}: {text}")
