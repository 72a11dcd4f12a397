r"""MATH-500 (Lightman et al. 2023): 500 problems of MATH's test split, to evaluate on.

From the Hugging Face hub, or from a local file ``math500.jsonl`` with the same fields. It is all test: beside the task
``math`` in a run it needs no care, as every evaluated question is left out of what is learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selftrain.tasks.competition_math import gold, level
from selftrain.tasks.published import Published, PublishedTask, check_split
from selftrain.types import Problem

FIELDS = ("problem", "solution", "answer", "subject", "level", "unique_id")


@dataclass(frozen=True)
class MATH500(PublishedTask):
    """Options of the task."""

    hub: str = "HuggingFaceH4/MATH-500"
    data_dir: str | None = None
    """Folder of ``math500.jsonl``."""

    verifier = "math_answer"
    published_under = "mit"

    def splits(self) -> tuple[str, ...]:
        return ("test",)

    def problems(self, split: str) -> list[Problem]:
        """The problems, in upstream order; ids are upstream's: ``math500/test/algebra/1072``.

        Raises:
            ValueError: the data is not there, or not MATH-500's.
        """
        check_split("math500", split, self.splits())
        source = Published("math500", self.hub, self.config, self.data_dir, "math500.jsonl", FIELDS)
        return [self._problem(split, row, record) for row, record in source.rows("test", "math500.jsonl").items()]

    def _problem(self, split: str, row: int, record: dict[str, Any]) -> Problem:
        name = str(record["unique_id"]).removeprefix("test/").removesuffix(".json")
        return Problem(
            id=f"math500/{split}/{name}",
            task="math500",
            split=split,
            question=record["problem"],
            answer=gold("math500", f"row {row}", record),
            difficulty=level(record["level"]),
            metadata={"subject": record["subject"], "solution": record["solution"]},
        )
