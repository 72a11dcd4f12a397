"""What a program writes where its answers go, and what its exceptions do to a test: never right, and never an error,
which would say that the sandbox failed."""

from __future__ import annotations

import pytest
from sandboxes import ASSERTS, CHECK, NEXT, judged, problem

from selftrain.types import Problem

ANSWERING = """
import json, os, time
def answer(message):
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    data = len(data).to_bytes(4, "big") + data
    while data:
        data = data[os.write(5, data):]
"""
FILLED = "answer(b'[' + {item!r} * ((16 << 20) // len({item!r}) - 9) + b'1]')\ntime.sleep(9)"
MEDDLING = {
    "long reason": "answer(['raised', 'E', 'x' * 5000000])\ntime.sleep(9)",
    "deep reason": "answer(b'[\"raised\", ' + b'[' * 950 + b']' * 950 + b']')\ntime.sleep(9)",
    "many lists": FILLED.format(item=b"[],"),
    "many texts": FILLED.format(item=b'"",'),
    "answers before questions": "answer(['ready'])\nfor _ in range(99): answer(['value', True])\nos._exit(0)",
    "a name that raises": "answer(['ready'])\nanswer(['raised', 'ValueError', '', 'ValueError'])\ntime.sleep(9)",
    "a deep name": "answer(['ready'])\nanswer(b'[\"value\", ' + b'[1, [' * 400 + b']]' * 400 + b']')\ntime.sleep(9)",
    "nonsense raised": "def f(x): answer(['raised', ['x'], {'a': 1}])",
    "long class": "def f(x): answer(['raised', 'x' * 10 ** 7, '', ''])",
    "changes that are none": "def f(x): answer(['value', None, ['i', 'x']])",
    "no such kind": "def f(x): answer(['value', ['decimal', 'x']])",
    "zero below": "def f(x): answer(['value', ['fraction', 1, 0]])",
    "no handle": "def f(x): answer(['value', ['h', 10 ** 12]])",
    "unhashable": "def f(x): answer(['value', ['d', [[['l', []], 1]]]])",
}


@pytest.mark.parametrize("asked", [NEXT, ASSERTS, CHECK], ids=["calls", "asserts", "check"])
@pytest.mark.parametrize("kind", MEDDLING)
def test_nonsense_where_answers_go_is_wrong(kind: str, asked: Problem) -> None:
    verdict = judged(ANSWERING + MEDDLING[kind], asked, seconds=3.0)
    assert (verdict.status, verdict.value) == ("wrong", 0.0), verdict
    assert len(str(verdict.reason)) < 1000


def test_messages_that_need_more_memory_than_there_is_are_the_program_s_fault() -> None:
    from selftrain.verifiers.unit_tests import UnitTests

    verdict = UnitTests(seconds=5.0, memory_mb=256)(NEXT, ANSWERING + MEDDLING["many lists"])
    assert (verdict.status, verdict.value) == ("wrong", 0.0)


LOOPS = [
    "assert all(map(lambda x: f(x) == 2, [1]))",
    "for found in map(f, [1]):\n    assert found == 2",
    "assert [found for found in map(f, [1]) if found != 2] == []",
    "assert not any(found != 2 for found in map(f, [1]))",
]


@pytest.mark.parametrize("name", ["StopIteration", "StopAsyncIteration", "GeneratorExit", "KeyboardInterrupt"])
def test_an_exception_does_not_end_the_loop_of_a_test(name: str) -> None:
    asked = problem({"kind": "asserts", "setup": "", "tests": LOOPS})
    assert judged(f"def f(x):\n    raise {name}", asked).value == 0.0
    assert judged(f"class E({name}): pass\ndef f(x):\n    raise E", asked).value == 0.0


def test_a_program_does_not_suppress_what_a_test_raises() -> None:
    asked = problem({"kind": "asserts", "setup": "", "tests": ["with f(1) as found:\n    assert found == 2"]})
    hack = (
        "class Yes:\n    def __enter__(self): return 7\n    def __exit__(self, *_): return True\ndef f(x): return Yes()"
    )
    assert judged(hack, asked).value == 0.0


def test_a_program_cannot_make_its_question_an_easier_one() -> None:
    body = "    given = [3, 1]\n    assert candidate(given) == sorted(given)\n"
    asked = problem({"kind": "check", "entry_point": "f", "test": f"def check(candidate):\n{body}"})
    assert judged("def f(items):\n    items.clear()\n    return []", asked).value == 0.0


def test_tests_that_call_the_program_as_they_are_loaded_blame_it_for_what_it_raises() -> None:
    asked = problem({"kind": "check", "entry_point": "f", "test": "found = f(1)\ndef check(candidate):\n    pass"})
    assert judged("def f(x):\n    raise ValueError", asked).status == "wrong"
