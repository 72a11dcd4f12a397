"""Problems from files of your own: JSON Lines, a JSON list, or Parquet.

The least a file needs is a question and an answer in every record::

    {"question": "2 + 3?", "answer": "5"}

``fields`` says where they stand when they are called something else. Fields it does not know go to the problem's
metadata, where prompt templates and verifiers find them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selftrain import registry
from selftrain.types import Problem

ROLES = ("question", "answer", "demonstration", "id", "difficulty")
REQUIRED = ("question", "answer")


@dataclass(frozen=True)
class JsonLines:
    """Options of the task."""

    files: dict[str, str] = field(default_factory=dict)
    """Split to path; the ending (.jsonl, .json, .parquet) says how it is read."""
    fields: dict[str, str] = field(default_factory=dict)
    """Role (question, answer, demonstration, id, difficulty) to the name of the field that plays it; a role that is
    not named is played by the field of its own name. Only question and answer must be there."""
    name: str = "jsonl"
    """First part of the problem ids; in a run, the run's name of the task takes its place."""
    licence: str | None = None
    """What the data stands under, such as ``cc-by-4.0``; goes into the cards of `selftrain push`."""
    origin: str | None = None
    """Where the data comes from, such as its name on the hub; for the cards too."""

    described = ("licence", "origin")
    """Options nothing that is sampled or learnt depends on."""

    def __post_init__(self) -> None:
        for role in self.fields:
            if role not in ROLES:
                raise ValueError(f"fields: unknown role '{role}' ({registry.nearest(role, ROLES)})")

    @property
    def source(self) -> str | None:
        return self.origin

    def sources(self) -> tuple[Path, ...]:
        return tuple(Path(name) for name in self.files.values())

    def splits(self) -> tuple[str, ...]:
        """Raises ValueError where no file is named."""
        if not self.files:
            raise ValueError("files: name at least one, such as files.train=path/to/train.jsonl")
        return tuple(self.files)

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split, in the order of its file.

        Raises:
            ValueError: the file is missing, empty or not readable, a record lacks a field, or an id occurs twice.
        """
        if split not in self.files:
            raise ValueError(f"{self.name} has no split '{split}' ({registry.nearest(split, self.files)})")
        path = Path(self.files[split])
        places: dict[str, str] = {}
        problems = []
        for place, record in read_records(path):
            problem = self._problem(split, place, record)
            if problem.id in places:
                raise ValueError(f"{place}: problem id '{problem.id}' is also that of {places[problem.id]}")
            places[problem.id] = place
            problems.append(problem)
        if not problems:
            raise ValueError(f"{path} holds no problems")
        return problems

    def _problem(self, split: str, place: str, record: dict[str, Any]) -> Problem:
        roles = {role: self._read(role, place, record) for role in ROLES}
        question, demonstration, identifier = roles["question"], roles["demonstration"], roles["id"]
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"{place}: the question is {question!r}; it must be text")
        if identifier is None:
            identifier = hashlib.sha256(question.encode()).hexdigest()[:12]
        difficulty = self._number(roles["difficulty"], place)
        named = {self.fields.get(role, role) for role in ROLES if role != "difficulty" or difficulty is not None}
        return Problem(
            id=f"{self.name}/{split}/{identifier}",
            task=self.name,
            split=split,
            question=question,
            answer=roles["answer"],
            demonstration=None if demonstration is None else str(demonstration),
            difficulty=difficulty,
            metadata={key: value for key, value in record.items() if key not in named},
        )

    def _read(self, role: str, place: str, record: dict[str, Any]) -> Any:
        name = self.fields.get(role, role)
        if name not in record and (role in REQUIRED or role in self.fields):
            raise ValueError(missing_field(name, place, record, role))
        return record.get(name)

    def _number(self, value: Any, place: str) -> float | None:
        """A difficulty in words is none, unless the config says that the field is one."""
        if isinstance(value, int | float):
            return float(value)
        if "difficulty" in self.fields and value is not None:
            raise ValueError(f"{place}: the difficulty is {value!r}; it must be a number")
        return None


def missing_field(name: str, place: str, record: dict[str, Any], role: str | None = None) -> str:
    """The message; ``role`` where the config may name another field for it."""
    near = registry.nearest(name, record)
    hint = f"{near} " if near.startswith("did") else ""
    purpose, remedy = (f" for the {role}", f"; set fields.{role}") if role else ("", "")
    return f"{place}: no field '{name}'{purpose}; {hint}there are: {', '.join(record)}{remedy}"


def read_records(path: Path, ending: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a file, each with its place (``file:line``, or ``file, record n``) for messages.

    Args:
        ending: says how the file is read, where its own does not.

    Raises:
        ValueError: the file is missing or is not what its ending says.
    """
    readers = {".jsonl": _read_lines, ".json": _read_list, ".parquet": _read_parquet}
    if not path.is_file():
        near = registry.nearest(path.name, [p.name for p in path.parent.glob("*") if p.suffix in readers])
        raise ValueError(f"no such file: {path} ({near})")
    ending = ending or path.suffix
    if ending not in readers:
        raise ValueError(f"{path}: unknown kind of file; known: {', '.join(readers)}")
    for place, record in readers[ending](path):
        if not isinstance(record, dict):
            raise ValueError(f"{place}: expected an object with fields, got {type(record).__name__}")
        yield place, record


def _read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path}:{number}", _parse(line.strip(), path, number)


def _read_list(path: Path) -> Iterator[tuple[str, Any]]:
    records = _parse(path.read_bytes(), path, 1)
    if not isinstance(records, list):
        raise ValueError(f"{path}: expected a list of objects, got {type(records).__name__}")
    for number, record in enumerate(records, 1):
        yield f"{path}, record {number}", record


def _read_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            records = [record for batch in file.iter_batches() for record in batch.to_pylist()]
    except ArrowException as error:
        raise ValueError(f"{path}: cannot be read as Parquet: {' '.join(str(error).split())}") from error
    for number, record in enumerate(records, 1):
        yield f"{path}, record {number}", record


def _parse(text: bytes, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{line + error.lineno - 1}"
        raise ValueError(f"{where}: invalid JSON: {error.msg} at column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}:{line}: not UTF-8 text") from error
    except (ValueError, RecursionError) as error:  # A number of thousands of digits, brackets without end.
        raise ValueError(f"{path}:{line}: cannot be read: {error}") from error
