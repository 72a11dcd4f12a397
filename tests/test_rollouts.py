"""What the readers of other tools' dumps take for a response, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from selftrain import registry
from selftrain.rollouts.base import Rollout, Unusable


def read(format: str, row: dict[str, Any], **fields: str) -> Rollout:
    built = registry.build("rollout", format, {"fields": fields} if fields else {})
    found: Rollout = built.read(row, "rows.jsonl:1")
    return found


USER, ANSWER = {"role": "user", "content": "8+5="}, {"role": "assistant", "content": "#3"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"name": "add"}]}
TOOL = {"role": "tool", "content": "13"}


@pytest.mark.parametrize(
    "before",
    [[USER, CALL, TOOL], [USER, ANSWER, USER], [USER, ANSWER, {"role": "user", "content": "2+7="}], [TOOL, USER]],
)
def test_what_follows_an_earlier_turn_is_no_answer_to_the_question_alone(before: list[Any]) -> None:
    for row in ({"messages": [*before, ANSWER]}, {"prompt": before, "completion": [ANSWER]}):
        with pytest.raises(Unusable, match="has spoken before"):
            read("trl", row)
    with pytest.raises(Unusable, match="has spoken before"):
        read("prime-rl", {"prompt": before, "completion": [ANSWER], "example_id": 1})
    nodes = [{"message": turn} for turn in before] + [{"message": ANSWER, "sampled": True}]
    with pytest.raises(Unusable, match="has spoken before"):
        read("prime-rl", {"task": {}, "nodes": nodes})
    with pytest.raises(Unusable, match="has spoken before"):
        read("nemo-skills", {"messages": before, "generation": "#3"})


def test_a_system_turn_is_none_that_answers() -> None:
    found = read("trl", {"messages": [{"role": "system", "content": "Add."}, USER, ANSWER]})
    assert (found.prompt, found.response) == ("8+5=", "#3")


BAD: list[tuple[str, dict[str, Any], dict[str, str], str]] = [
    ("nemo-skills", {"problem": "8+5=", "generation": ["#3", "#4"]}, {}, "'generation', the response, is list"),
    ("nemo-skills", {"problem": "8+5=", "generation": {"text": "#3"}}, {}, "is dict; it must be text"),
    ("nemo-skills", {"problem": "8+5=", "generation": "#3", "_full_generation": [1]}, {}, "'_full_generation'.* list"),
    ("nemo-skills", {"problem": "8+5=", "generation": None}, {}, "'generation', the response, is null"),
    ("verl", {"input": "8+5=", "output": ["#3"]}, {}, "'output', the response, is list; it must be text"),
    ("verl", {"input": [USER], "output": "#3"}, {}, "'input', the prompt, is list; it must be text"),
    ("verl", {"input": "8+5=", "output": None}, {}, "'output', the response, is null"),
    ("trl", {"prompt": "8+5=", "completion": None}, {}, "'completion', the response, is null"),
    ("trl", {"messages": None}, {}, "'messages', the conversation, is null"),
    ("jsonl", {"question": "8+5=", "response": None}, {}, "'response', the response, is null"),
    ("jsonl", {"question": "8+5=", "out": {"text": None}}, {"response": "out.text"}, "'out.text', .* is null"),
    ("jsonl", {"question": "8+5=", "out": "#3"}, {}, "no field 'response' for the response; there are: question, out"),
]  # fmt: skip


@pytest.mark.parametrize(("format", "row", "fields", "told"), BAD)
def test_a_response_is_text_or_it_is_told_what_it_is(
    format: str, row: dict[str, Any], fields: dict[str, str], told: str
) -> None:
    with pytest.raises(ValueError, match=f"rows.jsonl:1: {told}|rows.jsonl:1: .*{told}") as raised:
        read(format, row, **fields)
    assert not isinstance(raised.value, Unusable)
