"""Where a run keeps everything, and the marks of its stages.

A stage is done when its mark exists. The mark is written last and holds what the stage depended on: the part of the
config it read, the digests of its inputs, the sizes and digests of its outputs. A mark that does not fit stops the
run and names what differs.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selftrain.digests import file_digest
from selftrain.errors import RunError, StaleStage
from selftrain.files import TEMPORARY, clear, place, read_json, write_json

ITERATION = re.compile(r"iteration_(\d{4,})")
"""Folders of iterations; others beside them are somebody's own."""
REMOVED = "removed.json"
"""Of an iteration: the outputs that were removed on purpose, and are not missed."""


@dataclass(frozen=True)
class Stage:
    """One stage of one iteration: what it depends on, and its mark."""

    name: str
    iteration: int
    folder: Path
    """Where its mark lies and its outputs are below."""
    config: Mapping[str, Any]
    """The part of the config it reads."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Name to digest of what it reads from earlier stages and from outside the run."""
    reads: tuple[str, ...] = ()
    """Labels of the stages whose outputs it reads."""

    @property
    def mark(self) -> Path:
        return self.folder / f"{self.name}.done"

    @property
    def label(self) -> str:
        return f"{self.iteration}/{self.name}"

    def done(self) -> bool:
        """Whether the stage is finished.

        Raises:
            StaleStage: it is, but with another config or other inputs, or its outputs changed since.
        """
        if reason := self.stale():
            raise StaleStage(f"{reason}, or redo it with --redo {self.label}")
        return self.mark.exists()

    def stale(self) -> str | None:
        """Why a finished stage does not fit, and what to do but for redoing it; None where all is well."""
        if not self.mark.exists():
            return None
        if differing := self.differing():
            return (
                f"iteration {self.iteration}, stage '{self.name}' was done with other settings: "
                f"{', '.join(differing)}; set them back, choose another run.name"
            )
        gone = removed(self.folder)
        for name, (size, _) in read_json(self.mark)["outputs"].items():
            file = self.folder / name
            if any(file.is_relative_to(self.folder / folder) for folder in gone):
                continue
            if not file.exists() or file.stat().st_size != size:
                return (
                    f"iteration {self.iteration}, stage '{self.name}': {file} is missing or changed since it was "
                    "written; put it back"
                )
        return None

    def differing(self, written: Mapping[str, Any] | None = None) -> list[str]:
        """Keys of the config and names of inputs by which the mark differs from what the stage depends on now.

        Args:
            written: what the mark says; read where none is given.
        """
        written = read_json(self.mark) if written is None else written
        inputs = differences(written["inputs"], dict(self.inputs))
        return [*differences(written["config"], _plain(self.config)), *(f"input '{name}'" for name in inputs)]

    def finish(self, outputs: Sequence[Path]) -> None:
        """Write the mark, once the disk holds the outputs under their names."""
        files = sorted(file for path in outputs for file in ([path] if path.is_file() else path.rglob("*")))
        listed = {
            file.relative_to(self.folder).as_posix(): (file.stat().st_size, file_digest(file))
            for file in files
            if file.is_file() and not file.match(TEMPORARY)
        }
        self._no_longer_removed(outputs)
        there = [path for path in outputs if path.exists()]
        write_json(
            self.mark,
            {"stage": self.label, "config": _plain(self.config), "inputs": dict(self.inputs), "outputs": listed},
            beside={*(file.parent for file in files), *(path.parent for path in there)},
        )

    def _no_longer_removed(self, outputs: Sequence[Path]) -> None:
        """What was removed of an earlier try is there again, and would be missed."""
        gone = removed(self.folder)
        left = [name for name in gone if self.folder / name not in outputs]
        if left != gone:
            write_json(self.folder / REMOVED, left)

    def begin(self, folder: Path, leave_out: Sequence[str] = ()) -> None:
        """Note in ``folder`` what its files depend on, so that a resumed stage goes on with the same.

        Args:
            leave_out: how the names begin of what these files do not depend on, among keys of the config and inputs,
                which are called ``input 'NAME'``.

        Raises:
            StaleStage: they were begun with other settings.
        """
        differing = begun_otherwise(folder, self._depends(leave_out))
        if differing:
            raise StaleStage(
                f"iteration {self.iteration}, stage '{self.name}' was begun with other settings: "
                f"{', '.join(differing)}; set them back, choose another run.name, or redo it with --redo {self.label}"
            )

    def begin_afresh(self, run: RunDir, folder: Path) -> None:
        """As ``begin``; what was begun with other settings is set aside and the stage starts over."""
        if begun_otherwise(folder, self._depends()):
            run.set_aside([folder])
            begun_otherwise(folder, self._depends())

    def _depends(self, leave_out: Sequence[str] = ()) -> dict[str, Any]:
        whole = {**_plain(self.config), **{f"input '{name}'": digest for name, digest in self.inputs.items()}}
        return {key: value for key, value in whole.items() if not key.startswith(tuple(leave_out))}

    def digest(self) -> str:
        """Stands for what the stage made, in the marks of later ones."""
        return file_digest(self.mark)[:16]


