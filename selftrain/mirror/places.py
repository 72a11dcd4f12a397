"""Where what belongs to a stage lies, in the run's folder and in the mirror alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from selftrain.artifacts import RunDir


def place_of(run: RunDir, path: Path) -> str:
    """Of a file, below the run's folder or the mirror's address."""
    return path.relative_to(run.root).as_posix()


def log_of(mark: Path) -> Path | None:
    """What a fit tells step by step: it belongs to the stage, but nothing depends on it, and no mark lists it."""
    kind, _, learner = mark.stem.partition("-")
    folders = {"improve": mark.parent / learner, "warmup": mark.parent}
    return folders[kind] / "log.jsonl" if kind in folders else None


def kept(outputs: Mapping[str, Any], gone: Iterable[str]) -> dict[str, Any]:
    """The outputs of a mark without those that were removed on purpose."""
    return {name: look for name, look in outputs.items() if not any(within(name, place) for place in gone)}


def within(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}/")
