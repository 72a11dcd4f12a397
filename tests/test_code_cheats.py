"""What a program tries on its verdict, and in vain."""

from __future__ import annotations

import time

import pytest
from sandboxes import ASSERTS, CHECK, GOOD, NEXT, STDIO, calling, judged, level

from selftrain.types import Problem

__all__ = ["level"]

MARKS = (
    r'b"{\"begun\": true}\n{\"test\": 1, \"passed\": true}\n{\"done\": true, \"calls\": 9, \"gone\": null}\nended 0"'
)
WRITING = f"""
import os
def marks():
    for fd in range(256):
        try:
            os.write(fd, {MARKS})
        except OSError:
            pass
"""
EQUAL = """
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 1
    def __bool__(self): return True
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__
"""
CHEATS = {
    "exit at once": "import sys\nsys.exit(0)",
    "exit when called": "import sys\ndef f(x):\n    sys.exit(0)",
    "hard exit at once": "import os\nos._exit(0)",
    "hard exit when called": "import os\ndef f(x):\n    os._exit(0)",
    "atexit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x):\n    raise SystemExit",
    "equal object": f"class Yes:{EQUAL}\ndef f(x):\n    return Yes()",
    "equal int": f"class Yes(int):{EQUAL}\ndef f(x):\n    return Yes(7)",
    "equal str": f"class Yes(str):{EQUAL}\ndef f(x):\n    return Yes('7')",
    "equal list": f"class Yes(list):{EQUAL}\ndef f(x):\n    return Yes([7])",
    "equal in a list": f"class Yes:{EQUAL}\ndef f(x):\n    return [Yes()]",
    "builtins": "import builtins\nbuiltins.AssertionError = SystemExit\nbuiltins.all = builtins.any = lambda *_: True\n"
    "builtins.type = builtins.isinstance = builtins.len = lambda *_: True\ndef f(x):\n    return 7",
    "json": "import json\njson.dumps = lambda *a, **k: '[\"value\", true]'\njson.loads = lambda *a: ['call', 1]\n"
    "def f(x):\n    return 7",
    "marks": f"{WRITING}marks()\ndef f(x):\n    return 7",
    "marks when called": f"{WRITING}def f(x):\n    marks()\n    return 7",
    "length of a message": "import os\nos.write(5, b'\\xff' * 4)\ndef f(x):\n    return 7",
    "deep message": "import os\nm = b'[' * 100000\nos.write(5, len(m).to_bytes(4, 'big') + m)\ndef f(x):\n    return 7",
    "silence": "import os\nos.close(5)\nimport time\ntime.sleep(60)",
    "endless output": "def f(x):\n    while True:\n        print('x' * 1000000)",
    "endless answers": "import os\ndef f(x):\n    while True:\n        os.write(5, b'x' * 65536)",
    "huge answer": "def f(x):\n    return 'x' * (100 << 20)",
    "recursion": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x):\n    return f(x)",
    "recursive answer": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "long program": f"x = {'a' * (10 << 20)!r}\n{GOOD}",
    "NUL": GOOD + "\0",
    "surrogate": GOOD + "x = '\ud800'\ny = x.encode()",
    "brackets": "x = " + "(" * 50000 + ")" * 50000,
}


@pytest.mark.parametrize("asked", [NEXT, ASSERTS, CHECK], ids=["calls", "asserts", "check"])
@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_is_wrong(cheat: str, asked: Problem) -> None:
    began = time.monotonic()
    verdict = judged(CHEATS[cheat], asked, seconds=1.0)
    assert (verdict.status, verdict.value) == ("wrong", 0.0), verdict
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("cheat", ["exit at once", "hard exit at once", "marks", "endless output", "recursion", "NUL"])
def test_a_script_that_cheats_is_wrong(cheat: str) -> None:
    program = CHEATS[cheat] + ("\nf(1)" if "def f" in CHEATS[cheat] else "")
    assert judged(program, STDIO, seconds=2.0).status == "wrong"


def test_endless_output_of_a_script_is_bounded() -> None:
    verdict = judged("while True:\n    print('x' * 1000000)", STDIO)
    assert verdict.status == "wrong"
    assert "exit status 1: OSError" in str(verdict.reason)


def test_what_is_expected_is_nowhere_in_the_program(level: str) -> None:
    secret = 918273645
    searching = """
import gc, os, sys
SECRET = "".join(reversed("546372819"))
def numbers():
    seen = {id(numbers.__globals__)}
    todo = [sys._getframe(), *gc.get_objects(), *sys.modules.values(), os.environ, sys.argv]
    frame = sys._getframe()
    while frame:
        todo += [frame.f_locals, frame.f_globals]
        frame = frame.f_back
    while todo and len(seen) < 200000:
        thing = todo.pop()
        if id(thing) not in seen:
            seen.add(id(thing))
            if isinstance(thing, int) and 900000000 < thing < 10 ** 9:
                return thing
            if thing is not SECRET and isinstance(thing, (str, bytes)) and len(thing) < 10000 and SECRET in str(thing):
                return int(SECRET)
            todo += gc.get_referents(thing)
    for fd in range(256):
        try:
            if SECRET.encode() in os.pread(fd, 100000, 0):
                return int(SECRET)
        except OSError:
            pass
def f(x):
    return numbers()
"""
    verdict = judged(searching, calling(([0], secret)), seconds=8.0)
    assert (verdict.status, verdict.reason) == ("wrong", "0 of 1 tests passed; test 1: another result")
