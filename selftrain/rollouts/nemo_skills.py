"""NeMo-Skills: ``output.jsonl`` and ``output-rs0.jsonl`` ... of ``ns generate`` and ``ns eval``.

Read in NVIDIA/NeMo-Skills at 025b4859 (``nemo_skills/inference/generate.py``: a row is the input row with the output on
top), 0317b428 (``inference/model/base.py``: ``generation``, ``num_generated_tokens``, ``finish_reason``) and 169ce4d5
(docs/pipelines/generation.md: ``predicted_answer``, ``symbolic_correct``). Where reasoning was parsed away, the whole
text stands in ``_full_generation``; rows say ``finish_reason`` where the server told one.
"""

from __future__ import annotations

from dataclasses import dataclass

from selftrain.rollouts.base import Rollout, Row, Unusable, asked, finish, missing, text_field

PROMPTS = ("problem", "question", "messages", "prompt")


@dataclass(frozen=True)
class NemoSkills:
    """The response is ``generation``, the question ``problem``, the gold answer ``expected_answer``."""

    def recognises(self, row: Row) -> bool:
        return "generation" in row

    def read(self, row: Row, place: str) -> Rollout:
        whole = "_full_generation" if row.get("_full_generation") else "generation"
        text = text_field(row, whole, "response", place)
        name = next((name for name in PROMPTS if row.get(name) is not None), None)
        if name is None and row.get("id") is None:
            raise missing(PROMPTS[0], "question", row, place)
        if row.get("tool_calls") or row.get("num_tool_calls") or row.get("code_rounds_executed"):
            raise Unusable("tool calls")
        return Rollout(
            text,
            asked(row[name], name, place) if name else None,
            problem_id=row.get("id"),
            answer=row.get("expected_answer"),
            finish=finish(row.get("finish_reason")),
        )
