r"""Tasks math, math500 and aime24: local files, a hub-shaped folder, as published, and what ``\boxed`` holds."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from published import DATA, needs_data
from small_data import (
    Task,
    aime_rows,
    error_of,
    every,
    math500_rows,
    math_rows,
    questions,
    sizes,
    write_hub,
    write_lines,
)

from selftrain.config import check_tree
from selftrain.planning.problems import load_problems
from selftrain.tasks.aime24 import AIME24
from selftrain.tasks.boxed import last_boxed
from selftrain.tasks.competition_math import MATH
from selftrain.tasks.math500 import MATH500
from selftrain.types import Problem

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """The local files of all three tasks."""
    write_lines(tmp_path / "data" / "train.jsonl", math_rows(30)[5:])
    write_lines(tmp_path / "data" / "test.jsonl", math_rows(5))
    write_lines(tmp_path / "data" / "math500.jsonl", math500_rows(3))
    write_lines(tmp_path / "data" / "aime24.jsonl", aime_rows(4))
    return str(tmp_path / "data")


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so $\boxed{5}$.", "5"),
        (r"$\boxed{4}$, no: $\boxed{5}$.", "5"),
        (r"$\boxed{\frac{1}{\sqrt{2}}}$ and {more}", r"\frac{1}{\sqrt{2}}"),
        (r"$\boxed{\{1, 2\}}$", r"\{1, 2\}"),
        (r"$\boxed{\left\{ x \right.}$", r"\left\{ x \right."),
        (r"$\boxed {x \\ {y}}$", r"x \\ {y}"),
        (r"$\fbox{7}$", "7"),
        (r"$\boxed{3}$ but \fbox{12}", "12"),
        (r"$\boxed 5$.", "5"),
        (r"$\boxed5$.", "5"),
        (r"It is \boxed 5 apples.", "5"),
        (r"$\boxed -12.5$.", "-12.5"),
        (r"$\boxed \frac1x$.", r"\frac1x"),
        (r"$\boxed{3}$ $\boxed{}$", "3"),
        (r"$\boxed{3}$ and $\boxed{4", "3"),
        (r"$\boxed{ 10 }$", "10"),
        (r"$\boxed{\boxed{5}}$", "5"),
        (r"$\boxedstuff{3}$", None),
        ("42", None),
        ("", None),
    ],
)
def test_the_last_box_holds_the_answer(solution: str, answer: str | None) -> None:
    assert last_boxed(solution) == answer


def test_math_reads_local_files(folder: str) -> None:
    task = MATH(data_dir=folder, val_size=5)
    assert sizes(task) == {"train": 20, "val": 5, "test": 5}
    solution = r"As $1 = \frac{7}{7}$, the sum is $\boxed{\frac{8}{7}}$."
    assert task.problems("test")[0] == Problem(
        "math/test/0",
        "math",
        "test",
        r"What is $\frac{1}{7} + 1$?",
        r"\frac{8}{7}",
        demonstration=None,
        difficulty=2.0,
        metadata={"subject": "Prealgebra", "solution": solution},
    )
    train = task.problems("train")
    assert all(p.demonstration == p.metadata["solution"] for p in train)
    assert {p.demonstration for p in task.problems("val")} == {None}
    assert {p.demonstration for p in replace(task, demonstrations=False).problems("train")} == {None}
    assert not questions(train) & questions(task.problems("val"))
    assert questions(replace(task, seed=1).problems("val")) != questions(task.problems("val"))
    assert replace(task, val_size=0).splits() == ("train", "test")


def test_math_takes_train_problems_with_answers_alone(folder: str) -> None:
    rows = [{"problem": f"Find {i}.", "answer": str(i), "difficulty": i % 3, "type": "Algebra"} for i in range(6)]
    rows += [{**rows[0], "problem": f"Open {answer!r}", "answer": answer} for answer in (None, " ")]
    path = Path(folder) / "train_answers.json"
    path.write_text(json.dumps(rows))
    with_solutions = MATH(data_dir=folder, val_size=2)
    assert sizes(with_solutions)["train"] == 23
    (Path(folder) / "train.jsonl").unlink()
    splits = every(with_solutions)
    assert {split: len(problems) for split, problems in splits.items()} == {"train": 4, "val": 2, "test": 5}
    found = {p.question: p for p in (*splits["train"], *splits["val"])}
    assert {found[f"Find {i}."].answer for i in range(6)} == {"0", "1", "2", "3", "4", "5"}
    assert [found[f"Find {i}."].difficulty for i in range(3)] == [None, 1.0, 2.0]
    assert all(p.demonstration is None and p.metadata == {"subject": "Algebra"} for p in found.values())
    path.write_text(json.dumps([{"problem": "?", "type": "Algebra", "answr": "5"}]))
    message = error_of(lambda: replace(with_solutions, val_size=0).problems("train"))
    assert message == r"math: row 0 of train has no final answer: no 'answer', and no \boxed{} in ''"
    path.unlink()
    message = error_of(lambda: with_solutions.problems("train"))
    assert re.fullmatch(r"math: no such file: .*train\.jsonl, nor train_answers\.json; set data_dir to .*", message)


@pytest.mark.parametrize(
    ("written", "difficulty"), [("Level 5", 5.0), ("Level ?", None), (3, 3.0), (4.0, 4.0), (0.0, None), (None, None)]
)
def test_the_level_is_the_difficulty(written: Any, difficulty: float | None, folder: str) -> None:
    (row,) = math_rows(1)
    write_lines(Path(folder) / "test.jsonl", [{**row, "level": written}])
    assert MATH(data_dir=folder).problems("test")[0].difficulty == difficulty


def test_all_three_from_the_hub_and_from_files_are_the_same(folder: str, tmp_path: Path) -> None:
    rows = {"train": math_rows(30)[5:], "test": math_rows(5)}
    math = MATH(hub=write_hub(tmp_path / "math", "default", rows), val_size=5)
    assert every(math) == every(MATH(data_dir=folder, val_size=5))
    math500 = MATH500(hub=write_hub(tmp_path / "math500", "default", {"test": math500_rows(3)}))
    assert every(math500) == every(MATH500(data_dir=folder))
    aime24 = AIME24(hub=write_hub(tmp_path / "aime24", "default", {"train": aime_rows(4)}))
    assert every(aime24) == every(AIME24(data_dir=folder))


def test_math500_and_aime24_are_evaluated_only(folder: str) -> None:
    first = MATH500(data_dir=folder).problems("test")[0]
    assert (first.id, first.answer, first.difficulty) == ("math500/test/prealgebra/1", r"\frac{8}{7}", 2.0)
    assert first.metadata == {"subject": "Prealgebra", "solution": math_rows(1)[0]["solution"]}
    assert [(p.id, p.answer) for p in AIME24(data_dir=folder).problems("test")] == [
        (f"aime24/test/{60 + i}", str(i)) for i in range(1, 5)
    ]
    tasks: list[Task] = [MATH500(data_dir=folder), AIME24(data_dir=folder)]
    for task in tasks:
        assert task.splits() == ("test",)
        assert {p.demonstration for p in task.problems("test")} == {None}
        assert error_of(partial(task.problems, "train")).endswith("has no split 'train'; known: test")


def test_bad_data_is_one_clear_line(folder: str, tmp_path: Path) -> None:
    (row,), path = math_rows(1), Path(folder)
    write_lines(path / "test.jsonl", [row, {**row, "solution": "It is five."}])
    message = error_of(lambda: MATH(data_dir=folder).problems("test"))
    assert message == r"math: row 1 of test has no final answer: no 'answer', and no \boxed{} in 'It is five.'"
    write_lines(path / "test.jsonl", [{**row, "solution": None}])
    assert error_of(lambda: MATH(data_dir=folder).problems("test")).endswith(
        "test.jsonl:1: the field 'solution' is null"
    )
    write_lines(path / "aime24.jsonl", [{**aime_rows(1)[0], "answer": "1000"}])
    message = error_of(lambda: AIME24(data_dir=folder).problems("test"))
    assert message == "aime24: the answer of problem 61 is '1000'; it must be 0 to 999"
    assert "val_size must not be negative, got -1" in error_of(lambda: MATH(val_size=-1))
    tasks: list[tuple[Task, str]] = [(MATH(), "test"), (MATH500(), "math500"), (AIME24(), "aime24")]
    for task, file in tasks:
        gone = replace(task, data_dir=str(tmp_path / "nowhere"))
        assert f"nowhere/{file}.jsonl; set data_dir to a folder of " in error_of(partial(gone.problems, "test"))
        offline = replace(task, hub="nobody/nothing")
        assert "cannot load 'nobody/nothing' from the Hugging" in error_of(partial(offline.problems, "test"))


def test_licences_are_those_of_the_authors() -> None:
    assert [task.known_licence for task in (MATH(), MATH500(), AIME24())] == ["mit", "mit", None]
    assert MATH(data_dir="x").known_licence is None


@needs_data
def test_math_as_published() -> None:
    task = MATH(data_dir=str(DATA / "math"))
    splits = every(task)
    assert {split: len(problems) for split, problems in splits.items()} == {"train": 6970, "val": 500, "test": 5000}
    assert Counter(p.difficulty for p in splits["test"]) == {5: 1324, 4: 1214, 3: 1131, 2: 894, 1: 437}
    assert {p.metadata["subject"] for p in splits["train"]} == {p.metadata["subject"] for p in splits["test"]}
    # MATH-500 gives answers beside solutions: they are what the last box holds.
    boxed = {p.question: p.answer for p in splits["test"]}
    math500 = MATH500(data_dir=str(DATA / "math")).problems("test")
    assert len({p.id for p in math500}) == len(math500) == 500
    assert {p.question: p.answer for p in math500}.items() <= boxed.items()
    assert all(last_boxed(p.metadata["solution"]) == p.answer for p in math500)


@needs_data
def test_aime24_as_published() -> None:
    problems = AIME24(data_dir=str(DATA / "competition")).problems("test")
    assert len(problems) == len(questions(problems)) == 30
    assert [p.answer for p in problems[:8]] == ["204", "113", "371", "385", "110", "104", "721", "25"]


@needs_data
def test_train_problems_of_math_that_its_test_split_repeats_are_dropped() -> None:
    """One of the two differs in spaces inside a formula. MATH-500 beside it drops no more: it is part of that test."""
    math = {"kind": "math", "verifier": "exact_answer", "data_dir": str(DATA / "math")}
    math500 = {**math, "kind": "math500", "weight": 0}
    for tasks in ({"math": math}, {"math": math, "math500": math500}):
        problems = load_problems(check_tree({"tasks": tasks}))
        repeated = {**dict.fromkeys(tasks, 0), "math": 2}
        assert problems.dropped == repeated
        kept = {p.id for p in problems.of("math", "train")}
        assert not kept & {"math/train/1411", "math/train/2939"}
    # Trained on the test split itself, nothing of MATH-500 is learnt.
    taught = {**math, "kind": "jsonl", "files": {"train": str(DATA / "math" / "test.jsonl")}}
    del taught["data_dir"]
    taught["fields"] = {"question": "problem", "answer": "solution"}
    assert load_problems(check_tree({"tasks": {"taught": taught, "math500": math500}})).dropped["taught"] == 500
