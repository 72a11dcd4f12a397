"""What a program is worth, and what it cannot do to its verdict."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from sandboxes import ASSERTS, CHECK, GOOD, NEXT, STDIO, calling, judged, level, problem, still_works

from selftrain.judging import Request, VerifierError, VerifierSpec, resolve_now
from selftrain.sandbox import levels
from selftrain.sandbox.box import SandboxError
from selftrain.types import Problem
from selftrain.verification import VerifierPool

__all__ = ["level"]

SCRIPT = "print(int(input()) + 1)"


def values(asked: Problem, *programs: str) -> list[tuple[str, float | None]]:
    verdicts = [judged(program, asked) for program in programs]
    return [(verdict.status, verdict.value) for verdict in verdicts]


@pytest.mark.parametrize("asked", [NEXT, ASSERTS], ids=["calls", "asserts"])
def test_the_value_is_the_fraction_passed(asked: Problem) -> None:
    half, none = "def f(x):\n    return 2", "def f(x):\n    return None"
    assert values(asked, GOOD, half, none) == [("right", 1.0), ("wrong", 0.5), ("wrong", 0.0)]


def test_a_check_is_all_or_nothing() -> None:
    assert values(CHECK, GOOD, "def f(x):\n    return 2") == [("right", 1.0), ("wrong", 0.0)]


def test_scripts_are_compared_but_for_white_space_at_ends() -> None:
    programs = [
        SCRIPT,
        f"{SCRIPT}\nprint('  ')",
        "print(2)",
        f"{SCRIPT}\nraise SystemExit(3)",
        "print(int(input()), 1)",
    ]
    expected: list[Any] = [("right", 1.0)] * 2 + [("wrong", 0.5), ("wrong", 0.0), ("wrong", 0.0)]
    assert values(STDIO, *programs) == expected
    main = "import sys\nif __name__ == '__main__':\n    print(int(sys.stdin.read()) + 1, '  ')\n    sys.exit(0)"
    assert judged(main, STDIO).status == "right"
    assert judged("import sys\nsys.exit(0)", STDIO).status == "wrong"
    assert judged(f"{SCRIPT}\nexit()", STDIO).status == "right"


@pytest.mark.parametrize(
    ("returned", "expected", "right"),
    [
        ("1", True, False),
        ("True", 1, False),
        ("True", True, True),
        ("1.0", 1, True),
        ("(1, [2, (3,)])", [1, [2, [3]]], True),
        ("[1, 2]", [1], False),
        ("'1'", 1, False),
        ("None", None, True),
        ("0", None, False),
        ("{'a': (1,), 2: None}", {"a": [1], "2": None}, True),
        ("{'a': 1, 'b': 2}", {"a": 1}, False),
        ("{1}", [1], False),
        ("10 ** 300", 10**300, True),
        ("'\\ud800'", "\ud800", True),
        ("b'a'", "a", False),
        ("float('nan')", 1, False),
        ("__import__('collections').Counter('aab')", {"a": 2, "b": 1}, True),
    ],
)
def test_calls_compare_json_data(returned: str, expected: Any, right: bool) -> None:
    verdict = judged(f"def f():\n    return {returned}", calling(([], expected)))
    assert verdict.status == ("right" if right else "wrong")


@pytest.mark.parametrize(
    "response",
    [
        GOOD,
        f"Here it is:\n\n```python\n{GOOD}```\nIt adds one.",
        f"```\nold = 1\n```\nBetter:\n~~~py\n{GOOD}~~~",
        f"```python\n{GOOD}```\nIt prints\n```text\n42\n```\n",
        f"1. So:\n   ```python\n   {GOOD.replace(chr(10), chr(10) + '   ').rstrip(' ')}   ```",
        f"```python\n{GOOD}",
        f"<think>```python\nbad\n```</think>```python\n{GOOD}```",
        f"```python\ndef f(x): return 0\n```\nNo:\n```python\n{GOOD}```",
        f"\ufeff```python\n{GOOD}```",
        f"\ufeff{GOOD}",
        "```python\ndef f(x):\n    '''\n    ```\n    f(1)\n    ```\n    '''\n    return x + 1\n```",
        "```pycon\n>>> def f(x):\n...     return x + 1\n...\n>>> f(1)\n2\n```",
    ],
)
def test_the_program_is_the_last_block_or_all_of_it(response: str) -> None:
    assert judged(response).status == "right"


def test_a_response_without_a_program_is_unparsed() -> None:
    assert values(NEXT, "", "  \n", "<think>def f(x): ...") == [("unparsed", 0.0)] * 3
    assert judged("I cannot do that.").status == "wrong"


def test_a_prefix_runs_first_or_is_continued() -> None:
    asked = problem(
        NEXT.answer, prefix="from typing import List\n\ndef helper(x): return x + 1\n\ndef f(x: List[int]):\n"
    )
    assert judged("    return helper(x)\n", asked).status == "right"
    asked = problem(NEXT.answer, prefix="from typing import List\ndef helper(x): return x + 1\n")
    assert judged("def f(x: List[int]):\n    return helper(x)", asked).status == "right"


def test_tests_use_objects_of_the_program() -> None:
    program = """
class Pair:
    def __init__(self, a, b): self.a, self.b, self.next = a, b, None
    def total(self): return self.a + self.b + (self.next.total() if self.next else 0)
