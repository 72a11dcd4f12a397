"""Tasks give the problems they promise, and say clearly what is wrong with the data they are given."""

from __future__ import annotations

import json
import operator
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_data import error_of, write_lines

from selftrain.tasks.arithmetic import Arithmetic, first_wrong_step
from selftrain.tasks.gsm8k import GSM8K
from selftrain.tasks.jsonl import JsonLines
from selftrain.types import Problem
from selftrain.verifiers.numeric_answer import NumericAnswer

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
SMALL = {"demonstrations": 50, "train": 400, "val": 40, "test": 60, "transfer": 30}


@pytest.fixture(scope="module")
def arithmetic() -> dict[str, list[Problem]]:
    task = Arithmetic(sizes=SMALL)
    return {split: task.problems(split) for split in task.splits()}


def test_arithmetic_has_the_sizes_and_lengths_asked_for(arithmetic: dict[str, list[Problem]]) -> None:
    assert {split: len(problems) for split, problems in arithmetic.items()} == SMALL
    for split, problems in arithmetic.items():
        operations = {len(re.findall(r"[+\-*]", p.question)) for p in problems}
        assert operations == ({7, 8} if split == "transfer" else {2, 3, 4, 5, 6})
        assert all(p.difficulty == len(re.findall(r"[+\-*]", p.question)) for p in problems)
        assert {p.demonstration is not None for p in problems} == {split == "demonstrations"}


def test_arithmetic_splits_are_disjoint(arithmetic: dict[str, list[Problem]]) -> None:
    questions = [p.question for problems in arithmetic.values() for p in problems]
    ids = [p.id for problems in arithmetic.values() for p in problems]
    assert len(set(questions)) == len(questions) == sum(SMALL.values())
    assert len(set(ids)) == len(ids)


def test_arithmetic_is_deterministic(arithmetic: dict[str, list[Problem]]) -> None:
    assert Arithmetic(sizes=SMALL).problems("train") == arithmetic["train"]
    assert Arithmetic(sizes=SMALL, seed=1).problems("train") != arithmetic["train"]


def test_arithmetic_test_problems_do_not_depend_on_the_other_sizes(arithmetic: dict[str, list[Problem]]) -> None:
    more = Arithmetic(sizes={**SMALL, "train": 500, "demonstrations": 0})
    assert more.problems("test") == arithmetic["test"]
    assert more.splits() == ("test", "val", "train", "transfer")


def test_arithmetic_answers_are_right(arithmetic: dict[str, list[Problem]]) -> None:
    for problem in arithmetic["train"]:
        first, *rest = re.findall(r"[+\-*]?\d", problem.question)
        value = int(first)
        for sign, operand in rest:
            value = OPERATIONS[sign](value, int(operand)) % 100
        assert problem.answer == str(value)


def test_arithmetic_demonstrations_are_right_in_every_step(arithmetic: dict[str, list[Problem]]) -> None:
    verifier = NumericAnswer()
    for problem in arithmetic["demonstrations"]:
        assert problem.demonstration is not None
        assert first_wrong_step(problem.question, problem.demonstration) is None
        assert verifier(problem, problem.demonstration).status == "right"


def test_a_corrupted_step_is_found_at_its_index(arithmetic: dict[str, list[Problem]]) -> None:
    for problem in arithmetic["demonstrations"]:
        steps = str(problem.demonstration).split(" ")[:-1]
        for index, step in enumerate(steps):
            left, _, result = step.partition("=")
            corrupted = [*steps[:index], f"{left}={(int(result) + 1) % 100}", *steps[index + 1 :]]
            assert first_wrong_step(problem.question, " ".join(corrupted)) == index
            assert first_wrong_step(problem.question, " ".join(steps[:index])) == index
        assert first_wrong_step(problem.question, " ".join([*steps, "1+1=2"])) == len(steps)


def test_too_few_different_problems_are_an_error() -> None:
    with pytest.raises(ValueError, match="too few different problems of 1-1 operations for 200 in 'train'"):
        Arithmetic(sizes={"train": 200}, lengths=(1, 1), operations="+").problems("train")


