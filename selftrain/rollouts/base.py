"""What a reader makes of one row of another tool's dump, and what readers share.

A reader is a frozen dataclass with ``recognises(row)`` and ``read(row, place)``. It tells what the row says and nothing
more: rewards and verdicts of the other tool are left behind, since every response is judged anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Row = Mapping[str, Any]

TRUNCATED = {"length", "max_tokens", "max_output_tokens", "max_total_tokens", "model_length"}
SPEAKERS = {"assistant", "tool", "function"}
"""Roles that only a conversation of several turns has before its last."""
COMPLETE = {"stop", "eos", "eos_token", "end_turn", "stop_sequence"}


class Unusable(ValueError):
    """A row that is as it should be and yet no sample; the message is a reason that is counted."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """A response and what the dump says of it."""

    response: str | None
    """Its whole text; None where the dump has it as token ids, or in pieces."""
    prompt: str | None = None
    """The question, or a text that holds it: the last user turn, or all the model read."""
    problem_id: str | None = None
    row_id: str | None = None
    """Tells rows of equal text apart."""
    answer: Any = None
    """The gold answer the dump carries."""
    finish: Literal["complete", "length"] | None = None
    """None where the dump does not say."""
    prompt_ids: tuple[int, ...] | None = None
    response_ids: tuple[int, ...] | None = None
    pieces: tuple[str, ...] = ()
    """Texts the decoded ids must hold, where the response as a whole is not known."""


class Reader(Protocol):
    """One format."""

    def recognises(self, row: Row) -> bool:
        """Whether the first row of a file looks like this format."""

    def read(self, row: Row, place: str) -> Rollout:
        """What a row says.

        Raises:
            ValueError: it is not of this format; names the fields there are.
            Unusable: it is, but holds no single response.
        """


def missing(name: str, role: str, row: Row, place: str) -> ValueError:
    if name in row:
        return null(name, role, place)
    return ValueError(f"{place}: no field '{name}' for the {role}; there are: {', '.join(map(str, row))}")


def null(name: str, role: str, place: str) -> ValueError:
    return ValueError(f"{place}: '{name}', the {role}, is null; leave such rows out")


def field(row: Row, name: str, role: str, place: str) -> Any:
    """A field that must be there and hold something."""
    if row.get(name) is None:
        raise missing(name, role, row, place)
    return row[name]


def text_field(row: Row, name: str, role: str, place: str) -> str:
    """A field that must be there and hold text."""
    value = field(row, name, role, place)
    if not isinstance(value, str):
        raise ValueError(f"{place}: '{name}', the {role}, is {type(value).__name__}; it must be text")
    return value


def finish(reason: Any, truncated: Any = None) -> Literal["complete", "length"] | None:
    """How a response ended.

    Args:
        reason: as engines call it, SGLang as an object with a type; None where the dump does not say.
        truncated: a flag that it was cut, or that it was not.

    Raises:
        Unusable: it ended in a tool call, was filtered, or was aborted.
    """
    reason = reason.get("type") if isinstance(reason, Mapping) else reason
    reason = None if reason is None else str(reason)
    if truncated or reason in TRUNCATED:
        return "length"
    if reason in COMPLETE or (reason is None and truncated is not None):
        return "complete"
    if reason is None:
        return None
    raise Unusable(f"finish reason '{reason}'")


def text_of(content: Any, place: str) -> str:
    """The content of a message: text, or blocks of text.

    Raises:
        ValueError: it is neither.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, Sequence) and all(isinstance(block, Mapping) for block in content):
        if any(block.get("type", "text") != "text" for block in content):
            raise Unusable("images or other blocks that are no text")
        return "".join(str(block.get("text") or "") for block in content)
    raise ValueError(f"{place}: the content of a message is {type(content).__name__}; it must be text")


def messages_of(value: Any, name: str, place: str) -> list[Row]:
    """Raises ValueError where a value is no list of turns with roles."""
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) and "role" in turn for turn in value):
        raise ValueError(f"{place}: '{name}' must be text or a list of messages with role and content")
    return value


def asked(prompt: Any, name: str, place: str) -> str | None:
    """What a prompt asks: a text as it is, or the user's turn of messages; None where there is none.

    Raises:
        Unusable: others have spoken before. What follows answers more than the last turn asks; worked examples given
            as turns cannot be told apart from that.
    """
    if isinstance(prompt, str):
        return prompt
    turns = messages_of(prompt, name, place)
    if any(turn["role"] in SPEAKERS for turn in turns):
        raise Unusable("several turns: the assistant or a tool has spoken before")
    users = [turn for turn in turns if turn["role"] == "user"]
    return text_of(users[-1].get("content"), place) if users else None


def only_reply(completion: Any, name: str, place: str) -> str | Row:
    """A completion as text, or its one assistant turn.

    Raises:
        Unusable: it is several turns, and not all of them were written by the model.
    """
    if isinstance(completion, str):
        return completion
    turns = messages_of(completion, name, place)
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise Unusable("several turns, or none of the assistant")
    return turns[0]


def reply(turn: str | Row, place: str) -> tuple[str | None, tuple[str, ...]]:
    """The text of an assistant turn; None and its pieces where reasoning stands in a field of its own.

    How the model joined the two is known from token ids alone.
    """
    if isinstance(turn, str):
        return turn, ()
    if turn.get("tool_calls"):
        raise Unusable("tool calls")
    text = text_of(turn.get("content"), place)
    reasoning = turn.get("reasoning_content") or turn.get("reasoning")
    return (None, (str(reasoning), text)) if reasoning else (text, ())


def objects(value: Any, name: str, place: str) -> list[Row]:
    """Raises ValueError where a value is no list of objects."""
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise ValueError(f"{place}: '{name}' must be a list of objects")
    return value


def ids_of(value: Any) -> tuple[int, ...] | None:
    """Token ids, where a value is a list of some."""
    if isinstance(value, list) and value and all(isinstance(token, int) for token in value):
        return tuple(value)
    return None
