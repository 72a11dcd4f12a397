"""HumanEval (Chen et al. 2021): 164 Python functions to write from a signature and a docstring, with hidden tests.

From the Hugging Face hub, or from a local file ``HumanEval.jsonl``. There is a test split only. The question is the
prompt as published; of the tests it shows what its docstring does. The prompt stands in the metadata too, as what a
program is run behind: its imports and helpers, and the signature that a bare continuation goes on from.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from selftrain.tasks.published import Published, PublishedTask, check_split
from selftrain.types import Problem

FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
FILE = "HumanEval.jsonl"


@dataclass(frozen=True)
class HumanEval(PublishedTask):
    """Options of the task."""

    hub: str = "openai/openai_humaneval"
    data_dir: str | None = None
    """Folder of ``HumanEval.jsonl``."""

    verifier = "unit_tests"
    published_under = "mit"

    def splits(self) -> tuple[str, ...]:
        return ("test",)

    def problems(self, split: str) -> list[Problem]:
        """All problems, in upstream order.

        Raises:
            ValueError: the data is not there, or not HumanEval's.
        """
        check_split("humaneval", split, self.splits())
        source = Published("humaneval", self.hub, self.config, self.data_dir, FILE, FIELDS)
        return [_problem(record) for record in source.rows("test", FILE).values()]


def _problem(record: dict[str, Any]) -> Problem:
    prompt, entry_point = record["prompt"], record["entry_point"]
    return Problem(
        id=f"humaneval/test/{str(record['task_id']).rpartition('/')[2]}",
        task="humaneval",
        split="test",
        question=prompt,
        answer={"kind": "check", "entry_point": entry_point, "test": _helpers(prompt, record) + record["test"]},
        metadata={"prefix": prompt, "entry_point": entry_point},
    )


def _helpers(prompt: str, record: dict[str, Any]) -> str:
    """Functions of the prompt that the tests call, as the tests' own: a program that replaces ``encode_cyclic`` by
    one that does nothing would pass with a decoder that does nothing."""
    try:
        tests, asked = ast.parse(record["test"]), ast.parse(prompt)
    except SyntaxError as error:
        raise ValueError(f"humaneval: {record['task_id']} is not Python: {error}") from error
    called = {node.id for node in ast.walk(tests) if isinstance(node, ast.Name)} - {record["entry_point"]}
    helping = any(isinstance(node, ast.FunctionDef) and node.name in called for node in asked.body)
    kept = [node for node in asked.body if not isinstance(node, ast.FunctionDef) or node.name in called]
    return "".join(f"{ast.unparse(node)}\n\n" for node in kept) if helping else ""