def test_what_there_are_too_few_of_is_counted_not_tried() -> None:
    every = 9**2 * 2 + 9**3 * 4
    task = Arithmetic(
        sizes={"test": 100, "train": every - 99}, lengths=(1, 2), operations="+-", transfer_lengths=(1, 2)
    )
    began = time.process_time()
    with pytest.raises(ValueError, match=rf"2979 in 'train' \({every - 100} are left\)"):
        task.problems("train")
    assert time.process_time() - began < 0.5
    questions = {p.question for p in replace(task, sizes={"train": every}).problems("train")}
    assert len(questions) == every


@pytest.mark.parametrize("options", [{"sizes": {"trian": 5}}, {"operations": "+/"}, {"operations": ""}])
def test_arithmetic_refuses_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"unknown split trian|operations must be made of"):
        Arithmetic(**options)


def rows(count: int) -> list[dict[str, str]]:
    return [
        {
            "question": f"Ann has {i} pens and buys {i} more. How many has she?",
            "answer": f"She has {i}+{i}=<<{i}+{i}={2 * i}>>{2 * i} pens.\n#### 1,{2 * i:03d}",
        }
        for i in range(count)
    ]


@pytest.fixture
def gsm8k_folder(tmp_path: Path) -> str:
    write_lines(tmp_path / "train.jsonl", rows(40))
    write_lines(tmp_path / "test.jsonl", rows(5))
    return str(tmp_path)


def test_gsm8k_reads_local_files(gsm8k_folder: str) -> None:
    task = GSM8K(data_dir=gsm8k_folder, val_size=10)
    assert task.splits() == ("train", "val", "test")
    first, *_ = task.problems("test")
    assert first == Problem(
        "gsm8k/test/0",
        "gsm8k",
        "test",
        rows(1)[0]["question"],
        "1000",
        demonstration=None,
        difficulty=1,
        metadata={"solution": rows(1)[0]["answer"]},
    )
    assert [len(task.problems(split)) for split in task.splits()] == [30, 10, 5]


def test_gsm8k_demonstrations_lose_their_marks(gsm8k_folder: str) -> None:
    problem = GSM8K(data_dir=gsm8k_folder, val_size=0).problems("train")[3]
    assert problem.demonstration == "She has 3+3=6 pens.\n#### 1,006"
    kept = GSM8K(data_dir=gsm8k_folder, val_size=0, keep_marks=True).problems("train")[3]
    assert kept.demonstration == rows(4)[3]["answer"]
    without = GSM8K(data_dir=gsm8k_folder, val_size=0, demonstrations=False).problems("train")
    assert {p.demonstration for p in without} == {None}


def test_gsm8k_carves_validation_from_train(gsm8k_folder: str, tmp_path: Path) -> None:
    task = GSM8K(data_dir=gsm8k_folder, val_size=10)
    train, val = task.problems("train"), task.problems("val")
    assert len({p.question for p in (*train, *val)}) == 40
    assert task.problems("val") == val
    assert {p.question for p in replace(task, seed=1).problems("val")} != {p.question for p in val}
    larger = {p.question for p in replace(task, val_size=20).problems("val")}
    assert {p.question for p in val} < larger

    (tmp_path / "shuffled").mkdir()
    write_lines(tmp_path / "shuffled" / "train.jsonl", rows(40)[::-1])
    moved = GSM8K(data_dir=str(tmp_path / "shuffled"), val_size=10)
    assert {p.question for p in moved.problems("val")} == {p.question for p in val}


def test_gsm8k_says_what_is_wrong(gsm8k_folder: str, tmp_path: Path) -> None:
    missing = GSM8K(data_dir=str(tmp_path / "nowhere"))
    assert re.search(r"no such file: .*nowhere/train\.jsonl; set data_dir", error_of(lambda: missing.problems("train")))
    task = GSM8K(data_dir=gsm8k_folder, val_size=40)
    assert "val_size is 40, but train has 40 problems" in error_of(lambda: task.problems("train"))
    assert "no split 'dev'; known: train, val, test" in error_of(lambda: task.problems("dev"))
    assert "val_size must not be negative" in error_of(lambda: GSM8K(val_size=-1))
    write_lines(tmp_path / "test.jsonl", [{"question": "?", "answer": "five"}])
    assert "the answer of row 0 has no '####': 'five'" in error_of(lambda: task.problems("test"))
    write_lines(tmp_path / "test.jsonl", [{"question": "?", "answr": "#### 5"}])
    assert "test.jsonl:1: no field 'answer'" in error_of(lambda: task.problems("test"))


