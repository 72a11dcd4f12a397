"""The verifiers that come with selftrain, against tables of judged responses and against real model answers."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from selftrain import registry
from selftrain.schema import Selection
from selftrain.selection import Candidate, Chooser
from selftrain.types import Problem, Sample
from selftrain.verifiers.exact_answer import ExactAnswer
from selftrain.verifiers.numeric_answer import NumericAnswer

TABLES = Path(__file__).parent / "tables"


def problem(answer: Any) -> Problem:
    return Problem("task/test/0", "task", "test", "How many?", answer)


def rows() -> list[Any]:
    cases = []
    for name in ("numeric_answer", "choice_answer", "exact_answer", "countdown"):
        for line in (TABLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            cases.append(pytest.param(name, row, id=f"{name}-{row['gold']}-{row['response'][:30]!r}"))
    return cases


@pytest.mark.parametrize(("name", "row"), rows())
def test_table(name: str, row: dict[str, Any]) -> None:
    verdict = registry.build("verifier", name, row.get("options", {}))(problem(row["gold"]), row["response"])
    assert (verdict.status, verdict.answer) == (row["status"], row["answer"]), verdict
    assert verdict.value == {"right": 1.0, "wrong": 0.0, "unparsed": 0.0, "error": None}[row["status"]]
    assert verdict.status not in ("error", "unparsed") or verdict.reason


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("numeric_answer", {"tolerance": -1}, "tolerance"),
        ("numeric_answer", {"marker": ""}, "marker"),
        ("choice_answer", {"letters": "AAB"}, "letters"),
        ("exact_answer", {"marker": "=", "pattern": "(a)"}, "not both"),
        ("exact_answer", {"pattern": "("}, "regular expression"),
        ("exact_answer", {"pattern": "a"}, "one group"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        registry.build("verifier", name, options)


@pytest.mark.parametrize(
    "response",
    [
        "1" * 1_000_000,
        "1,111" * 200_000,
        "1,111," + "111," * 250_000 + "1111",
        "1.1" * 300_000,
        "1 " * 500_000,
        "1/" * 500_000,
        " " * 1_000_000,
        "\\" * 1_000_000 + "1",
        "or " * 333_333,
        "3 or " * 200_000,
        "5 apples or " * 83_333,
        "The answer is " + "not " * 250_000,
        "\\text{" * 166_666 + "1",
        "$1$ or " * 142_857,
        "answer is " + "\\(B\\) " * 166_666,
        "B is the answer " * 62_500,
        "answer is B or " * 66_666,
        "B, maybe " * 111_111,
        "1) " * 333_333 + "= 12",
        "3 \\times 5 = 12\n" * 62_500,
        "1" + " " * 1_000_000,
        "-" * 1_000_000,
        "\\boxed{" * 100_000,
        "{" * 1_000_000 + "\\boxed{1",
        "answer is " * 100_000,
        "A " * 500_000,
        "(A) or " * 100_000,
        "<think>" * 100_000,
        "(" * 1_000_000 + "= 12",
        "1+" * 500_000 + "1=12",
        "= 12\n" * 200_000,
        "<answer>" * 125_000,
        "<answer>" + "(" * 100_000 + "1",
        "####" * 250_000,
        "\ud800\x00" * 500_000,
    ],
    ids=lambda text: text[:10].encode("ascii", "replace").decode().replace("\x00", "0"),
)
@pytest.mark.parametrize(
    ("name", "gold"),
    [
        ("numeric_answer", "7"),
        ("choice_answer", "D"),
        ("exact_answer", "7"),
        ("countdown", {"nums": [3, 4], "target": 12}),
    ],
)
def test_a_megabyte_of_anything_is_judged_quickly(name: str, gold: Any, response: str) -> None:
    start = time.process_time()
    verdict = registry.build("verifier", name, {})(problem(gold), response)
    assert verdict.status in ("wrong", "unparsed")
    assert time.process_time() - start < 1  # Well below where nothing else runs.


def test_numbers_of_one_value_have_one_spelling() -> None:
    judge = NumericAnswer()
    spellings = ["0.5", ".50", "1/2", "2/4", "\\boxed{\\frac12}", "The answer is $0.50.", "5e-1"]
    assert {judge(problem("1"), spelling).answer for spelling in spellings} == {"0.5"}


def test_a_regular_expression_takes_the_last_match() -> None:
    judge = ExactAnswer(pattern=r"=\s*(\w+)")
    assert judge(problem("b"), "x = a, y = b").status == "right"


def test_answers_that_no_verifier_names_are_no_duplicates() -> None:
    """A verifier that returns a bool leaves every answer None."""
    samples = [
        Sample(f"p/{index}", "p", 1, "draft", index, (1,), (2, 9), text, "eos", "policy", "scripted")
        for index, text in enumerate(("4", "four", "IV"))
    ]
    chooser = Chooser(Selection("draft", dedupe="answer"))
    named = [Candidate(samples[0], "right", 1.0, "4", 1.0), Candidate(samples[1], "right", 1.0, "4", 1.0)]
    taught = list(chooser.choose([*(Candidate(sample, "right", 1.0, None, 1.0) for sample in samples), *named]))
    assert [candidate.sample.id for candidate in taught] == ["p/0", "p/1", "p/2", "p/0"]
    assert chooser.reasons == {"kept": 4, "duplicate": 1}


def test_countdown_problems_with_negative_numbers_are_told_when_they_are_loaded(tmp_path: Path) -> None:
    """The grammar has none, so the verifier could not judge them."""
    (tmp_path / "countdown.jsonl").write_text('{"nums": [3, -5], "target": -2}\n')
    with pytest.raises(ValueError, match=r"row 0 gives a negative number in \[3, -5\]"):
        registry.build("task", "countdown", {"data_dir": str(tmp_path)}).problems("train")


def real_data() -> Path:
    folder = os.environ.get("SELFTRAIN_DATA")
    if not folder:
        pytest.skip("needs real data: set SELFTRAIN_DATA to its folder")
    return Path(folder)


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_agrees_with_every_label_of_real_gsm8k_answers() -> None:
    """5276 answers of four models, labelled by GSM8K's authors."""
    judge = NumericAnswer()
    judged: dict[tuple[bool, str], int] = {}
    for row in read(real_data() / "gsm8k" / "model_solutions.jsonl"):
        gold = problem(row["ground_truth"].rpartition("A: ")[2])
        for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            key = row[model]["is_correct"], judge(gold, row[model]["solution"]).status
            judged[key] = judged.get(key, 0) + 1
    assert judged == {(True, "right"): 2001, (False, "wrong"): 3275}


@pytest.mark.parametrize(("split", "count"), [("train", 7473), ("test", 1319)])
def test_real_gsm8k_gold_answers_are_right(split: str, count: int) -> None:
    judge = NumericAnswer()
    solutions = [row["answer"] for row in read(real_data() / "gsm8k" / f"{split}.jsonl")]
    assert sum(judge(problem(text), text).status == "right" for text in solutions) == count


def test_real_multiple_choice_rationales_never_name_a_wrong_option() -> None:
    judge = registry.build("verifier", "choice_answer", {})
    statuses = [
        judge(problem(row["correct"]), row["rationale"]).status
        for split in ("dev", "test")
        for row in read(real_data() / "aqua" / f"aqua_{split}.json")
    ]
    assert len(statuses) == 508
    assert statuses.count("right") >= 455
    assert statuses.count("wrong") == 0