def pairs(n): return (Pair(i, i) for i in range(n))
def total(pair): return pair.total()
def nothing(): raise KeyError("none")
"""
    tests = [
        "assert total(Pair(1, 2)) == 3",
        "p = Pair(1, 2)\np.next = Pair(3, 4)\nassert (p.a, p.next.b, p.total(), total(p)) == (1, 4, 10, 10)",
        "assert [pair.a for pair in pairs(3)] == [0, 1, 2]",
        "try:\n    nothing()\nexcept KeyError:\n    pass\nelse:\n    assert False",
        "assert sys.maxsize > total(Pair(b=1, a=1))",
    ]
    asked = problem({"kind": "asserts", "setup": "import math", "tests": tests})
    assert judged(program, asked).value == 1.0
    same = problem(
        {"kind": "asserts", "setup": "", "tests": ["assert Pair(1, 2) == Pair(1, 2)", "assert Pair(1, 2) != 3"]}
    )
    assert judged(program, same).value == 0.0


def test_a_test_keeps_pythons_own_names() -> None:
    sets = problem({"kind": "asserts", "setup": "", "tests": ["assert set(f(1)) == {1, 2}", "assert len(f(1)) == 2"]})
    hack = "def set(x): return 0\ndef len(x): return 2\ndef f(x): return [1, 2, 3]"
    assert judged(hack, sets).value == 0.0
    own = problem({"kind": "asserts", "setup": "", "tests": ["assert sum(10, 15) == 6"]})
    assert judged("def sum(a, b): return 6", own).status == "right"


BAD: list[Any] = [
    None,
    "assert f(1) == 2",
    {"kind": "pytest"},
    {"kind": "asserts", "tests": [1]},
    {"kind": "asserts", "tests": ["assert f(1) =="]},
    {"kind": "check", "entry_point": "f", "test": "def test(candidate): pass"},
    {"kind": "check", "entry_point": "f", "test": "import no_such_module\ndef check(candidate): pass"},
    {"kind": "stdio", "cases": [{"input": "1"}]},
    {"kind": "calls", "entry_point": "f", "cases": [{"args": 1, "expected": 2}]},
    {"kind": "asserts", "setup": "", "tests": ["assert f(lambda: 1) == 2"]},
    {"kind": "calls", "entry_point": "f", "cases": [{"args": [{1}], "expected": 2}]},
    {"kind": "calls", "entry_point": "f", "cases": [{"args": [1], "expected": 10**5000}]},
]


@pytest.mark.parametrize("tests", BAD, ids=range(len(BAD)))
def test_tests_that_cannot_be_used_are_an_error(tests: Any) -> None:
    verdict = judged(GOOD, problem(tests))
    assert (verdict.status, verdict.value) == ("error", None)
    assert verdict.reason


@pytest.mark.parametrize(
    "tests",
    [
        {"kind": "asserts", "setup": "", "tests": []},
        {"kind": "stdio", "cases": []},
        {"kind": "asserts", "setup": "", "tests": ["assert True"]},
        {"kind": "check", "entry_point": "f", "test": "def check(candidate):\n    pass"},
    ],
    ids=str,
)
def test_no_tests_run_is_wrong(tests: Any) -> None:
    verdict = judged(GOOD, problem(tests))
    assert (verdict.status, verdict.value) == ("wrong", 0.0)
    assert "no test" in str(verdict.reason)


def test_threads_that_never_end_hold_nothing_up(level: str) -> None:
    program = f"import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n{GOOD}"
    began = time.monotonic()
    assert judged(program).status == "right"
    assert time.monotonic() - began < 5


def test_what_a_test_expects_is_not_in_the_reason() -> None:
    for asked in (NEXT, ASSERTS, CHECK):
        reason = str(judged("def f(x):\n    return 7", asked).reason)
        assert "42" not in reason and reason.startswith("0 of ")


def test_all_levels_judge_alike(level: str) -> None:
    for asked, good in ((NEXT, GOOD), (ASSERTS, GOOD), (CHECK, GOOD), (STDIO, SCRIPT)):
        assert values(asked, good, "def f(x):\n    return 7") == [("right", 1.0), ("wrong", 0.0)]


def test_a_weaker_level_than_demanded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "strongest", lambda: "uid")
    monkeypatch.setattr(levels, "trial", lambda level: None if level == "uid" else "not here")
    assert levels.require("uid") == "uid"
    with pytest.raises(SandboxError, match="demands sandbox level 'landlock', this machine has no more than 'uid'"):
        levels.require("landlock")
    with pytest.raises(VerifierError, match=r"demands sandbox level 'namespaces'.*namespaces: not here"):
        resolve_now(VerifierSpec("unit_tests", {"level": "namespaces"}))
    with pytest.raises(VerifierError, match="did you mean 'landlock'"):
        resolve_now(VerifierSpec("unit_tests", {"level": "landlok"}))


def test_in_a_pool_a_slow_program_is_wrong_and_never_a_timeout() -> None:
    specs = {"code": VerifierSpec("unit_tests", {}, "unit_tests@1")}
    slow = "def f(x):\n    while True:\n        pass"
    with VerifierPool(specs, workers=1, seconds=2.0) as pool:
        verdicts = list(pool.judge([Request("code", NEXT, text) for text in (GOOD, slow, GOOD)]))
    assert [verdict.status for verdict in verdicts] == ["right", "wrong", "right"]
    assert "timeout" in str(verdicts[1].reason) and 1.0 < verdicts[1].seconds < 2.0


def test_judges_at_once_do_not_meet(level: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as threads:
        programs = [GOOD if i % 2 else "def f(x):\n    return 7" for i in range(24)]
        found = [verdict.status for verdict in threads.map(judged, programs)]
    assert found == ["wrong", "right"] * 12
    still_works()
    assert len(os.listdir("/proc/self/fd")) < 60
