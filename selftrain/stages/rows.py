"""Rows of a user's file as what one learner is fitted to: responses, labelled responses or steps, or pairs of them.

The fields are those that TRL and the preference sets of the hub use. A prompt is text or turns; a response is text or a
conversation, whose last turn carries the loss, with the end token behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.config import ConfigError
from selftrain.labelling.files import read_labelled
from selftrain.objectives.labelled import LABELS
from selftrain.objectives.paired import PAIRS
from selftrain.objectives.values import VALUES
from selftrain.registry import nearest
from selftrain.stages.replay import Row, turns_of
from selftrain.tasks.jsonl import missing_field, read_records
from selftrain.types import Message

ROLES = ("messages", "prompt", "response", "label", "chosen", "rejected", "steps", "labels")
ALSO = {"response": "completion"}
"""What TRL calls a field where ours is not there."""

Turns = tuple[Message, ...]
Said = tuple[Turns, str]
"""The turns before the last, and what the last one says."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one row teaches."""

    rows: tuple[Row, ...]
    """A response, or a chosen and a rejected one to the same prompt."""
    label: float | None = None
    steps: tuple[str, ...] = ()
    """Of a response that is labelled step by step."""
    labels: tuple[float | None, ...] = ()
    """One for each step; None where nothing is known."""


def check_fields(fields: Mapping[str, str]) -> None:
    """Raises ConfigError for a role that rows do not have."""
    for role in fields:
        if role not in ROLES:
            raise ConfigError(f"data.fields: unknown role '{role}' ({nearest(role, ROLES)})")


def read_entries(
    path: Path, fields: Mapping[str, str], kind: str, needs: Set[str], where: str, separator: str = ""
) -> list[Entry]:
    """The rows of a file.

    Args:
        fields: role to the name of the field that plays it.
        kind: name of the objective, for messages.
        needs: what the objective reads.
        where: the file's place in the config.
        separator: what stands between the steps of a response.

    Raises:
        ConfigError: it cannot be read, is empty, or a row is not what the objective learns from.
    """
    try:
        found = list(_entries(path, fields, kind, needs, separator))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    if not found:
        raise ConfigError(f"{where}: {path} holds no rows")
    return found


def _entries(path: Path, fields: Mapping[str, str], kind: str, needs: Set[str], separator: str) -> Iterator[Entry]:
    if VALUES in needs and not fields and _labelled_elsewhere(path):
        for one in read_labelled(path):
            whole = _row(one.id, one.problem, separator.join(one.steps), "response")
            yield Entry((whole,), steps=one.steps, labels=one.labels)
        return
    for place, record in read_records(path):
        row = _by_role(record, fields, place)
        if PAIRS in needs:
            yield _pair(row, place, kind, record)
        elif VALUES in needs and row["steps"] is not None:
            yield _stepwise(row, place, separator)
        else:
            label = _label(row["label"], place, kind) if needs & {LABELS, VALUES} else None
            yield Entry((_single(row, place, kind, record),), label)


def _labelled_elsewhere(path: Path) -> bool:
    """Whether a file is of the form of PRM800K or ProcessBench, by its first row."""
    _, first = next(iter(read_records(path)), ("", {}))
    return isinstance(first.get("label"), Mapping) or ("problem" in first and "steps" in first)


def _by_role(record: dict[str, Any], fields: Mapping[str, str], place: str) -> dict[str, Any]:
    for role, name in fields.items():
        if name not in record:
            raise ValueError(missing_field(name, place, record, role).replace("set fields.", "set data.fields."))
    found = {role: record.get(fields.get(role, role)) for role in ROLES}
    return {
        role: record.get(ALSO.get(role, role)) if value is None and role not in fields else value
        for role, value in found.items()
    }


def _single(row: Mapping[str, Any], place: str, kind: str, record: Mapping[str, Any]) -> Row:
    if row["messages"] is not None:
        before, text = _said(row["messages"], place, "messages")
        if not before:
            raise ValueError(f"{place}: 'messages' must end with a turn of the assistant that follows another")
        return _row(place, before, text, "response")
    if row["response"] is None:
        if row["chosen"] is not None and row["rejected"] is not None:
            raise ValueError(
                f"{place}: {kind} learns from single responses, and this row is a pair; choose an objective that "
                "learns from pairs, such as dpo, or name one side: data.fields.response=chosen"
            )
        raise ValueError(
            f"{place}: a row needs 'prompt' and 'response', or a list 'messages'; this one has {', '.join(record)} "
            "(data.fields says where they stand)"
        )
    before, text = _said(row["response"], place, "response")
    return _row(place, _asked(row, before, place), text, "response")


def _pair(row: Mapping[str, Any], place: str, kind: str, record: Mapping[str, Any]) -> Entry:
    chosen = row["messages"] if row["chosen"] is None and row["rejected"] is not None else row["chosen"]
    if chosen is None or row["rejected"] is None:
        raise ValueError(
            f"{place}: {kind} learns from pairs, and a row needs 'chosen' and 'rejected'; this one has "
            f"{', '.join(record)} (data.fields says where they stand)"
        )
    (before, good), (other, bad) = _said(chosen, place, "chosen"), _said(row["rejected"], place, "rejected")
    if before and other and before != other:
        raise ValueError(f"{place}: 'chosen' and 'rejected' answer different turns; a pair answers the same ones")
    asked = _asked(row, before or other, place)
    return Entry((_row(place, asked, good, "chosen response"), _row(place, asked, bad, "rejected response")))


def _stepwise(row: Mapping[str, Any], place: str, separator: str) -> Entry:
    """A response whose steps have labels."""
    steps, labels = row["steps"], row["labels"]
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) and step.strip() for step in steps):
        raise ValueError(f"{place}: 'steps' must be a list of texts, none of them empty")
    if not isinstance(labels, list) or len(labels) != len(steps):
        raise ValueError(f"{place}: 'labels' must be a list with one for each of the {len(steps)} steps")
    known = tuple(None if label is None else _label(label, place, "") for label in labels)
    text = separator.join(steps)
    return Entry((_row(place, _asked(row, (), place), text, "response"),), steps=tuple(steps), labels=known)


def _row(place: str, asked: str | Turns, text: str, name: str) -> Row:
    if not text.strip():
        raise ValueError(f"{place}: the {name} is empty; remove the row")
    return Row(place, asked, text)


def _said(value: Any, place: str, name: str) -> Said:
    if isinstance(value, str):
        return (), value
    turns = turns_of(value, place, name)
    if not turns or turns[-1].role != "assistant":
        raise ValueError(f"{place}: '{name}' must be text, or end with a turn of the assistant")
    return turns[:-1], turns[-1].content


def _asked(row: Mapping[str, Any], before: Turns, place: str) -> str | Turns:
    """What a response follows: ``before``, where it brings the whole conversation along, else the row's prompt."""
    prompt = row["prompt"]
    if isinstance(prompt, list):
        asked = turns_of(prompt, place, "prompt")
        return before if before[: len(asked)] == asked else asked + before
    if before:
        return before
    if isinstance(prompt, str):
        return prompt
    if prompt is None and row["messages"] is not None:
        return turns_of(row["messages"], place)
    raise ValueError(f"{place}: has no 'prompt' that is text or a list of turns (data.fields says where it stands)")


def _label(value: Any, place: str, kind: str) -> float:
    """A bool or a number in [0, 1]."""
    if value is None:
        raise ValueError(f"{place}: {kind} learns from labelled responses, and this row has no 'label'")
    if not isinstance(value, bool | int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"{place}: the label is {value!r}; it must be true, false, or a number from 0 to 1")
    return float(value)
