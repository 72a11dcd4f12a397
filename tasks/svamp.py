"""SVAMP (Patel et al. 2021): one- and two-step word problems whose wording was varied to defeat shortcuts.

From the Hugging Face hub, with the splits it has there (700 train, 300 test), or from a local ``svamp.jsonl`` of all
1000, which was published as one: there test is chosen by hash, so local and hub splits are not the same. Validation
is carved from train. The worked solution is the published equation; one of the 1000 contradicts its answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from selftrain.tasks.published import (
    Published,
    PublishedTask,
    Questions,
    carved,
    check_sizes,
    check_split,
    split_of_one,
)
from selftrain.types import Problem

FIELDS = ("Body", "Question", "Equation", "Answer", "Type")
WHOLE = re.compile(r"(?<=[0-9])\.0+(?![0-9])")
"""The decimals of a whole number: equations are written ``( 290.0 / 2.0 )``."""


@dataclass(frozen=True)
class SVAMP(PublishedTask):
    """Options of the task."""

    hub: str = "ChilleD/SVAMP"
    data_dir: str | None = None
    """Folder of ``svamp.jsonl``."""
    test_size: int = 300
    """Problems of the local file taken for test; the hub has a test split of its own."""
    val_size: int = 100
    """Problems taken from train for validation."""
    seed: int = 0
    """Chooses the validation problems; runs with different run seeds share them."""
    demonstrations: bool = True
    """Give the equations of train to the learner."""

    verifier = "numeric_answer"
    published_under = "mit"

    def __post_init__(self) -> None:
        check_sizes(test_size=self.test_size, val_size=self.val_size)

    def splits(self) -> tuple[str, ...]:
        val = ("val",) if self.val_size else ()
        return ("train", *val, "test") if self.test_size or self.data_dir is None else ("train", *val)

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split, in upstream order; ids are upstream's, or count its rows.

        Raises:
            ValueError: the data is not there, or not SVAMP's.
        """
        check_split("svamp", split, self.splits())
        source = Published("svamp", self.hub, self.config, self.data_dir, "svamp.jsonl", FIELDS)
        rows = source.rows("test" if split == "test" else "train", "svamp.jsonl")
        kept = self._of_split({row: question_of(record) for row, record in rows.items()}, split)
        return [self._problem(split, row, rows[row]) for row in kept]

    def _of_split(self, questions: Questions, split: str) -> Questions:
        if self.data_dir is not None:
            return split_of_one(questions, split, self.test_size, self.val_size, self.seed)
        return carved(questions, split, self.val_size, self.seed)

    def _problem(self, split: str, row: int, record: dict[str, Any]) -> Problem:
        answer = WHOLE.sub("", str(record["Answer"]).strip())
        equation = WHOLE.sub("", str(record["Equation"]))
        worked = f"{_plain(equation)} = {answer}\n#### {answer}"
        return Problem(
            id=f"svamp/{split}/{record.get('ID', row)}",
            task="svamp",
            split=split,
            question=question_of(record),
            answer=answer,
            demonstration=worked if self.demonstrations and split == "train" else None,
            difficulty=len(re.findall(r"[-+*/]", equation)),
            metadata={"type": record["Type"], "equation": record["Equation"]},
        )


def question_of(record: dict[str, Any]) -> str:
    return f"{record['Body']} {record['Question']}"


def _plain(equation: str) -> str:
    """``( ( 7 + 2 ) - 3 )`` as ``(7 + 2) - 3``."""
    return equation.strip().removeprefix("( ").removesuffix(" )").replace("( ", "(").replace(" )", ")")
