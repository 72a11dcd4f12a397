"""The report of what another verifier changed."""

from __future__ import annotations

from selftrain.regrading import Ruling, lines, regrading, why
from selftrain.types import Status


def ruling(status: Status, answer: str | None, reason: str | None, verifier: str, task: str = "t") -> Ruling:
    return Ruling(status, answer, reason, verifier, task, f"{task}/train/0")


BEFORE = {
    "a": ruling("wrong", "1/2", "not a number", "v@1"),
    "b": ruling("wrong", "0.5", "not a number", "v@1"),
    "c": ruling("right", "3", None, "v@1"),
    "d": ruling("right", "4", None, "v@1"),
    "e": ruling("wrong", "7", None, "v@1"),
    "f": ruling("unparsed", None, "no final number", "v@1", "u"),
    "gone": ruling("right", "1", None, "v@1"),
}
AFTER = {
    "a": ruling("right", "1/2", None, "v@2"),
    "b": ruling("right", "1/2", None, "v@2"),
    "c": ruling("wrong", "3", "several answers", "v@2"),
    "d": ruling("right", "4", None, "v@2"),
    "e": ruling("wrong", "8", None, "v@2"),
    "f": ruling("unparsed", None, "no final number", "v@2", "u"),
    "new": ruling("right", "1", None, "v@2"),
}


def test_who_flipped_from_what_to_what_and_why() -> None:
    table = regrading(BEFORE, AFTER)
    assert table["tasks"]["t"] == {
        "n": 5,
        "flips": {"wrong -> right": 2, "right -> wrong": 1},
        "right_before": 0.4,
        "right_after": 0.6,
        "change": 0.2,
        "other_answer": 1,
    }
    assert table["tasks"]["u"]["flips"] == {}
    assert table["verifiers"] == {"before": ["v@1"], "after": ["v@2"]}
    assert [(flip["sample_id"], flip["reason_before"], flip["reason_after"]) for flip in table["flips"]] == [
        ("a", "not a number", None),
        ("b", "not a number", None),
        ("c", None, "several answers"),
    ]


def test_lines_say_it_in_words() -> None:
    table = regrading(BEFORE, AFTER)
    assert lines(table) == [
        "t, 5 responses: 2 wrong -> right, 1 right -> wrong; right 40.0 % -> 60.0 % (+20.0)",
        "u, 1 responses: no verdict changed; right 0.0 % -> 0.0 % (+0.0)",
    ]
    assert why(table) == [
        "2 wrong (not a number) -> right, such as '1/2' [t/train/0]",
        "1 right -> wrong (several answers), such as '3' [t/train/0]",
    ]
    assert why(table, shown=1)[1] == "1 more of 1 other kinds"
