"""TRL: conversational or plain rows of ``messages``, or of ``prompt`` and ``completion``.

Read in TRL 1.16.0: dataset formats (``trl/data_utils.py``, docs/source/dataset_formats.md), which SFT data has, and the
completions GRPOTrainer logs with ``log_completions`` (``trainer/grpo_trainer.py``): Parquet files
``completions/completions_00010.parquet`` with ``step``, ``prompt``, ``completion``, a column per reward function and
``advantage``. These say nothing of truncation; a column ``finish_reason``, ``truncated`` or ``is_truncated`` of one's
own is honoured.
"""

from __future__ import annotations

from dataclasses import dataclass

from selftrain.rollouts.base import Rollout, Row, Unusable, asked, field, finish, messages_of, only_reply, reply


@dataclass(frozen=True)
class TRL:
    """The last assistant turn is the response, the turns before it are the prompt."""

    def recognises(self, row: Row) -> bool:
        return "messages" in row or {"prompt", "completion"} <= row.keys()

    def read(self, row: Row, place: str) -> Rollout:
        if row.get("completion") is None and "messages" in row:
            turns = messages_of(field(row, "messages", "conversation", place), "messages", place)
            if not turns or turns[-1]["role"] != "assistant":
                raise Unusable("no assistant turn at its end")
            prompt, last = asked(turns[:-1], "messages", place), reply(turns[-1], place)
        else:
            prompt = asked(field(row, "prompt", "prompt", place), "prompt", place)
            completion = field(row, "completion", "response", place)
            last = reply(only_reply(completion, "completion", place), place)
        text, pieces = last
        truncated = row.get("truncated", row.get("is_truncated"))
        return Rollout(
            text,
            prompt,
            problem_id=row.get("id"),
            answer=row.get("answer"),
            finish=finish(row.get("finish_reason"), truncated),
            pieces=pieces,
        )
