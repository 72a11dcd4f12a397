"""Tasks on published data: svamp, aqua and countdown, from local files, from a hub-shaped folder, and as published."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_data import (
    Task,
    aqua_rows,
    countdown_rows,
    demonstration,
    error_of,
    every,
    questions,
    sizes,
    statuses,
    svamp_rows,
    write_hub,
    write_lines,
)

from selftrain.tasks.aqua import AQuA
from selftrain.tasks.countdown import Countdown
from selftrain.tasks.svamp import SVAMP

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """The local files of all three tasks."""
    write_lines(tmp_path / "data" / "svamp.jsonl", svamp_rows(40))
    write_lines(tmp_path / "data" / "aqua_dev.json", aqua_rows(3))
    write_lines(tmp_path / "data" / "aqua_test.json", aqua_rows(5))
    write_lines(tmp_path / "data" / "countdown.jsonl", countdown_rows(24))
    return str(tmp_path / "data")


def test_svamp_reads_a_local_file(folder: str) -> None:
    task = SVAMP(data_dir=folder, test_size=10, val_size=5)
    assert sizes(task) == {"train": 25, "val": 5, "test": 10}
    by_id = {problem.id.rpartition("/")[2]: problem for problems in every(task).values() for problem in problems}
    assert len(by_id) == 40
    assert by_id["chal-7"].question == "Ann has 7 bags of 4 pens. She gives 3 pens away. How many pens are left?"
    assert (by_id["chal-7"].answer, by_id["chal-7"].difficulty) == ("25", 2)
    assert by_id["chal-7"].metadata == {"type": "Subtraction", "equation": "( ( 7.0 * 4.0 ) - 3.0 )"}


def test_svamp_demonstrations_are_plain_equations(folder: str) -> None:
    task = SVAMP(data_dir=folder, test_size=10, val_size=5)
    first = task.problems("train")[0]
    bags = first.id.rpartition("-")[2]
    assert first.demonstration == f"({bags} * 4) - 3 = {first.answer}\n#### {first.answer}"
    assert {p.demonstration for split in ("val", "test") for p in task.problems(split)} == {None}
    assert {p.demonstration for p in replace(task, demonstrations=False).problems("train")} == {None}


def test_svamp_from_the_hub_keeps_its_test_split(tmp_path: Path) -> None:
    rows = [{**row, "Answer": str(row["Answer"]), "question_concat": "x"} for row in svamp_rows(30)]
    task = SVAMP(hub=write_hub(tmp_path / "hub", "default", {"train": rows[:20], "test": rows[20:]}), val_size=5)
    splits = every(task)
    assert {split: len(problems) for split, problems in splits.items()} == {"train": 15, "val": 5, "test": 10}
    assert [p.id for p in splits["test"]] == [f"svamp/test/chal-{i}" for i in range(21, 31)]
    assert splits["test"][0].answer == "81"
    assert sizes(replace(task, val_size=0)) == {"train": 20, "test": 10}


def test_aqua_shows_its_options_one_per_line(folder: str) -> None:
    task = AQuA(data_dir=folder)
    assert sizes(task) == {"val": 3, "test": 5}
    problem = task.problems("test")[1]
    assert problem.question == "What is 1 + 1?\nA) 1\nB) 2\nC)\nD) 0.5\nE) None of these"
    assert (problem.id, problem.answer, problem.difficulty) == ("aqua/test/1", "B", None)
    assert problem.metadata == {"options": ["A) 1", "B) 2", "C)", "D) 0.5", "E) None of these"]}


def test_aqua_train_is_used_where_the_folder_has_it(folder: str) -> None:
    write_lines(Path(folder) / "aqua_train.json", aqua_rows(7))
    task = AQuA(data_dir=folder)
    assert sizes(task) == {"train": 7, "val": 3, "test": 5}
    assert task.problems("train")[2].demonstration == "2 + 1 = 3\nThe answer is B."
    assert {p.demonstration for split in ("val", "test") for p in task.problems(split)} == {None}
    assert {p.demonstration for p in replace(task, demonstrations=False).problems("train")} == {None}


def test_aqua_from_the_hub(tmp_path: Path, folder: str) -> None:
    splits = {"train": aqua_rows(7), "validation": aqua_rows(3), "test": aqua_rows(5)}
    task = AQuA(hub=write_hub(tmp_path / "hub", "raw", splits))
    assert sizes(task) == {"train": 7, "val": 3, "test": 5}
    assert task.problems("val") == AQuA(data_dir=folder).problems("val")
    assert statuses(task, task.problems("train"), demonstration) == {"right": 7}


def test_countdown_asks_by_its_rule(folder: str) -> None:
    task = Countdown(data_dir=folder, test_size=8, val_size=4)
    assert sizes(task) == {"train": 12, "val": 4, "test": 8}
    first = task.problems("train")[0]
    given, target = first.metadata["nums"], first.metadata["target"]
    assert first.question == (
        f"Use the numbers {given[0]}, 2 and 50, each at most once, with +, -, *, / and parentheses "
        f"to write an expression that equals {target}."
    )
    assert first.answer == {"nums": given, "target": target, "use_all": False}
    assert (first.id, first.difficulty) == (f"countdown/train/cd{given[0]}", 3)
    assert first.demonstration == f"<answer>50 - (2 * {given[0]})</answer>"
    strict = replace(task, use_all=True).problems("train")[0]
    assert "each exactly once" in strict.question and strict.answer == {**first.answer, "use_all": True}
    assert {p.demonstration for p in task.problems("test")} == {None}
    assert {p.demonstration for p in replace(task, demonstrations=False).problems("train")} == {None}


def test_countdown_rule_decides_the_verdict(tmp_path: Path) -> None:
    rows = [{"nums": [i, 5, 7], "target": 12} for i in range(20, 30)]
    task = Countdown(hub=write_hub(tmp_path / "hub", "default", {"train": rows}), test_size=3, val_size=2)
    assert sizes(task) == {"train": 5, "val": 2, "test": 3}
    assert {p.demonstration for p in task.problems("train")} == {None}
    for use_all, status in ((False, "right"), (True, "wrong")):
        chosen = replace(task, use_all=use_all)
        assert statuses(chosen, chosen.problems("train"), lambda _: "<answer>5 + 7</answer>") == {status: 5}


def test_countdown_leaves_out_what_comes_again_in_another_order(folder: str) -> None:
    rows = countdown_rows(24)
    again = [{**row, "id": f"{row['id']}-again", "nums": row["nums"][::-1]} for row in rows]
    task = Countdown(data_dir=folder, test_size=8, val_size=4)
    once = every(task)
    write_lines(Path(folder) / "countdown.jsonl", rows + again)
    assert every(task) == once


@pytest.mark.parametrize("kind", [SVAMP, Countdown])
def test_splits_held_out_by_hash_stay_when_rows_move(folder: str, kind: type[SVAMP] | type[Countdown]) -> None:
    task = kind(data_dir=folder, test_size=8, val_size=4)
    before = {split: questions(problems) for split, problems in every(task).items()}
    assert len(set().union(*before.values())) == sum(map(len, before.values()))
    assert every(task) == every(task)
    reseeded = replace(task, seed=1)
    assert questions(reseeded.problems("test")) == before["test"]
    assert questions(reseeded.problems("val")) != before["val"]
    larger = replace(task, test_size=10, val_size=0)
    assert larger.splits() == ("train", "test")
    assert questions(larger.problems("test")) > before["test"]
    assert replace(task, test_size=0).splits() == ("train", "val")

    path = Path(folder) / ("svamp.jsonl" if kind is SVAMP else "countdown.jsonl")
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert {split: questions(problems) for split, problems in every(task).items()} == before


@pytest.mark.parametrize(
    ("task", "file", "field"),
    [
        (SVAMP(), "svamp.jsonl", "Answer"),
        (AQuA(), "aqua_test.json", "correct"),
        (Countdown(), "countdown.jsonl", "nums"),
    ],
    ids=lambda value: value.verifier if isinstance(value, Task) else value,
)
def test_missing_data_is_one_clear_line(tmp_path: Path, folder: str, task: Task, file: str, field: str) -> None:
    name = type(task).__name__.lower()
    gone = replace(task, data_dir=str(tmp_path / "nowhere"))
    pattern = rf"{name}: no such file: .*nowhere/{file}; set data_dir to a folder of .*{file}$"
    assert re.search(pattern, error_of(lambda: gone.problems("test")))
    offline = replace(task, hub="nobody/nothing")
    pattern = rf"{name}: cannot load 'nobody/nothing' from the Hugging Face hub \(.+\); set data_dir to a folder"
    assert re.search(pattern, error_of(lambda: offline.problems("test")))
    local = replace(task, data_dir=folder)
    assert f"{name} has no split 'dev'; known: " in error_of(lambda: local.problems("dev"))

    path = Path(folder) / file
    first = json.loads(path.read_text().splitlines()[0])
    write_lines(path, [{**first, field: None}])
    assert error_of(lambda: local.problems("test")) == f"{path}:1: the field '{field}' is null"
    renamed = {key.swapcase() if key == field else key: value for key, value in first.items()}
    write_lines(path, [first, renamed])
    message = error_of(lambda: local.problems("test"))
    assert message.startswith(f"{path}:2: no field '{field}'; ") and "there are: " in message


def test_bad_values_are_one_clear_line(folder: str, tmp_path: Path) -> None:
    def after(file: str, record: dict[str, Any], task: Task) -> str:
        write_lines(Path(folder) / file, [record])
        return error_of(lambda: task.problems("test"))

    aqua, countdown = AQuA(data_dir=folder), Countdown(data_dir=folder)
    (row,) = aqua_rows(1)
    expected = "aqua: the correct option of row 0 of test is 'F'; it must be one of A to E"
    assert after("aqua_test.json", {**row, "correct": "F"}, aqua) == expected
    assert "there must be five" in after("aqua_test.json", {**row, "options": ["A)1"]}, aqua)
    for numbers, target in (("1 2", 3), ([], 3), ([1, 2.5], 3), ([1, 2], "3"), ([True, 2], 3)):
        message = after("countdown.jsonl", {"nums": numbers, "target": target}, countdown)
        assert message.startswith(f"countdown: row 0 asks for {target!r} from {numbers!r}; nums must be")
    assert "test_size must not be negative, got -1" in error_of(lambda: Countdown(test_size=-1))
    assert "val_size must not be negative, got -1" in error_of(lambda: SVAMP(val_size=-1))
    few = SVAMP(data_dir=folder, test_size=40)
    assert error_of(lambda: few.problems("test")) == "test_size is 40, but train has 40 problems"
    hub = write_hub(tmp_path / "hub", "default", {"train": [{"numbers": [1], "target": 1}]})
    message = error_of(lambda: Countdown(hub=hub).problems("train"))
    assert message == f"{hub}, train, row 0: no field 'nums'; did you mean 'numbers'? there are: numbers, target"


def real_data() -> Path:
    path = os.environ.get("SELFTRAIN_DATA")
    if not path:
        pytest.skip("needs real data: set SELFTRAIN_DATA to its folder")
    return Path(path)


def test_svamp_as_published() -> None:
    task = SVAMP(data_dir=str(real_data() / "svamp"))
    splits = every(task)
    assert {split: len(problems) for split, problems in splits.items()} == {"train": 600, "val": 100, "test": 300}
    everything = [problem for problems in splits.values() for problem in problems]
    assert len({p.id.rpartition("/")[2] for p in everything}) == len(questions(everything)) == 1000
    assert all(re.fullmatch(r"\d+", problem.answer) for problem in everything)
    assert statuses(task, everything, lambda p: f"#### {p.answer}.0") == {"right": 1000}
    assert statuses(task, splits["train"], demonstration) == {"right": 600}


def test_aqua_as_published(tmp_path: Path) -> None:
    folder = real_data() / "aqua"
    task = AQuA(data_dir=str(folder))
    splits = every(task)
    assert {split: len(problems) for split, problems in splits.items()} == {"val": 254, "test": 254}
    everything = [problem for problems in splits.values() for problem in problems]
    assert len(questions(everything)) == 508
    assert all(re.search(r"\nA\) .+\nB\) .+\nC\) .+\nD\) .+\nE\) .+\Z", problem.question) for problem in everything)
    assert statuses(task, everything, lambda p: f"The answer is {p.answer}.") == {"right": 508}
    assert statuses(task, everything, lambda p: p.answer) == {"right": 508}
    for name in ("aqua_dev.json", "aqua_test.json"):  # Rationales as demonstrations, which only train has.
        (tmp_path / "aqua_train.json").write_bytes((folder / name).read_bytes())
        train = AQuA(data_dir=str(tmp_path)).problems("train")
        assert statuses(task, train, demonstration) == {"right": 254}


@pytest.mark.parametrize("use_all", [False, True])
def test_countdown_as_published(use_all: bool) -> None:
    folder = real_data() / "countdown"
    task = Countdown(data_dir=str(folder), use_all=use_all)
    splits = every(task)
    assert {split: len(problems) for split, problems in splits.items()} == {"train": 1300, "val": 200, "test": 500}
    everything = [problem for problems in splits.values() for problem in problems]
    assert len(questions(everything)) == 2000
    assert Counter(problem.difficulty for problem in everything) == {3: 1095, 4: 905}
    rows = [json.loads(line) for line in (folder / "countdown.jsonl").read_text().splitlines()]
    gold = {row["id"]: row["solution"] for row in rows}
    for form in ("<answer>{}</answer>", "#### {}", "So {} = {target}."):
        responses = {p.id: form.format(gold[p.id.rpartition("/")[2]], **p.metadata) for p in everything}
        assert statuses(task, everything, responses) == {"right": 2000}
    assert statuses(task, splits["train"], demonstration) == {"right": 1300}
    # The target is among the numbers of 34, which counts only where not all of them must be used.
    alone = statuses(task, everything, lambda p: f"<answer>{p.metadata['target']}</answer>")
    assert alone["right"] == (0 if use_all else 34)
