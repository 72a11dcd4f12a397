"""What a mirror lacks of the finished stages in a run's folder, brought there.

A mark is written after all files it lists, and removed before any of them is replaced, so a mirror never holds a mark
without its files, wherever this ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selftrain.artifacts import REMOVED, RunDir, removed
from selftrain.digests import file_digest
from selftrain.mirror.places import kept, log_of, place_of, within
from selftrain.mirror.store import Store


@dataclass
class Copying:
    """One process's view of a mirror that it alone writes to. Every method raises what the store raises."""

    store: Store
    run: RunDir
    check: Callable[[], None]
    """Called before each file; raises where nothing more is to be brought."""
    warn: Callable[[str], None]
    moved: Callable[[], None]
    """Called after each file."""
    marks: dict[str, bytes] = field(default_factory=dict)
    """What the mirror holds, by place; files by their sizes."""
    files: dict[str, int] = field(default_factory=dict)
    _sent: dict[str, Any] = field(default_factory=dict)
    """What stood for a file when it was uploaded, by its place: a digest, or size and time."""
    wanted: int = 0
    """Files to upload in all, as far as is known."""
    count: int = 0
    """Files uploaded."""
    size: int = 0
    """Their bytes."""

    def look(self) -> None:
        """See what the mirror holds."""
        self.files = self.store.listing()
        self.marks = self.store.read_all([place for place in self.files if place.endswith(".done")])

    def sync(self, beside: Sequence[str]) -> None:
        """Make the mirror hold every finished stage of the run's folder.

        Args:
            beside: files of the run that belong to no stage.
        """
        waiting = list(self._waiting())
        self.wanted = self.count + sum(len(listed) + 1 for _, _, listed in waiting)
        for note in sorted(self.run.root.glob(f"*/{REMOVED}")):
            self._thin(note.parent)
        for mark, content, listed in waiting:
            self.check()
            self._upload(mark, content, listed)
        for name in beside:
            self._put_beside(self.run.root / name)

    def _waiting(self) -> Iterator[tuple[Path, bytes, dict[str, Any]]]:
        """Marks that the mirror does not hold, what they say and which files they list, in the order they were
        written."""
        folders = ("start", "warmup/*", "iteration_*")
        marks = [mark for folder in folders for mark in self.run.root.glob(f"{folder}/*.done")]
        for mark in sorted(marks, key=lambda mark: mark.stat().st_mtime_ns):
            content = mark.read_bytes()
            if self.marks.get(place_of(self.run, mark)) != content:
                yield mark, content, kept(json.loads(content)["outputs"], removed(mark.parent))

    def _upload(self, mark: Path, content: bytes, listed: dict[str, Any]) -> None:
        place = place_of(self.run, mark)
        if place in self.marks:
            self.store.remove(place)
            del self.marks[place]
        for name, (_, digest) in listed.items():
            self.check()
            if self._put(mark.parent / name, digest):
                continue
            if not mark.exists():
                return
            if kept({name: None}, removed(mark.parent)):
                self.warn(f"{mark.parent / name} is not what its mark says; its stage is not mirrored")
                self.marks[place] = content  # Not looked at again by this process.
                return
        if (log := log_of(mark)) is not None:
            self._put_beside(log)
        self._thin(mark.parent)
        self.store.write(place, content)
        self.marks[place] = content
        self.count += 1

    def _put(self, file: Path, digest: str) -> bool:
        """Upload a file, unless that is done; False where it is not what its mark says."""
        place = place_of(self.run, file)
        try:
            if self._sent.get(place) != digest:
                if file_digest(file) != digest:
                    return False
                self.store.put(file, place)
                self._note(file, place, digest)
        except FileNotFoundError:
            return False
        return True

    def _put_beside(self, file: Path) -> None:
        place = place_of(self.run, file)
        try:
            look = file.stat()
            stands = (look.st_size, look.st_mtime_ns)
            if self._sent.get(place) != stands:
                self.store.put(file, place)
                self._note(file, place, stands)
        except FileNotFoundError:
            return

    def _note(self, file: Path, place: str, stands: Any) -> None:
        size = file.stat().st_size
        self._sent[place], self.files[place] = stands, size
        self.count += 1
        self.size += size
        self.moved()

    def _thin(self, folder: Path) -> None:
        """Remove from the mirror what was removed of an iteration here; a note first, so that nothing is missed."""
        note = folder / REMOVED
        if not note.exists() or self._sent.get(place := place_of(self.run, note)) == (content := note.read_bytes()):
            return
        self.store.write(place, content)
        gone = [place_of(self.run, folder / one) for one in json.loads(content)]
        for name in [name for name in self.files if any(within(name, one) for one in gone)]:
            self.store.remove(name)
            del self.files[name]
        self._sent[place] = content
