"""Gold answers that no verifier can read are found, also where the one that reads them stands inside others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selftrain import golds
from selftrain.judging import VerifierSpec
from selftrain.types import Problem

PROBLEMS = [Problem(f"t/{gold}", "t", "train", "", gold) for gold in ("1/2", "\\min at 1")]
MATH = {"kind": "math_answer"}


@pytest.mark.parametrize(
    ("kind", "options", "found"),
    [
        ("math_answer", {}, 1),
        ("exact_answer", {}, 0),
        ("format_gate", {"pattern": ".", "verifier": "math_answer"}, 1),
        ("format_gate", {"pattern": "."}, 0),
        ("length_penalty", {"verifier": MATH}, 1),
        ("all", {"verifiers": {"a": "exact_answer", "b": MATH}}, 1),
        ("weighted", {"verifiers": {"a": "exact_answer", "b": MATH, "c": None}}, 1),
        ("any", {"verifiers": {"a": "exact_answer", "b": MATH}}, 0),
        ("any", {"verifiers": {"a": MATH, "b": {"kind": "format_gate", "pattern": ".", "verifier": MATH}}}, 1),
        ("all", {"verifiers": {"a": "exact_answer"}}, 0),
    ],
)
def test_who_must_read_a_gold_answer(kind: str, options: dict[str, Any], found: int) -> None:
    unread = golds.unread(VerifierSpec(kind, options), PROBLEMS)
    assert unread == [("t/\\min at 1", "not read: expected \\{")][:found]


def test_a_verifier_that_does_not_check_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "heavy.py"
    path.write_text(
        "class Heavy:\n    def __init__(self): raise RuntimeError\n    def __call__(self, problem, text): ...\n"
    )
    members = {"heavy": f"{path}:Heavy", "answer": MATH}
    assert len(golds.unread(VerifierSpec("all", {"verifiers": members}), PROBLEMS)) == 1
