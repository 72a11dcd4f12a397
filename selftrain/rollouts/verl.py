"""verl: what ``trainer.rollout_data_dir`` and ``trainer.validation_data_dir`` dump, ``<step>.jsonl``.

Read in volcengine/verl at 00401103 (``verl/trainer/ppo/ray_trainer.py``, ``_dump_generations``): rows of ``input`` and
``output``, both decoded without special tokens, ``gts`` (the gold answer; dumps before mid-2025 have none), ``score``,
``step`` and what the reward function returned. ``input`` is the rendered chat. The dump says nothing of truncation, and
the output of a multi-turn rollout holds the tools' answers too: dump single turns only.
"""

from __future__ import annotations

from dataclasses import dataclass

from selftrain.rollouts.base import Rollout, Row, finish, text_field


@dataclass(frozen=True)
class Verl:
    """The response is ``output``, the prompt ``input``, the gold answer ``gts``."""

    def recognises(self, row: Row) -> bool:
        return {"input", "output"} <= row.keys() and bool({"score", "gts", "step"} & row.keys())

    def read(self, row: Row, place: str) -> Rollout:
        return Rollout(
            text_field(row, "output", "response", place),
            text_field(row, "input", "prompt", place),
            answer=row.get("gts"),
            finish=finish(row.get("finish_reason"), row.get("truncated")),
        )
