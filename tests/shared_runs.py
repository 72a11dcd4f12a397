"""Runs of one config in a folder they share, and what they wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from selftrain import records
from selftrain.cli import main

Run = Callable[..., Path]


def runs(config: Path, folder: Path, *always: str) -> Run:
    """Starts, or goes on with, a run by its name; further arguments are those of `selftrain run`.

    Args:
        always: arguments of every run.
    """

    def run(name: str, *arguments: str, status: int = 0) -> Path:
        given = [f"run.folder={folder}", f"run.name={name}", *always, *arguments]
        assert main(["run", str(config), *given]) == status
        return folder / name

    return run


def of(run: Path, kind: type, iteration: int, *folders: str) -> list[Any]:
    """All records of a kind in a folder of an iteration."""
    folder = run.joinpath(f"iteration_{iteration:04d}", *folders)
    return [row for part in records.parts(folder) for row in records.rows(part, kind)]