def test_gsm8k_without_a_hub_says_to_set_data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    message = error_of(lambda: GSM8K(hub="nobody/nothing").problems("test"))
    assert re.search(r"cannot load 'nobody/nothing' from the Hugging Face hub \(.+\); set data_dir", message)


def test_gsm8k_as_published() -> None:
    folder = os.environ.get("SELFTRAIN_DATA")
    if not folder:
        pytest.skip("needs real data: set SELFTRAIN_DATA to its folder")
    task = GSM8K(data_dir=f"{folder}/gsm8k")
    splits = {split: task.problems(split) for split in task.splits()}
    assert {split: len(problems) for split, problems in splits.items()} == {"train": 6973, "val": 500, "test": 1319}
    everything = [p for problems in splits.values() for p in problems]
    assert len({p.id for p in everything}) == 7473 + 1319
    assert all(re.fullmatch(r"-?\d+(\.\d+)?", p.answer) for p in everything)
    verifier = NumericAnswer()
    for problem in splits["train"]:
        assert problem.demonstration is not None and "<<" not in problem.demonstration
        assert verifier(problem, problem.demonstration).status == "right"
    assert splits["test"][0].answer == "18"


def test_jsonl_maps_fields_and_keeps_the_rest(tmp_path: Path) -> None:
    records = [
        {"problem": "1+1?", "solution": "2", "worked": "1+1=2", "key": "a7", "level": 3, "type": "sum"},
        {"problem": "2+2?", "solution": "4", "worked": None, "key": "a8", "level": 1.5, "type": "sum"},
    ]
    path = write_lines(tmp_path / "own.jsonl", records)
    names = {"question": "problem", "answer": "solution", "demonstration": "worked", "id": "key", "difficulty": "level"}
    task = JsonLines(files={"train": str(path)}, fields=names, name="own")
    assert task.splits() == ("train",)
    assert task.problems("train") == [
        Problem("own/train/a7", "own", "train", "1+1?", "2", "1+1=2", 3.0, {"type": "sum"}),
        Problem("own/train/a8", "own", "train", "2+2?", "4", None, 1.5, {"type": "sum"}),
    ]


def test_jsonl_reads_fields_of_the_usual_names_without_a_word(tmp_path: Path) -> None:
    record = {"question": "1+1?", "answer": ["2", "two"], "id": 12, "demonstration": "1+1=2", "difficulty": "easy"}
    (problem,) = JsonLines({"test": str(write_lines(tmp_path / "t.jsonl", [record]))}).problems("test")
    assert (problem.id, problem.answer, problem.demonstration) == ("jsonl/test/12", ["2", "two"], "1+1=2")
    assert (problem.difficulty, problem.metadata) == (None, {"difficulty": "easy"})


def test_jsonl_ids_without_a_field_follow_from_the_question(tmp_path: Path) -> None:
    records = [{"question": f"{i}+1?", "answer": i + 1} for i in range(20)]
    one = JsonLines({"train": str(write_lines(tmp_path / "a.jsonl", records))}).problems("train")
    other = JsonLines({"train": str(write_lines(tmp_path / "b.jsonl", records[::-1]))}).problems("train")
    assert {p.id: p.question for p in one} == {p.id: p.question for p in other}
    assert all(re.fullmatch(r"jsonl/train/[0-9a-f]{12}", p.id) for p in one)


def test_jsonl_reads_a_json_list_and_parquet_alike(tmp_path: Path) -> None:
    from pyarrow import Table
    from pyarrow.parquet import write_table

    records = [{"question": f"{i}+1?", "answer": str(i + 1), "tags": ["x"]} for i in range(5)]
    write_lines(tmp_path / "t.jsonl", records)
    (tmp_path / "t.json").write_text(json.dumps(records, indent=1))
    write_table(Table.from_pylist(records), tmp_path / "t.parquet")
    task = JsonLines({ending: str(tmp_path / f"t.{ending}") for ending in ("jsonl", "json", "parquet")})
    read = [[replace(p, id="", split="") for p in task.problems(split)] for split in task.splits()]
    assert read[0] == read[1] == read[2]
    assert [p.answer for p in read[0]] == ["1", "2", "3", "4", "5"]


