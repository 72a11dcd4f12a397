"""HumanEval and MBPP: their problems, and what the verifier says of reference programs and of broken ones."""

from __future__ import annotations

import ast
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from broken import first_comparison_flipped, returning_none
from published import DATA, needs_data
from sandboxes import problem
from small_data import write_hub, write_lines

from selftrain.tasks.humaneval import HumanEval
from selftrain.tasks.mbpp import MBPP
from selftrain.types import Problem
from selftrain.verifiers.unit_tests import UnitTests

EVERY = 15
"""Of the reference programs every so many are run here; benchmarks/bench_code.py runs all."""

HELPED: dict[str, Any] = {
    "task_id": "HumanEval/0",
    "prompt": 'import math\n\ndef twice(s: str):\n    return s + s\n\n\ndef halve(s: str):\n    """ Undo twice. """\n',
    "entry_point": "halve",
    "canonical_solution": "    return s[:len(s) // 2]\n",
    "test": "def check(candidate):\n    assert candidate(twice('ab')) == 'ab'\n",
}
SHARED: dict[str, Any] = {
    "source_file": "x",
    "task_id": 0,
    "prompt": " Write a function to add one. ",
    "code": "def f(x):\r\n  return x + 1",
    "test_imports": ["import math"],
    "test_list": ["assert f(1) == 2", "assert math.isclose(f(2.5), 3.5)"],
}


def judge(programs: list[tuple[Problem, str]]) -> Counter[str]:
    verifier = UnitTests()
    with ThreadPoolExecutor(2) as threads:
        return Counter(threads.map(lambda pair: verifier(*pair).status, programs))


def test_humaneval_asks_with_its_prompt_and_hides_its_tests(tmp_path: Path) -> None:
    write_lines(tmp_path / "HumanEval.jsonl", [HELPED])
    (only,) = HumanEval(data_dir=str(tmp_path)).problems("test")
    assert (only.id, only.question) == ("humaneval/test/0", HELPED["prompt"])
    assert "candidate" not in only.question and only.demonstration is None
    assert only.answer["kind"] == "check" and only.answer["entry_point"] == "halve"
    hack = "def twice(s):\n    return s\ndef halve(s):\n    return s"
    responses = [HELPED["canonical_solution"], HELPED["prompt"] + HELPED["canonical_solution"], hack]
    assert [UnitTests()(only, text).status for text in responses] == ["right", "right", "wrong"]
    hub = HumanEval(hub=write_hub(tmp_path / "hub", "default", {"test": [HELPED]}))
    assert hub.problems("test") == [only]


def test_helpers_may_come_from_the_program_too() -> None:
    asked = problem({"kind": "check", "entry_point": "halve", "test": HELPED["test"]})
    assert UnitTests()(asked, HELPED["prompt"] + HELPED["canonical_solution"]).status == "right"
    assert UnitTests()(asked, HELPED["canonical_solution"]).status == "wrong"


def test_mbpp_asks_with_its_asserts_and_splits_by_number(tmp_path: Path) -> None:
    numbers = {"demonstrations": [1, 10], "test": [11, 510], "val": [511, 600], "train": [601, 974]}
    rows = [{**SHARED, "task_id": number} for pair in numbers.values() for number in pair]
    (tmp_path / "sanitized.json").write_text(json.dumps(rows))
    task = MBPP(data_dir=str(tmp_path))
    found = {split: [int(p.id.rpartition("/")[2]) for p in task.problems(split)] for split in task.splits()}
    assert found == numbers
    first = task.problems("train")[0]
    asked = "Write a function to add one.\nYour code should pass these tests:\n\n" + "\n".join(SHARED["test_list"])
    assert first.question == asked
    assert first.answer == {"kind": "asserts", "setup": "import math", "tests": SHARED["test_list"]}
    assert UnitTests()(first, str(first.demonstration)).status == "right"
    assert task.problems("test")[0].demonstration is None


def test_mutants_are_what_they_say() -> None:
    program = "def f(x):\n    def g(y):\n        return y\n    return g(x) < 3 and x != 1\n"
    none, flipped = returning_none(program), first_comparison_flipped(program)
    assert ast.unparse(ast.parse(none)).count("return None") == 1
    assert "g(x) >= 3 and x != 1" in str(flipped)
    assert first_comparison_flipped("def f():\n    return 1") is None


def references() -> list[tuple[Problem, str]]:
    he = HumanEval(data_dir=str(DATA / "humaneval")).problems("test")
    rows = [json.loads(line) for line in (DATA / "humaneval" / "HumanEval.jsonl").read_text().splitlines()]
    mbpp = MBPP(data_dir=str(DATA / "mbpp"))
    codes = {row["task_id"]: row["code"] for row in json.loads((DATA / "mbpp" / "sanitized.json").read_text())}
    asked = [p for split in mbpp.splits() for p in mbpp.problems(split)]
    solved = [(p, row["prompt"] + row["canonical_solution"]) for p, row in zip(he, rows, strict=True)]
    return solved + [(p, codes[int(p.id.rpartition("/")[2])]) for p in asked]


@needs_data
def test_reference_programs_pass_and_without_results_all_fail() -> None:
    every = references()
    assert Counter(problem.task for problem, _ in every) == {"humaneval": 164, "mbpp": 427}
    some = every[::EVERY] + [pair for pair in every if pair[0].id in HARD]
    assert judge(some) == {"right": len(some)}
    assert judge([(problem, returning_none(text)) for problem, text in some]) == {"wrong": len(some)}


HARD = {
    *(f"humaneval/test/{number}" for number in (32, 33, 38, 50)),  # Tests that call more than the function asked for.
    *("mbpp/test/126", "mbpp/val/596", "mbpp/train/737"),  # A function called sum; a module; a match for an answer.
}