def begun_otherwise(folder: Path, depends: Mapping[str, Any]) -> list[str]:
    """Keys by which what the files of a folder depend on differs from what they were begun with.

    A folder that does not exist is begun now.
    """
    note = folder / "begun.json"
    if not note.exists():
        write_json(note, depends, later=True)
    return differences(read_json(note), depends)


def removed(folder: Path) -> list[str]:
    """What of an iteration was removed on purpose, by its place in the folder."""
    note = folder / REMOVED
    return list(read_json(note)) if note.exists() else []


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Dotted keys by which two plain trees differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        missing = object()
        return [
            found
            for key in keys
            for found in differences(old.get(key, missing), new.get(key, missing), f"{where}.{key}" if where else key)
        ]
    return [] if old == new else [where]


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


@dataclass(frozen=True)
class RunDir:
    """Paths of a run."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def stop(self) -> Path:
        """While this file exists, stages end after their current part."""
        return self.root / "stop"

    @property
    def problems(self) -> Path:
        return self.root / "problems.parquet"

    @property
    def start(self) -> Path:
        return self.root / "start"

    @property
    def warmup(self) -> Path:
        return self.root / "warmup"

    def iteration(self, number: int) -> Path:
        return self.root / f"iteration_{number:04d}"

    def iterations(self) -> list[int]:
        found = (ITERATION.fullmatch(path.name) for path in self.root.glob("iteration_*"))
        return sorted(int(name[1]) for name in found if name)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            RunError: another process holds it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"{self.root} is in use by another process; wait for it, or choose another run.name"
                ) from None
            yield

    def remove_temporaries(self) -> None:
        """Remove what a killed process left half-written; only who holds the lock may."""
        clear(self.root)

    def set_aside(self, paths: Sequence[Path]) -> Path | None:
        """Move what exists of ``paths``, in order, to a numbered folder of ``redone/``; nothing is ever deleted."""
        if not any(path.exists() for path in paths):
            return None
        target = self._shelf()
        for path in paths:
            if path.exists():  # One path may lie inside an earlier one.
                moved = target / path.relative_to(self.root)
                moved.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, moved)
        return target

    def keep_aside(self, files: Sequence[Path]) -> None:
        """Give files that will be replaced a second name in a numbered folder of ``redone/``."""
        target = self._shelf()
        for file in files:
            kept = target / file.relative_to(self.root)
            kept.parent.mkdir(parents=True, exist_ok=True)
            place(file, kept)

    def _shelf(self) -> Path:
        shelf = self.root / "redone"
        return shelf / f"{len(list(shelf.glob('*'))) if shelf.exists() else 0:03d}"