BAD_FILES = {
    "empty": ("", r"t\.jsonl holds no problems$"),
    "blank": ("\n \n", r"t\.jsonl holds no problems$"),
    "invalid": ('{"question": "a", "answer": 1}\n{"question": \n', r"t\.jsonl:2: invalid JSON: .* column"),
    "no_object": ('["a"]\n', r"t\.jsonl:1: expected an object with fields, got list$"),
    "missing_field": (
        '{"question": "a", "answer": 1}\n\n{"qestion": "b", "answer": 1}\n',
        r"t\.jsonl:3: no field 'question' for the question; did you mean 'qestion'\? there are: qestion, answer; "
        r"set fields\.question$",
    ),
    "no_such_field": ('{"q": "a", "a": 1}\n', r"t\.jsonl:1: no field 'question' .*there are: q, a; set fields"),
    "question_is_a_number": ('{"question": 5, "answer": 1}\n', r"t\.jsonl:1: the question is 5; it must be text$"),
    "question_is_blank": ('{"question": " ", "answer": 1}\n', r"t\.jsonl:1: the question is ' '; it must be text$"),
    "same_question": (
        '{"question": "a", "answer": 1}\n{"question": "a", "answer": 2}\n',
        r"t\.jsonl:2: problem id 'jsonl/train/[0-9a-f]{12}' is also that of .*t\.jsonl:1$",
    ),
    "same_id": (
        '{"id": 1, "question": "a", "answer": 1}\n{"id": 1, "question": "b", "answer": 2}\n',
        r"t\.jsonl:2: problem id 'jsonl/train/1' is also that of .*t\.jsonl:1$",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_jsonl_says_what_is_wrong_with_a_file(tmp_path: Path, case: str) -> None:
    text, message = BAD_FILES[case]
    (tmp_path / "t.jsonl").write_text(text)
    assert re.search(message, error_of(lambda: JsonLines({"train": str(tmp_path / "t.jsonl")}).problems("train")))


def test_jsonl_says_what_is_wrong_with_a_place(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "train.jsonl", [{"question": "a", "answer": 1, "level": "hard"}])

    def problems(file: str, **fields: str) -> Callable[[], Any]:
        return lambda: JsonLines({"train": str(tmp_path / file)}, fields).problems("train")

    assert "no such file" in error_of(problems("trian.jsonl"))
    assert "did you mean 'train.jsonl'?" in error_of(problems("trian.jsonl"))
    (tmp_path / "train.csv").write_text("question,answer\n")
    assert "unknown kind of file; known: .jsonl, .json, .parquet" in error_of(problems("train.csv"))
    (tmp_path / "bad.parquet").write_text("no parquet")
    assert "bad.parquet: cannot be read as Parquet" in error_of(problems("bad.parquet"))
    (tmp_path / "bad.json").write_text('{"question": "a"}')
    assert "bad.json: expected a list of objects, got dict" in error_of(problems("bad.json"))
    (tmp_path / "latin.jsonl").write_bytes('{"question": "é", "answer": 1}\n'.encode("latin-1"))
    assert "latin.jsonl:1: not UTF-8 text" in error_of(problems("latin.jsonl"))
    message = error_of(problems("train.jsonl", id="key"))
    assert message == f"{path}:1: no field 'key' for the id; there are: question, answer, level; set fields.id"
    assert "the difficulty is 'hard'; it must be a number" in error_of(problems("train.jsonl", difficulty="level"))


def test_jsonl_says_what_is_wrong_with_its_options(tmp_path: Path) -> None:
    assert "unknown role 'anwser' (did you mean 'answer'?)" in error_of(lambda: JsonLines(fields={"anwser": "a"}))
    assert "files: name at least one" in error_of(lambda: JsonLines().splits())
    assert "has no split 'test'" in error_of(lambda: JsonLines({"train": "t.jsonl"}).problems("test"))
