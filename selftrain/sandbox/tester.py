"""Inside a sandbox of their own: tests, in an interpreter the program under test never touches.

They call its functions over pipes. What comes back is plain data of exact built-in types, or a `Remote`, which stands
for an object that stayed with the program: it has attributes, can be called, passed back, iterated and printed, and
equals nothing. So ``==`` in a test is always Python's own.

One line of JSON for each test goes to the judge, who alone decides what they mean.
"""

from __future__ import annotations

import ast
import json
import os
import random
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from selftrain.sandbox.candidate import DEEP, read_all
from selftrain.sandbox.codec import described
from selftrain.sandbox.names import function, namespace, parsed
from selftrain.sandbox.remote import Gone, Program, Unfit

Test = Callable[[], bool]


def run(fds: list[int]) -> None:
    """Run the tests of a memory file; tell their results, a line each, and that it is over."""
    job, requests, replies, results = fds
    tests = json.loads(read_all(job))

    def tell(**line: Any) -> None:
        os.write(results, json.dumps(line).encode() + b"\n")

    program = Program(requests, replies)
    random.seed(0)
    sys.setrecursionlimit(DEEP)
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
        if program.calls:
            reason = ": ".join(described(error))
            return [lambda: failed(f"before the test: {reason}")]
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
