"""AIME 2024: the 30 problems of the American Invitational Mathematics Examination I and II, to evaluate on.

From the Hugging Face hub, or from a local file ``aime24.jsonl`` with the fields ``id``, ``problem``, ``answer`` and,
where there are worked solutions, ``solution``. Every answer is an integer from 0 to 999; upstream writes three digits
(``025``), here it is the number. With 30 problems an interval is wide: draw many samples of each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from selftrain.tasks.published import Published, PublishedTask, check_split
from selftrain.types import Problem


@dataclass(frozen=True)
class AIME24(PublishedTask):
    """Options of the task."""

    hub: str = "HuggingFaceH4/aime_2024"
    data_dir: str | None = None
    """Folder of ``aime24.jsonl``."""

    verifier = "math_answer"

    def splits(self) -> tuple[str, ...]:
        return ("test",)

    def problems(self, split: str) -> list[Problem]:
        """The problems, in upstream order; ids are upstream's.

        Raises:
            ValueError: the data is not there, or not AIME's.
        """
        check_split("aime24", split, self.splits())
        source = Published("aime24", self.hub, self.config, self.data_dir, "aime24.jsonl", ("id", "problem", "answer"))
        # The hub calls its one split train.
        return [self._problem(split, record) for record in source.rows("train", "aime24.jsonl").values()]

    def _problem(self, split: str, record: dict[str, Any]) -> Problem:
        answer = str(record["answer"]).strip()
        if not re.fullmatch(r"[0-9]{1,3}", answer):
            raise ValueError(f"aime24: the answer of problem {record['id']} is {answer!r}; it must be 0 to 999")
        worked = {"solution": record["solution"]} if record.get("solution") else {}
        return Problem(
            id=f"aime24/{split}/{record['id']}",
            task="aime24",
            split=split,
            question=record["problem"],
            answer=str(int(answer)),
            metadata=worked,
        )
