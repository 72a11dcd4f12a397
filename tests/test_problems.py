"""The problems of a run: their ids, and that nothing learns from what is evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selftrain import registry
from selftrain.config import ConfigError, check_tree
from selftrain.judging import VerifierSpec, resolve_now
from selftrain.planning.problems import ProblemSet, load_problems
from selftrain.types import Problem, Verdict


def write(path: Path, *questions: str) -> str:
    """A file of problems with these questions, each with a demonstration."""
    rows = [{"question": question, "answer": "1", "demonstration": "so it is 1"} for question in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(tasks: dict[str, Any], **sections: Any) -> ProblemSet:
    return load_problems(check_tree({"tasks": tasks, **sections}))


def lines(files: dict[str, str]) -> dict[str, Any]:
    return {"kind": "jsonl", "verifier": "exact_answer", "files": files}


def questions(problems: ProblemSet, task: str, split: str) -> list[str]:
    return [problem.question for problem in problems.of(task, split)]


@pytest.fixture
def two_tasks(tmp_path: Path) -> dict[str, Any]:
    """The train problems of each task are evaluated in the other, spaced in another way."""
    return {
        "one": lines(
            {
                "train": write(tmp_path / "1.jsonl", "a  b", "c", "d"),
                "demonstrations": write(tmp_path / "2.jsonl", "e", "f"),
                "test": write(tmp_path / "3.jsonl", "g"),
            }
        ),
        "two": lines(
            {
                "train": write(tmp_path / "4.jsonl", "g", "h"),
                "val": write(tmp_path / "5.jsonl", "a b", "e"),
                "dev": write(tmp_path / "6.jsonl", "d", "i"),
            }
        ),
    }


def test_what_any_task_evaluates_is_learnt_in_none(two_tasks: dict[str, Any]) -> None:
    problems = load(two_tasks)
    assert questions(problems, "one", "train") == ["c", "d"]
    assert questions(problems, "one", "demonstrations") == ["f"]
    assert questions(problems, "two", "train") == ["h"]
    assert questions(problems, "two", "val") == ["a b", "e"]
    assert problems.dropped == {"one": 2, "two": 1}
    assert [problem.question for problem in problems.gold()] == ["c", "d", "h", "f"]


def test_spaces_inside_a_formula_make_no_other_question(tmp_path: Path) -> None:
    train = write(tmp_path / "1.jsonl", "Solve $x = 2y+1$.\n", "Solve $x = 2y-1$.")
    problems = load({"one": lines({"train": train, "test": write(tmp_path / "2.jsonl", "Solve $x=2y + 1$.")})})
    assert questions(problems, "one", "train") == ["Solve $x = 2y-1$."]
    assert problems.dropped == {"one": 1}


def test_evaluated_splits_of_other_names_count_and_the_usual_ones_always(two_tasks: dict[str, Any]) -> None:
    problems = load(two_tasks, evaluate={"splits": ["dev"]})
    assert questions(problems, "one", "train") == ["c"]
    assert questions(problems, "two", "dev") == ["d", "i"]
    assert problems.dropped == {"one": 3, "two": 1}


@pytest.mark.parametrize("limit", [0, 1])
def test_what_a_limit_leaves_out_of_an_evaluated_split_is_not_learnt_either(
    limit: int, two_tasks: dict[str, Any]
) -> None:
    two_tasks["two"]["limit"] = {"val": limit, "train": 1}
    problems = load(two_tasks)
    assert questions(problems, "two", "val") == ["a b", "e"][:limit]
    assert questions(problems, "one", "train") == ["c", "d"]
    assert questions(problems, "one", "demonstrations") == ["f"]
    assert problems.dropped == {"one": 2, "two": 1}
    # What is replayed or adopted is compared with all of them; nobody is asked more than the limit.
    assert {problem.question for problem in problems.evaluated()} == {"a b", "e", "g"}
    assert {problem.question for problem in problems.by_id.values()} == {*"cdfgi", *["a b", "e"][:limit]}


def test_two_tasks_of_one_kind_make_one_run() -> None:
    """What both generate is evaluated in one and learnt in neither."""
    sizes = {"demonstrations": 0, "train": 40, "val": 0, "test": 20, "transfer": 0}
    easy = {"kind": "arithmetic", "sizes": sizes, "lengths": [1, 1]}
    problems = load({"easy": easy, "hard": {**easy, "lengths": [1, 2]}, "arithmetic": easy})
    assert len(problems.of("easy", "test")) == 20
    for name in ("easy", "hard", "arithmetic"):
        assert {(p.id.split("/")[0], p.task) for p in problems.of(name, "test")} == {(name, name)}
    same = {p.id.partition("/")[2] for p in problems.of("easy", "test")}
    assert {p.id.partition("/")[2] for p in problems.of("arithmetic", "test")} == same
    evaluated = {p.question for p in problems.evaluated()}
    assert not evaluated & {p.question for p in problems.all("train")}
    assert sum(problems.dropped.values()) == 3 * 40 - len(problems.all("train")) > 0


def test_ids_begin_with_the_task_s_name_in_the_run(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"id": "book/7", "question": "a", "answer": "1"}\n')
    for options in ({}, {"name": "own"}):
        problems = load({"mine": {**lines({"test": str(path)}), **options}})
        assert list(problems.by_id) == ["mine/test/book/7"]


def test_all_problems_evaluated_leaves_none(tmp_path: Path) -> None:
    file = write(tmp_path / "same.jsonl", "a", "b")
    problems = load({"mine": lines({"train": file, "test": file})})
    assert (problems.all("train"), problems.dropped) == ([], {"mine": 2})


PLUGIN = """
from dataclasses import dataclass

from selftrain.types import Problem, Verdict


@dataclass(frozen=True)
class Count:
    up_to: int = 3

    def splits(self):
        return ("test",)

    def problems(self, split):
        return [Problem(f"count/{split}/{n}", "count", split, f"What follows {n}?", n + 1) for n in range(self.up_to)]


@dataclass(frozen=True)
class Follows:
    prefix: str = ""

    def __call__(self, problem, response):
        return Verdict("right" if response == f"{self.prefix}{problem.answer}" else "wrong", answer=response)
"""


def test_an_installed_package_adds_a_task_and_a_verifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an installer leaves behind: a module, and beside it the metadata of its distribution."""
    (tmp_path / "counting_plugin.py").write_text(PLUGIN)
    metadata = tmp_path / "counting_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: counting-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[selftrain.tasks]\ncounting = counting_plugin:Count\n\n"
        "[selftrain.verifiers]\nfollows = counting_plugin:Follows\n"
    )
    with pytest.raises(ConfigError, match="unknown task 'counting'"):
        load({"counting": {"verifier": "follows"}})
    monkeypatch.syspath_prepend(tmp_path)
    verifier = {"kind": "follows", "prefix": "#"}
    problems = load({"counting": {"up_to": 2, "verifier": verifier}})
    assert list(problems.by_id) == ["counting/test/0", "counting/test/1"]
    judge = resolve_now(VerifierSpec("follows", {"prefix": "#"}))
    assert judge(problems.by_id["counting/test/1"], "#2") == Verdict("right", answer="#2")
    assert judge(Problem("x", "x", "test", "?", 2), "2") == Verdict("wrong", answer="2")
    assert registry.digest("verifier", "follows") == registry.digest("task", "counting") is not None
    with pytest.raises(ConfigError, match="unknown key"):
        load({"counting": {"up_too": 2, "verifier": "follows"}})
