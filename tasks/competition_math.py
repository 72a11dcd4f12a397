r"""MATH (Hendrycks et al. 2021): competition problems in seven subjects and five levels, with worked solutions.

From the Hugging Face hub, or from local files ``train.jsonl`` and ``test.jsonl`` with the fields ``problem``,
``level``, ``type`` and ``solution``. There is no validation split upstream, so one is carved from train. The gold
answer is what the last ``\boxed{}`` of the worked solution holds, or the field ``answer`` where a file has it.

In place of ``train.jsonl`` a list ``train_answers.json`` will do, with the fields ``problem``, ``answer``,
``difficulty`` and ``type``: it has no worked solutions, and rows whose answer it leaves open are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.tasks.boxed import last_boxed
from selftrain.tasks.published import Published, PublishedTask, Rows, carved, check_sizes, check_split
from selftrain.types import Problem

SPLITS = ("train", "val", "test")
FIELDS = ("problem", "type", "solution")
ANSWERS = "train_answers.json"
FILES = f"test.jsonl and train.jsonl or {ANSWERS}"


@dataclass(frozen=True)
class MATH(PublishedTask):
    """Options of the task."""

    hub: str = "DigitalLearningGmbH/MATH-lighteval"
    config: str | None = "default"
    data_dir: str | None = None
    """Folder of ``test.jsonl`` and ``train.jsonl``, or ``train_answers.json``."""
    val_size: int = 500
    """Problems taken from train for validation."""
    seed: int = 0
    """Chooses which; runs with different run seeds share them."""
    demonstrations: bool = True
    """Give the worked solutions of train to the learner."""

    verifier = "math_answer"
    published_under = "mit"

    def __post_init__(self) -> None:
        check_sizes(val_size=self.val_size)

    def splits(self) -> tuple[str, ...]:
        return SPLITS if self.val_size else ("train", "test")

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split, in upstream order; ids count upstream rows.

        Raises:
            ValueError: the data is not there, or not MATH's.
        """
        check_split("math", split, self.splits())
        rows = self._rows("test" if split == "test" else "train")
        questions = {row: record["problem"] for row, record in rows.items()}
        kept = carved(questions, split, self.val_size, self.seed)
        return [self._problem(split, row, rows[row]) for row in kept]

    def _rows(self, name: str) -> Rows:
        folder = Path(self.data_dir or "")
        if name == "test" or self.data_dir is None or (folder / "train.jsonl").is_file():
            return self._source(*FIELDS).rows(name, f"{name}.jsonl")
        if not (folder / ANSWERS).is_file():
            raise ValueError(
                f"math: no such file: {folder / 'train.jsonl'}, nor {ANSWERS}; set data_dir to a folder of {FILES}"
            )
        rows = self._source("problem", "type").rows(name, ANSWERS)
        return {row: record for row, record in rows.items() if "answer" not in record or given_answer(record)}

    def _source(self, *fields: str) -> Published:
        return Published("math", self.hub, self.config, self.data_dir, FILES, fields)

    def _problem(self, split: str, row: int, record: dict[str, Any]) -> Problem:
        solution = record.get("solution")
        worked = {} if solution is None else {"solution": solution}
        return Problem(
            id=f"math/{split}/{row}",
            task="math",
            split=split,
            question=record["problem"],
            answer=gold("math", f"row {row} of {split}", record),
            demonstration=solution if self.demonstrations and split == "train" else None,
            difficulty=level(record.get("level", record.get("difficulty"))),
            metadata={"subject": record["type"], **worked},
        )


def gold(task: str, place: str, record: dict[str, Any]) -> str:
    r"""The answer a record gives, or the last box of its solution.

    Raises:
        ValueError: it has neither.
    """
    solution = str(record.get("solution") or "")
    answer = given_answer(record) or last_boxed(solution)
    if not answer:
        raise ValueError(f"{task}: {place} has no final answer: no 'answer', and no \\boxed{{}} in {solution[-60:]!r}")
    return answer


def given_answer(record: dict[str, Any]) -> str:
    """The field ``answer``, empty where there is none or it is open."""
    answer = record.get("answer")
    return "" if answer is None else str(answer).strip()


def level(written: Any) -> float | None:
    """``5`` of ``Level 5``; None where upstream does not know it (``Level ?``, or 0)."""
    number = re.fullmatch(r"(?:Level )?([1-5])(?:\.0)?", str(written))
    return float(number.group(1)) if number else None
