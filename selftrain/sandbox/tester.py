"""Inside a sandbox of their own: tests, in an interpreter the program under test never touches.

They call its functions over pipes. What comes back is plain data of exact built-in types, or a `Remote`, which stands
for an object that stayed with the program: it has attributes, can be called, passed back and iterated, and equals
nothing. So ``==`` in a test is always Python's own.

One line of JSON for each test goes to the judge, who alone decides what they mean.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

from selftrain.sandbox.candidate import read_all
from selftrain.sandbox.codec import Malformed, Unsendable, decode, described, encode, receive, send

BUILTINS = frozenset(dir(builtins))


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


Test = Callable[[], bool]


def run(fds: list[int]) -> None:
    """Run the tests of a memory file; tell their results, a line each, and that it is over."""
    job, requests, replies, results = fds
    tests = json.loads(read_all(job))

    def tell(**line: Any) -> None:
        os.write(results, json.dumps(line).encode() + b"\n")

    program = Program(requests, replies)
    random.seed(0)
    try:
        try:
            program.hello()
            tell(begun=True)
            program.start()
            cases = CASES[tests["kind"]](program, tests)
            for number, case in enumerate(cases, 1):
                passed, reason = outcome(case)
                if program.gone is not None:
                    break
                tell(test=number, passed=passed, reason=reason)
        except Gone:
            pass
        tell(done=True, calls=program.calls, gone=program.gone)
    except Unfit as error:
        tell(unfit=str(error))
    os._exit(0)


def outcome(case: Test) -> tuple[bool, str | None]:
    """Whether a test passes, and what it raised; never what it compared with."""
    try:
        passed = case()
        return passed, None if passed else "another result"
    except Unfit:
        raise
    except Gone:
        return False, None
    except AssertionError:
        return False, "AssertionError"
    except BaseException as error:  # Tests may raise anything, and call what raises anything.
        return False, ": ".join(described(error))


def asserts(program: Program, tests: dict[str, Any]) -> list[Test]:
    """MBPP: statements, each a test; names they do not define are the program's."""
    sources = [parsed(text, f"test {number}") for number, text in enumerate(tests["tests"], 1)]
    setup = parsed(tests.get("setup", ""), "setup")
    names = namespace(program, setup, sources)

    def executed(tree: ast.Module) -> bool:
        exec(compile(tree, "tests", "exec"), names)
        return True

    loaded, reason = outcome(lambda: executed(setup))
    if not loaded:
        return [lambda: failed(f"setup: {reason}")] * len(sources)
    return [partial(executed, tree) for tree in sources]


def check(program: Program, tests: dict[str, Any]) -> list[Test]:
    """HumanEval: code that defines ``check(candidate)``."""
    tree = parsed(tests["test"], "test")
    names = namespace(program, tree, entry=tests["entry_point"])
    candidate = function(program, tests["entry_point"])
    try:
        exec(compile(tree, "test", "exec"), names)
    except Exception as error:  # Whatever foreign tests raise while they only define things is theirs.
        raise Unfit(f"the tests cannot be loaded: {': '.join(described(error))}") from error
    if not callable(names.get("check")):
        raise Unfit("the tests define no function check(candidate)")
    return [lambda: (names["check"](candidate), True)[1]]


def calls(program: Program, tests: dict[str, Any]) -> list[Test]:
    """Arguments and expected results, as JSON has them."""
    called = function(program, tests["entry_point"])

    def alike(case: dict[str, Any]) -> bool:
        return same(called(*case["args"]), case["expected"])

    return [partial(alike, case) for case in tests["cases"]]


CASES: dict[str, Callable[[Program, dict[str, Any]], list[Test]]] = {"asserts": asserts, "check": check, "calls": calls}


def failed(reason: str) -> bool:
    raise RuntimeError(reason)


def function(program: Program, name: str) -> Any:
    found, value = program.name(name)
    if not found:
        program.break_off(f"the program does not define '{name}'")
    return value


def same(value: Any, expected: Any) -> bool:
    """Equal as JSON data: a bool is no number, a tuple counts as a list, keys are strings."""
    if isinstance(expected, bool) or expected is None:
        return value is expected
    if isinstance(expected, (int, float)):
        return type(value) in (int, float) and value == expected
    if isinstance(expected, list):
        alike = type(value) in (list, tuple) and len(value) == len(expected)
        return alike and all(map(same, value, expected))
    if isinstance(expected, dict):
        if type(value) is not dict or len(value) != len(expected):
            return False
        found = {key if isinstance(key, str) else json.dumps(key): item for key, item in value.items() if plain(key)}
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    return type(value) is str and value == expected


def plain(key: Any) -> bool:
    """What JSON can write as a key."""
    return key is None or type(key) in (str, int, float, bool)


def parsed(text: str, what: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unfit(f"the {what} cannot be read: {': '.join(described(error))}") from error


def namespace(program: Program, setup: ast.Module, tests: Sequence[ast.Module] = (), entry: str = "") -> dict[str, Any]:
    """The globals of tests: modules they use without importing them, and what they take from the program.

    A name that Python has is Python's, so that a program cannot replace ``set`` or ``sorted`` in a test; only where a
    test uses no other name (MBPP has a function called ``sum``) it is the program's.
    """
    trees = [setup, *tests]
    own = set[str]().union(*map(defined, trees))
    wanted = {entry} - {""}
    names: dict[str, Any] = {"__name__": "tests"}
    for tree in trees:
        free = used(tree) - own
        modules = {name for name in free & (sys.stdlib_module_names - BUILTINS) if only_attributes(tree, name)}
        names |= {name: importlib.import_module(name) for name in modules}
        wanted |= free - BUILTINS - modules or (called(tree) & BUILTINS if tree in tests else set())
    for name in sorted(wanted):
        found, value = program.name(name)
        if found:
            names[name] = value
        elif name not in BUILTINS:
            program.break_off(f"the program does not define '{name}'")
    return names


def defined(tree: ast.Module) -> set[str]:
    """Names that code gives a meaning to, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
    return found


def used(tree: ast.Module) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def called(tree: ast.Module) -> set[str]:
    """Names that stand in front of brackets."""
    functions = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {node.id for node in functions if isinstance(node, ast.Name)}


def only_attributes(tree: ast.Module, name: str) -> bool:
    """Whether a name stands nowhere but in front of a dot."""
    owners = [n.value for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
    count = sum(isinstance(node, ast.Name) and node.id == name for node in ast.walk(tree))
    return count == sum(isinstance(owner, ast.Name) and owner.id == name for owner in owners)
