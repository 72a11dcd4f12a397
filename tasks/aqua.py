"""AQuA-RAT (Ling et al. 2017): algebraic word problems with five options and worked rationales.

From the Hugging Face hub, or from local files ``aqua_dev.json`` (the val split) and ``aqua_test.json``, and
``aqua_train.json`` where it is there; they hold one record a line, as published. The splits are upstream's. The
question shows the options one per line; the answer is a letter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.tasks.published import Published, PublishedTask, check_split
from selftrain.types import Problem

FIELDS = ("question", "options", "rationale", "correct")
HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}
FILES = {"train": "aqua_train.json", "val": "aqua_dev.json", "test": "aqua_test.json"}
LABEL = re.compile(r"\A\s*([A-E])\)\s*")
"""The letter of an option, ``A)21`` or ``A) 21``."""


@dataclass(frozen=True)
class AQuA(PublishedTask):
    """Options of the task."""

    hub: str = "deepmind/aqua_rat"
    config: str | None = "raw"
    data_dir: str | None = None
    """Folder of ``aqua_dev.json`` and ``aqua_test.json``."""
    demonstrations: bool = True
    """Give the rationales of train to the learner."""

    verifier = "choice_answer"
    published_under = "apache-2.0"

    def splits(self) -> tuple[str, ...]:
        """Without train where the folder does not have it."""
        has_train = self.data_dir is None or (Path(self.data_dir) / FILES["train"]).is_file()
        return tuple(FILES) if has_train else ("val", "test")

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split, in upstream order; ids count upstream rows.

        Raises:
            ValueError: the data is not there, or not AQuA's.
        """
        check_split("aqua", split, self.splits())
        files = "aqua_dev.json and aqua_test.json"
        source = Published("aqua", self.hub, self.config, self.data_dir, files, FIELDS)
        rows = source.rows(HUB_SPLITS[split], FILES[split], ending=".jsonl")
        return [self._problem(split, row, record) for row, record in rows.items()]

    def _problem(self, split: str, row: int, record: dict[str, Any]) -> Problem:
        letter, options = record["correct"], record["options"]
        if letter not in tuple("ABCDE"):
            raise ValueError(
                f"aqua: the correct option of row {row} of {split} is {letter!r}; it must be one of A to E"
            )
        if not isinstance(options, list) or len(options) != 5:
            raise ValueError(f"aqua: the options of row {row} of {split} are {options!r}; there must be five")
        options = [LABEL.sub(r"\1) ", str(option), count=1).strip() for option in options]
        worked = f"{str(record['rationale']).strip()}\nThe answer is {letter}."
        return Problem(
            id=f"aqua/{split}/{row}",
            task="aqua",
            split=split,
            question="\n".join([str(record["question"]), *options]),
            answer=letter,
            demonstration=worked if self.demonstrations and split == "train" else None,
            metadata={"options": options},
        )
