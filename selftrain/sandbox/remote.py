"""Inside the sandbox of the tests: the program under test, and its objects, at the other end of two pipes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

from selftrain.sandbox.codec import CLIPPED, Malformed, Unsendable, decode, encode, receive, send
from selftrain.sandbox.returned import change, raised

T = TypeVar("T")

CHUNK = 1024
"""Items of an iterator that are asked for at once, at most."""
NONSENSE = "the program wrote where its answers go"


class Gone(BaseException):
    """The program ended or broke off; no test can catch it with ``except Exception``."""


class Unfit(BaseException):
    """The tests cannot be used; that is no failure of the program."""


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

    def __setitem__(self, key: Any, value: Any) -> None:
        self._program.ask("put", self, key, value)

    def __delitem__(self, key: Any) -> None:
        self._program.ask("remove", self, key)

    def __len__(self) -> int:
        return self._of(int, "length", self)

    def __bool__(self) -> bool:
        return self._of(bool, "truth", self)

    def __format__(self, form: str) -> str:
        return self._of(str, "text", self, form)

    def __str__(self) -> str:
        return self._of(str, "text", self, "")

    def __repr__(self) -> str:
        return self._of(str, "shown", self)

    def __instancecheck__(self, instance: Any) -> bool:
        return self._of(bool, "instance", instance, self)

    def __enter__(self) -> Any:
        return self._program.ask("enter", self)

    def __exit__(self, *_: Any) -> None:
        """What a test raises is not the program's to suppress."""
        self._program.ask("leave", self)

    def __iter__(self) -> Iterator[Any]:
        items: Iterator[Any] = self._program.items(self._of(Remote, "iterator", self))
        return items

    def __next__(self) -> Any:
        more, item = self._program.following(self, 1)
        if more:
            return item
        raise StopIteration

    def _of(self, kind: type[T], *question: Any) -> T:
        found: T = self._program.ask(*question)
        if type(found) is not kind:
            self._no_data()
        return found

    def _no_data(self, *_: Any) -> Any:
        raise TypeError("the program returned an object that is no plain data")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _no_data


class Program:
    """The program at the other end of two pipes."""

    def __init__(self, requests: int, replies: int) -> None:
        self._requests, self._replies = requests, replies
        self._known: dict[int, Remote] = {}
        self._ahead: dict[int, deque[tuple[bool, Any]]] = {}
        self.gone: str | None = None
        self.calls = 0

    def start(self) -> None:
        """Wait until it is loaded; raises Gone where it is not."""
        kind, *rest = self._reply()
        if kind != "ready":
            where = "is no Python program" if kind == "unreadable" else "failed when it was loaded"
            words = [word[:CLIPPED] for word in rest if type(word) is str]
            self.break_off(f"the program {where}: {': '.join(words)}")

    def hello(self) -> None:
        """The first message is sent before any foreign code is read."""
        if self._reply() != ["hello"]:
            self.break_off("the program did not start")

    def name(self, name: str) -> tuple[bool, Any]:
        try:
            found = self.ask("name", name)
        except Exception:  # A name raises nothing, unless the program meddles.
            self.break_off(NONSENSE)
        if type(found) is not tuple or len(found) != 2 or type(found[0]) is not bool:
            self.break_off(NONSENSE)
        return found[0], found[1]

    def items(self, iterator: Remote) -> Iterator[Any]:
        """One, then more at a time, so that an endless iterator serves as well as a long one."""
        number = 1
        while True:
            more, item = self.following(iterator, number)
            if not more:
                return
            yield item
            number = min(2 * number, CHUNK)

    def following(self, iterator: Remote, number: int) -> tuple[bool, Any]:
        """The next item of an iterator, if there is one; what was asked for and not yet wanted is kept for later."""
        ahead = self._ahead.setdefault(self._handle(iterator), deque())
        if not ahead:
            found = self.ask("following", iterator, number)
            if type(found) is not tuple or len(found) != 2 or type(found[0]) is not list:
                self.break_off(NONSENSE)
            ahead.extend((True, item) for item in found[0])
            if found[1] is not None or not ahead:
                ahead.append((False, found[1]))
        more, item = ahead.popleft()
        if not more and item:
            raise raised(*self._three(item))
        return more, item

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
        if kind == "raised":
            raise raised(*self._three(rest))
        if kind != "value" or len(rest) not in (1, 2):
            self.break_off(NONSENSE)
        if len(rest) == 2:
            change(list(operands[1:]), self._value(rest[1]))
        return self._value(rest[0])

    def _three(self, words: Any) -> list[str]:
        if type(words) is not list or len(words) != 3 or any(type(word) is not str for word in words):
            self.break_off(NONSENSE)
        return [word[:CLIPPED] for word in words]

    def _reply(self) -> list[Any]:
        try:
            reply = receive(self._replies)
        except EOFError:
            self.break_off("the program ended")
        except Malformed:
            reply = None
        if type(reply) is not list or not reply:
            self.break_off(NONSENSE)
        return list(reply)

    def _value(self, data: Any) -> Any:
        try:
            return decode(data, self._remote)
        except Malformed:
            self.break_off(NONSENSE)

    def _remote(self, handle: int) -> Remote:
        return self._known.setdefault(handle, Remote(self, handle))

    def _handle(self, value: Any) -> int:
        if type(value) is not Remote:
            raise Unsendable(f"a {type(value).__name__} is no plain data")
        handle: int = object.__getattribute__(value, "_handle")
        return handle

    def break_off(self, reason: str) -> NoReturn:
        self.gone = reason[: 2 * CLIPPED]
        raise Gone
