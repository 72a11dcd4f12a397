"""Small data sets in the shape of the published ones, and what tests ask of the tasks that read them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selftrain import registry
from selftrain.tasks.aime24 import AIME24
from selftrain.tasks.aqua import AQuA
from selftrain.tasks.competition_math import MATH
from selftrain.tasks.countdown import Countdown
from selftrain.tasks.math500 import MATH500
from selftrain.tasks.svamp import SVAMP
from selftrain.types import Problem

Task = SVAMP | AQuA | Countdown | MATH | MATH500 | AIME24


def svamp_rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "ID": f"chal-{i}",
            "Body": f"Ann has {i} bags of 4 pens. She gives 3 pens away.",
            "Question": "How many pens are left?",
            "Equation": f"( ( {i}.0 * 4.0 ) - 3.0 )",
            "Answer": 4.0 * i - 3,
            "Type": "Subtraction",
        }
        for i in range(1, count + 1)
    ]


def aqua_rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "question": f"What is {i} + 1?",
            "options": [f"A){i}", f"B) {i + 1}", "C)", "D)0.5", "E)None of these"],
            "rationale": f"{i} + 1 = {i + 1}\n",
            "correct": "B",
        }
        for i in range(count)
    ]


def countdown_rows(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"cd{i}", "nums": [i, 2, 50], "target": 50 - 2 * i, "solution": f"50 - (2 * {i})"} for i in range(count)
    ]


def gsm8k_rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "question": f"Ann has {i} bags of 4 pens. How many pens has she?",
            "answer": f"She has {i} x 4 = <<{i}*4={4 * i}>>{4 * i} pens.\n#### {4 * i}",
        }
        for i in range(1, count + 1)
    ]


def math_rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "problem": f"What is $\\frac{{{i}}}{{7}} + 1$?",
            "level": f"Level {i % 5 + 1}",
            "type": "Prealgebra",
            "solution": f"As $1 = \\frac{{7}}{{7}}$, the sum is $\\boxed{{\\frac{{{i + 7}}}{{7}}}}$.",
        }
        for i in range(1, count + 1)
    ]


def math500_rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "problem": row["problem"],
            "solution": row["solution"],
            "answer": f"\\frac{{{i + 7}}}{{7}}",
            "subject": row["type"],
            "level": i % 5 + 1,
            "unique_id": f"test/prealgebra/{i}.json",
        }
        for i, row in enumerate(math_rows(count), 1)
    ]


def aime_rows(count: int) -> list[dict[str, Any]]:
    return [
        {"id": 60 + i, "problem": f"Find the number of integers from 1 to {i}.", "answer": f"{i:03d}", "url": "x"}
        for i in range(1, count + 1)
    ]


def write_lines(path: Path, records: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_hub(folder: Path, config: str, splits: dict[str, list[dict[str, Any]]]) -> str:
    """A data set as the hub shows it: Parquet files, and a card that names configuration and splits."""
    from pyarrow import Table
    from pyarrow.parquet import write_table

    folder.mkdir()
    card = ["---", "configs:", f"- config_name: {config}", "  data_files:"]
    for split, records in splits.items():
        write_table(Table.from_pylist(records), folder / f"{split}.parquet")
        card += [f"  - split: {split}", f"    path: {split}.parquet"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return str(folder)


def every(task: Task) -> dict[str, list[Problem]]:
    return {split: task.problems(split) for split in task.splits()}


def sizes(task: Task) -> dict[str, int]:
    return {split: len(problems) for split, problems in every(task).items()}


def questions(problems: list[Problem]) -> set[str]:
    return {problem.question for problem in problems}


def statuses(task: Task, problems: list[Problem], response: Callable[[Problem], str] | dict[str, str]) -> Counter[str]:
    """What the task's verifier says of a response to each problem, given by function or by id."""
    judge = registry.build("verifier", task.verifier, {})
    texts = [response[p.id] if isinstance(response, dict) else response(p) for p in problems]
    return Counter(judge(p, text).status for p, text in zip(problems, texts, strict=True))


def demonstration(problem: Problem) -> str:
    return str(problem.demonstration)


def error_of(call: Callable[[], Any]) -> str:
    """What a task says is wrong, in one line."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message
