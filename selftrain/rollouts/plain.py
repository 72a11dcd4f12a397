"""Plain JSONL: fields named by whoever made them, found by dotted paths.

``--field question=prompt.text --field response=outputs.0 --field answer=gold``; a role that is not mapped is played by
the field of its own name, where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as option
from typing import Any

from selftrain import registry
from selftrain.rollouts.base import Rollout, Row, asked, finish, missing, null, only_reply, reply

ROLES = ("question", "response", "answer", "id", "finish_reason", "truncated")


@dataclass(frozen=True)
class Plain:
    """Options of the reader."""

    fields: dict[str, str] = option(default_factory=dict)
    """Role to dotted path; numbers count in lists, from 0."""

    def __post_init__(self) -> None:
        for role in self.fields:
            if role not in ROLES:
                raise ValueError(f"unknown role '{role}' ({registry.nearest(role, ROLES)})")

    def recognises(self, row: Row) -> bool:
        """Never by itself: that question and response are those of a problem is for a person to say."""
        return False

    def read(self, row: Row, place: str) -> Rollout:
        said = {role: self._at(row, role, place) for role in ROLES}
        if said["response"] is None and "response" in self.fields:
            raise null(self.fields["response"], "response", place)
        if said["response"] is None:
            raise missing("response", "response", row, place)
        if said["question"] is None and said["id"] is None:
            raise missing("question", "question", row, place)
        response, question, identifier = said["response"], said["question"], said["id"]
        text, pieces = reply(only_reply(response, "response", place), place)
        return Rollout(
            text,
            None if question is None else asked(question, "question", place),
            problem_id=None if identifier is None else str(identifier),
            answer=said["answer"],
            finish=finish(said["finish_reason"], said["truncated"]),
            pieces=pieces,
        )

    def _at(self, row: Row, role: str, place: str) -> Any:
        """What stands at the path of a role; None where an unmapped role has no field."""
        path = self.fields.get(role, role)
        value: Any = row
        for key in path.split("."):
            if isinstance(value, Mapping) and key in value:
                value = value[key]
            elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
                value = value[int(key)]
            elif role in self.fields:
                raise missing(path, role, row, place)
            else:
                return None
        return value
