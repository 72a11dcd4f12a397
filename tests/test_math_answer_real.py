"""The verifier of mathematical answers against labelled cases, real gold answers and real model answers."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from published import DATA, needs_data

from selftrain.types import Problem
from selftrain.verifiers.math_answer import MathAnswer

pytestmark = needs_data
JUDGE = MathAnswer()


def read(name: str) -> list[Any]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def right(gold: Any, response: str) -> bool:
    return JUDGE(Problem("task/test/0", "task", "test", "", gold), response).status == "right"


def mistakes(rows: list[Any]) -> tuple[list[str], list[str]]:
    """Ids that are accepted though wrong, and rejected though right."""
    judged = [(row["id"], row["expected"], right(row["gold"], row["pred"])) for row in rows]
    accepted = [name for name, expected, found in judged if found and not expected]
    return accepted, [name for name, expected, found in judged if expected and not found]


def test_core_cases() -> None:
    rows = [row for row in read("graders/cases.jsonl") if row["core"] and "ascii" not in row["tags"]]
    accepted, rejected = mistakes(rows)
    assert len(rows) > 300
    assert len(accepted) <= 1, accepted
    assert len(accepted) + len(rejected) <= 0.02 * len(rows), rejected


def test_derived_cases() -> None:
    assert mistakes(read("graders/derived.jsonl")) == ([], [])


def test_adversarial_cases() -> None:
    rows = read("graders/adversarial.jsonl")
    right(1, "\\boxed{\\sqrt{2}}")  # What is imported late is imported once.
    seconds = []
    for row in rows:
        began = time.process_time()
        right(row["gold"], row["pred"])
        seconds.append(time.process_time() - began)
    accepted, rejected = mistakes(rows)
    assert accepted == []
    assert len(rejected) <= 1, rejected
    assert max(seconds) < 0.5


def thousands(gold: str) -> str:
    return re.sub(r"\A(\$?-?[0-9]{1,3})([0-9]{3})(\$?)\Z", r"\1{,}\2\3", gold)


def brackets(gold: str) -> str:
    if "\\left" in gold or gold.count("(") != gold.count(")"):
        return gold
    return re.sub(r"(?<!\\)[()]", lambda match: ("\\left" if match[0] == "(" else "\\right") + match[0], gold)


def words(gold: str) -> str:
    if "\\text" in gold:
        return gold.replace("\\text", "\\mathrm")
    return f"\\text{{{gold}}}" if re.fullmatch("[A-Za-z ]+", gold) else gold + "\\text{ }"


REWRITINGS: dict[str, Callable[[str], str]] = {
    "itself": str,
    "boxed": lambda gold: f"\\boxed{{{gold}}}",
    "dfrac": lambda gold: re.sub(r"\\t?frac", r"\\dfrac", gold),
    "spaces": lambda gold: re.sub(r"(?<![0-9\\])([+=])", r" \1 ", gold),
    "left right": brackets,
    "thousands": thousands,
    "period": lambda gold: gold + ".",
    "text": words,
}


@pytest.mark.parametrize("rewriting", REWRITINGS)
def test_gold_answers_equal_themselves(rewriting: str) -> None:
    rows = read("graders/gold_answers.jsonl")[:: 1 if rewriting == "itself" else 3]
    failed = [row["gold"] for row in rows if not right(row["gold"], REWRITINGS[rewriting](row["gold"]))]
    assert len(failed) <= 0.005 * len(rows), failed


def test_few_gold_answers_are_not_read() -> None:
    """Proofs and sentences of a college text book; none of MATH."""
    rows = read("graders/gold_answers.jsonl")
    unread = [row for row in rows if JUDGE.check_gold(row["gold"])]
    assert len(unread) <= 0.035 * len(rows)
    assert [row["gold"] for row in unread if row["dataset"].startswith("math")] == []


def test_agrees_with_every_label_of_real_gsm8k_answers() -> None:
    """5276 answers of four models, labelled by GSM8K's authors."""
    judged: dict[tuple[bool, bool], int] = {}
    for row in read("gsm8k/model_solutions.jsonl"):
        gold = row["ground_truth"].rpartition("A: ")[2]
        for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            key = row[model]["is_correct"], right(gold, row[model]["solution"])
            judged[key] = judged.get(key, 0) + 1
    assert judged == {(True, True): 2001, (False, False): 3275}


def test_real_solutions_are_right() -> None:
    rows = read("math/test.jsonl")[::5]
    assert [row["idx"] for row in rows if not right(row["solution"], row["solution"])] == []
    rows = read("math/math500.jsonl")
    assert [row["unique_id"] for row in rows if not right(row["answer"], row["solution"])] == []


def test_an_answer_is_judged_in_milliseconds() -> None:
    rows = read("graders/derived.jsonl") + read("graders/cases.jsonl")
    right(1, "\\boxed{\\sqrt{2}}")
    seconds = []
    for row in rows:
        began = time.process_time()
        right(row["gold"], row["pred"])
        seconds.append(time.process_time() - began)
    seconds.sort()
    assert seconds[len(seconds) // 2] < 0.002
    assert seconds[int(0.99 * len(seconds))] < 0.1
