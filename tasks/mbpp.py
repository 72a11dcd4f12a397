"""MBPP (Austin et al. 2021), sanitized: 427 short Python programs to write from a sentence and a few asserts.

From the Hugging Face hub, or from a local file ``sanitized.json``. The splits are upstream's, by number: 11 to 510 is
test, 511 to 600 val, 601 on train; 1 to 10, upstream's few-shot examples, is called demonstrations. The question shows
the asserts, as the authors' prompt does: without them nobody could know a function's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selftrain.tasks.published import Published, PublishedTask, check_split
from selftrain.types import Problem

FIELDS = ("task_id", "prompt", "code", "test_imports", "test_list")
FILE = "sanitized.json"
HUB_SPLITS = {"train": "train", "val": "validation", "test": "test", "demonstrations": "prompt"}
NUMBERS = {"demonstrations": range(1, 11), "test": range(11, 511), "val": range(511, 601), "train": range(601, 975)}
"""Upstream's numbers of the problems of a split."""


@dataclass(frozen=True)
class MBPP(PublishedTask):
    """Options of the task."""

    hub: str = "google-research-datasets/mbpp"
    config: str | None = "sanitized"
    data_dir: str | None = None
    """Folder of ``sanitized.json``."""
    demonstrations: bool = True
    """Give the reference programs of train and demonstrations to the learner."""

    verifier = "unit_tests"
    published_under = "cc-by-4.0"

    def splits(self) -> tuple[str, ...]:
        return tuple(HUB_SPLITS)

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split, in upstream order; ids are upstream's numbers.

        Raises:
            ValueError: the data is not there, or not MBPP's.
        """
        check_split("mbpp", split, self.splits())
        source = Published("mbpp", self.hub, self.config, self.data_dir, FILE, FIELDS)
        rows = source.rows(HUB_SPLITS[split], FILE).values()
        return [self._problem(split, record) for record in rows if record["task_id"] in NUMBERS[split]]

    def _problem(self, split: str, record: dict[str, Any]) -> Problem:
        tests = list(record["test_list"])
        learnt = self.demonstrations and split in ("train", "demonstrations")
        return Problem(
            id=f"mbpp/{split}/{record['task_id']}",
            task="mbpp",
            split=split,
            question="\n".join([record["prompt"].strip(), "Your code should pass these tests:", "", *tests]),
            answer={"kind": "asserts", "setup": "\n".join(record["test_imports"]), "tests": tests},
            demonstration=f"```python\n{record['code'].strip()}\n```" if learnt else None,
        )
