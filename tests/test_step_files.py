"""Files of labelled steps, and how such solutions become tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import qwen_like

from selftrain.encoding import Encoder
from selftrain.labelling.files import LabelledSteps, read_labelled
from selftrain.models.small import character_tokenizer
from selftrain.schema import Chat

BENCH = {"id": "gsm8k-0", "generator": "Qwen2", "problem": "2+2+3?", "steps": ["2+2=4", "4+3=8", "So 8."], "label": 1}


def completion(text: str, rating: int | None, flagged: bool | None = None) -> dict[str, Any]:
    return {"text": text, "rating": rating, "flagged": flagged}


def step(*completions: dict[str, Any], chosen: int | None = 0, human: Any = None) -> dict[str, Any]:
    return {"completions": list(completions), "human_completion": human, "chosen_completion": chosen}


def labelled(*steps: dict[str, Any], finish: str = "solution") -> dict[str, Any]:
    return {
        "labeler": "x",
        "generation": 9,
        "question": {"problem": "2+2+3?", "ground_truth_answer": "7", "pre_generated_steps": ["..."]},
        "label": {"steps": list(steps), "total_time": 9, "finish_reason": finish},
    }


def read(folder: Path, *rows: Any, **options: Any) -> list[LabelledSteps]:
    path = folder / "steps.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_labelled(path, **options))


def test_processbench_rows(tmp_path: Path) -> None:
    first, none = read(tmp_path, BENCH, {**BENCH, "id": "gsm8k-1", "label": -1})
    assert first == LabelledSteps("2+2+3?", ("2+2=4", "4+3=8", "So 8."), (1.0, 0.0, None), "gsm8k-0")
    assert none.labels == (1.0, 1.0, 1.0) and none.id == "gsm8k-1"


def test_rows_of_our_own_have_a_label_for_each_step(tmp_path: Path) -> None:
    (row,) = read(tmp_path, {"problem": "p", "steps": ["a", "b", "c"], "labels": [1, 0.25, None]})
    assert row.labels == (1.0, 0.25, None)
    assert row.id == f"{tmp_path}/steps.jsonl:1"


SOLVED = labelled(
    step(completion("I add.", 0)),
    step(completion("2+2=5", -1), completion("2+2=4", 1), chosen=1),
    step(completion("4+3=8", -1), chosen=None, human={"text": "4+3=7", "rating": None, "source": "human"}),
)
FAILED = labelled(
    step(completion("I add.", 1)),
    step(completion("2+2=5", -1), completion("2+2=4", 1), completion("?", None), chosen=None),
    finish="found_error",
)


@pytest.mark.parametrize("neutral, expected", [("right", 1.0), ("wrong", 0.0), ("unknown", None)])
def test_prm800k_rows_are_the_solution_that_was_taken(tmp_path: Path, neutral: Any, expected: float | None) -> None:
    solved, failed = read(tmp_path, SOLVED, FAILED, neutral=neutral)
    assert solved.problem == "2+2+3?"
    assert solved.steps == ("I add.", "2+2=4", "4+3=7") and solved.labels == (expected, 1.0, 1.0)
    # Where the labelling ended with an error, the solution's own step stands first.
    assert failed.steps == ("I add.", "2+2=5") and failed.labels == (1.0, 0.0)
    assert failed.id.endswith("steps.jsonl:2")


def test_prm800k_alternatives_stand_behind_what_came_before(tmp_path: Path) -> None:
    rows = read(tmp_path, FAILED, alternatives=True)
    assert [(row.steps, row.labels) for row in rows] == [
        (("I add.", "2+2=4"), (1.0, 1.0)),
        (("I add.", "?"), (1.0, None)),
        (("I add.", "2+2=5"), (1.0, 0.0)),
    ]
    assert [row.id.partition(".jsonl:")[2] for row in rows] == ["1/1/0", "1/1/1", "1"]


def test_prm800k_rows_of_broken_problems_say_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, labelled(step(completion("a", 1)), finish="bad_problem"), labelled()) == []


@pytest.mark.parametrize(
    "row, message",
    [
        ({**BENCH, "label": 3}, "steps.jsonl:2: label is 3; it must be -1, or the index of one of its 3 steps"),
        ({**BENCH, "label": True}, "label is True"),
        ({**BENCH, "steps": ["a", " "]}, "steps.jsonl:2: 'steps' must be a list of texts that are not empty"),
        ({"problem": "p", "steps": ["a"]}, "no field 'label'"),
        ({"problem": "p", "steps": ["a"], "labels": [1, 1]}, "a list with one for each of its 1 steps"),
        ({"problem": "p", "steps": ["a"], "labels": [2]}, "a label is 2; it must be a number from 0 to 1, or null"),
        ({"steps": ["a"], "label": 0}, "no field 'problem'"),
        (labelled(step(completion("a", 2))), "steps.jsonl:2: step 0: a rating is 2; it must be -1, 0, 1 or null"),
        (labelled(step(completion("a", 1), chosen=1)), "step 0: chosen_completion is 1, and there are 1 completions"),
        ({**SOLVED, "question": {}}, "no field 'problem'"),
        ({"label": {}}, "no field 'question'"),
        ([1], "expected an object with fields"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(ValueError) as failed:
        read(tmp_path, BENCH, row)
    assert message in str(failed.value)


def spans(tokenizer: Any, steps: list[str], separator: str) -> list[str]:
    """The text of each step's tokens."""
    ids, ends = Encoder(tokenizer, Chat(), None).steps(steps, separator)
    assert ends[-1] == len(ids) and ids[-1] == tokenizer.eos_token_id
    parts = [ids[begin:end] for begin, end in zip((0, *ends), ends, strict=False)]
    return [tokenizer.decode(part, skip_special_tokens=True) for part in parts]


def test_steps_keep_their_separators_within() -> None:
    tokenizer = character_tokenizer("0123456789+-*= #\n", 64)
    assert spans(tokenizer, ["1+2=3\n3*2=6", "#6"], "\n") == ["1+2=3\n3*2=6\n", "#6"]
    assert spans(tokenizer, ["1"], "\n") == ["1"]


def test_steps_of_byte_level_bpe_end_where_they_do() -> None:
    """One encoding of the whole, also where characters are spread over tokens."""
    tokenizer = qwen_like.tokenizer()
    steps = ["€ → √2 The answer is 3.", "𝔘 is ü\n\nand 漢字", "4+4=8"]
    assert spans(tokenizer, steps, "\n\n") == [f"{steps[0]}\n\n", f"{steps[1]}\n\n", steps[2]]
    ids, _ = Encoder(tokenizer, Chat(), None).steps(steps, "\n\n")
    assert list(ids[:-1]) == tokenizer.encode("\n\n".join(steps), add_special_tokens=False)


def test_steps_that_share_a_token_are_encoded_apart() -> None:
    """' answer is ' is one token or few, so without a separator the second step has none of its own."""
    tokenizer = qwen_like.tokenizer()
    (token,) = tokenizer.encode(" answer", add_special_tokens=False)
    assert spans(tokenizer, [" an", "sw", "er"], "") == [" an", "sw", "er"]
    assert tokenizer.decode([token]) == " answer"
