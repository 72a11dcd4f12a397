"""GSM8K (Cobbe et al. 2021): grade-school word problems with worked solutions.

From the Hugging Face hub, or from local files ``train.jsonl`` and ``test.jsonl`` with the fields ``question`` and
``answer``. There is no validation split upstream, so one is carved from train. The worked solution as upstream writes
it stands in the metadata: other harnesses grade against it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from selftrain.tasks.published import Published, PublishedTask, carved, check_sizes, check_split
from selftrain.types import Problem

SPLITS = ("train", "val", "test")
MARKS = re.compile(r"<<[^<>]*>>")
"""Calculator annotations such as ``<<48/2=24>>``."""


@dataclass(frozen=True)
class GSM8K(PublishedTask):
    """Options of the task."""

    hub: str = "openai/gsm8k"
    config: str | None = "main"
    data_dir: str | None = None
    """Folder of ``train.jsonl`` and ``test.jsonl``."""
    val_size: int = 500
    """Problems taken from train for validation."""
    seed: int = 0
    """Chooses which; runs with different run seeds share them."""
    demonstrations: bool = True
    """Give the worked solutions of train to the learner."""
    keep_marks: bool = False
    """Leave calculator annotations in the worked solutions."""

    verifier = "numeric_answer"
    published_under = "mit"

    def __post_init__(self) -> None:
        check_sizes(val_size=self.val_size)

    def splits(self) -> tuple[str, ...]:
        return SPLITS if self.val_size else ("train", "test")

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split, in upstream order; ids count upstream rows.

        Raises:
            ValueError: the data is not there, or not GSM8K's.
        """
        check_split("gsm8k", split, self.splits())
        files = "train.jsonl and test.jsonl"
        source = Published("gsm8k", self.hub, self.config, self.data_dir, files, ("question", "answer"))
        name = "test" if split == "test" else "train"
        rows = source.rows(name, f"{name}.jsonl")
        questions = {row: record["question"] for row, record in rows.items()}
        kept = carved(questions, split, self.val_size, self.seed)
        return [self._problem(split, row, rows[row]) for row in kept]

    def _problem(self, split: str, row: int, record: dict[str, Any]) -> Problem:
        _, mark, answer = record["answer"].rpartition("####")
        if not mark:
            raise ValueError(f"gsm8k: the answer of row {row} has no '####': {answer[:60]!r}")
        worked = record["answer"] if self.keep_marks else MARKS.sub("", record["answer"])
        return Problem(
            id=f"gsm8k/{split}/{row}",
            task="gsm8k",
            split=split,
            question=record["question"],
            answer=answer.strip().replace(",", ""),
            demonstration=worked if self.demonstrations and split == "train" else None,
            difficulty=len(MARKS.findall(record["answer"])),
            metadata={"solution": record["answer"]},
        )
