"""What was decided of an iteration before it began: a note in its folder, which a resumed run keeps to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selftrain.artifacts import RunDir
from selftrain.files import read_json, write_json

NOTE = "budget.json"


def path(run: RunDir, iteration: int) -> Path:
    return run.iteration(iteration) / NOTE


def samples_limit(run: RunDir, iteration: int) -> int | None:
    """Samples per problem at most; None where no budget decides."""
    note = path(run, iteration)
    return int(read_json(note)["samples"]) if note.exists() else None


def write(run: RunDir, iteration: int, note: dict[str, Any]) -> None:
    write_json(path(run, iteration), note)


def read(run: RunDir, iteration: int) -> dict[str, Any] | None:
    note = path(run, iteration)
    return dict(read_json(note)) if note.exists() else None
