"""The thread that brings finished stages to a mirror while the run goes on.

It looks at what the run's folder holds and puts there what the mirror lacks, again whenever it is woken: what could not
be uploaded once is made up for by the next look. A mark is written after all files it lists, and removed before any of
them is replaced, so a mirror never holds a mark without its files, whenever the thread ends.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selftrain.artifacts import REMOVED, RunDir, removed
from selftrain.config import ConfigError
from selftrain.digests import file_digest
from selftrain.errors import RunError
from selftrain.events import Event, Notice, Progress, StageFinished, StageStarted
from selftrain.mirror.claim import Lock, claim
from selftrain.mirror.places import kept, log_of, place_of, within
from selftrain.mirror.pull import Held
from selftrain.mirror.store import Down, Store, Unusable

BESIDE = ("config.yaml", "environment.json", "problems.parquet", "metrics.jsonl")
"""Files of the run that belong to no stage; nothing depends on them."""
FIRST, LONGEST = 1.0, 60.0
"""Seconds until a failed upload is tried again, doubled every time up to a bound."""
NAME = "upload"
"""What the view calls it."""


@dataclass
class Mirror:
    """A run's mirror. The loop's thread calls the methods without an underscore, and none of them waits for the
    storage but ``open`` and ``settle``."""

    store: Store
    run: RunDir
    name: str
    check_stop: Callable[[], None]
    """Raises where the run was asked to stop."""
    first: float = FIRST
    lock: Lock = field(init=False)
    held: Held | None = None
    """What it held when the run began; None where it did not answer."""
    _told: queue.SimpleQueue[Notice] = field(default_factory=queue.SimpleQueue)
    _marks: dict[str, bytes] = field(default_factory=dict)
    _files: dict[str, int] = field(default_factory=dict)
    _sent: dict[str, Any] = field(default_factory=dict)
    """What stood for a file when it was uploaded, by its place: a digest, or size and time."""
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _asked: int = 0
    _done: int = 0
    _wanted: int = 0
    """Files to upload in all, as far as is known."""
    _count: int = 0
    """Files uploaded."""
    _size: int = 0
    _failing: str = ""
    """Why the last try failed; empty where it did not."""
    _since: float = 0.0
    """Since when."""
    _last: bool = False
    """Whether no more stages follow."""
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _refused: bool = False
    _claimed: bool = False

    def __post_init__(self) -> None:
        self.lock = Lock(self.store)

    def open(self, say: Callable[[str], None]) -> None:
        """Look at the mirror and claim it, then begin to upload. One that does not answer is told of, and tried again.

        Args:
            say: is told at once why this takes long.

        Raises:
            ConfigError: it is another run's, or the address or the credentials are no good.
            RunError: another process writes to it.
        """
        try:
            self._claim(say, self.check_stop, late=False)
            self.held = Held(self.store, dict(self._files), dict(self._marks))
        except Down as error:
            self._down(error)
        self._thread = threading.Thread(target=self._serve, name="mirror", daemon=True)
        self._thread.start()

    def _claim(self, say: Callable[[str], None], check: Callable[[], None], *, late: bool) -> None:
        if self._claimed:
            return
        claim(self.store, self.run, self.name, late=late)
        self.lock.take(say, check)
        self._files = self.store.listing()
        self._marks = self.store.read_all([place for place in self._files if place.endswith(".done")])
        journal = self.run.events
        if not journal.exists() and (place := place_of(self.run, journal)) in self._files:
            self.store.get(place, journal)
        self._claimed = True

    def close(self) -> None:
        self._ended.set()
        with self._changed:
            self._changed.notify_all()
        self.lock.release(answers=not self._failing)

    def wake(self) -> None:
        """Something may be new."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def told(self) -> Iterator[Event]:
        """What happened meanwhile."""
        while not self._told.empty():
            yield self._told.get()

    def settle(self, seconds: float, *, stopping: bool = False) -> Iterator[Event]:
        """Wait until all is uploaded.

        Args:
            seconds: how long at most for a mirror that does not answer; where the run was asked to stop, at all.
            stopping: whether it was; a mirror that does not answer is not waited for then.
        """
        self._last = True
        self.wake()
        began, shown = time.monotonic(), 0
        while not (self._settled or self._refused or self._dead or self._in_vain(began, seconds, stopping)):
            if not stopping:
                self.check_stop()
            yield from self.told()
            if self._count != shown and self._wanted > self._count:
                if not shown:
                    yield StageStarted(0, NAME, None, "files")
                shown = self._count
                yield Progress(0, NAME, shown, self._wanted)
            with self._changed:
                self._changed.wait(0.2)
        yield from self.told()
        if self._settled and self._count:
            summary = f"{self._count} files, {self._size / 1e6:,.1f} MB to {self.store.url}"
            yield StageFinished(0, NAME, time.monotonic() - began, summary, False)
        elif not (self._settled or self._refused):
            yield Notice("not all that is finished is in the mirror yet; the same command uploads it", "warning")

    def _in_vain(self, began: float, seconds: float, stopping: bool) -> bool:
        now = time.monotonic()
        if stopping:
            return bool(self._failing) or now > began + seconds
        return bool(self._failing) and now > max(began, self._since) + seconds

    @property
    def _dead(self) -> bool:
        """Whether nothing is uploaded any more, by a fault of ours: Python has told of it."""
        return self._thread is not None and not self._thread.is_alive()

    @property
    def _settled(self) -> bool:
        return self._done >= self._asked

    def _say(self, text: str, level: Any = "info") -> None:
        self._told.put(Notice(text, level))

    def _serve(self) -> None:
        pause = self.first
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended.is_set() or self._asked > self._done)
                asked = self._asked
            if self._ended.is_set():
                return
            try:
                self._claim(self._say, self._check, late=True)
                self._sync()
            except FileNotFoundError:
                self._ended.wait(self.first)  # Set aside meanwhile: what is there then?
                continue
            except (Down, Unusable, OSError) as error:
                self._down(error)
                self._ended.wait(pause)
                pause = min(2 * pause, LONGEST)
                continue
            except (ConfigError, RunError) as error:
                self._say(f"{error}; nothing more is uploaded", "warning")
                self._refused = True
                return
            pause = self.first
            self._up()
            with self._changed:
                self._done = asked
                self._changed.notify_all()

    def _down(self, error: Exception) -> None:
        if not self._failing:
            self._since = time.monotonic()
            self._say(
                f"the mirror {self.store.url} does not answer ({error}); the run goes on, and what is finished is "
                "uploaded when it does",
                "warning",
            )
        self._failing = str(error)

    def _up(self) -> None:
        if self._failing:
            self._say("the mirror answers again, and has what was missing")
        self._failing = ""

    def _sync(self) -> None:
        """Make the mirror hold every finished stage of the run's folder."""
        waiting = list(self._waiting())
        self._wanted = self._count + sum(len(listed) + 1 for _, _, listed in waiting)
        for note in sorted(self.run.root.glob(f"*/{REMOVED}")):
            self._thin(note.parent)
        for mark, content, listed in waiting:
            self._check()
            self._upload(mark, content, listed)
        for name in (*BESIDE, self.run.events.name) if self._last else BESIDE:
            self._put_beside(self.run.root / name)

    def _check(self) -> None:
        if self._ended.is_set():
            raise Down("the run is over")
        self.lock.check()

    def _waiting(self) -> Iterator[tuple[Path, bytes, dict[str, Any]]]:
        """Marks that the mirror does not hold, what they say and which files they list, in the order they were
        written."""
        folders = ("start", "warmup/*", "iteration_*")
        marks = [mark for folder in folders for mark in self.run.root.glob(f"{folder}/*.done")]
        for mark in sorted(marks, key=lambda mark: mark.stat().st_mtime_ns):
            content = mark.read_bytes()
            if self._marks.get(place_of(self.run, mark)) != content:
                yield mark, content, kept(json.loads(content)["outputs"], removed(mark.parent))

    def _upload(self, mark: Path, content: bytes, listed: dict[str, Any]) -> None:
        place = place_of(self.run, mark)
        if place in self._marks:
            self.store.remove(place)
            del self._marks[place]
        for name, (_, digest) in listed.items():
            self._check()
            if self._put(mark.parent / name, digest):
                continue
            if not mark.exists():
                return
            if kept({name: None}, removed(mark.parent)):
                self._say(f"{mark.parent / name} is not what its mark says; its stage is not mirrored", "warning")
                self._marks[place] = content  # Not looked at again by this process.
                return
        if (log := log_of(mark)) is not None:
            self._put_beside(log)
        self._thin(mark.parent)
        self.store.write(place, content)
        self._marks[place] = content
        self._count += 1

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
        self._sent[place], self._files[place] = stands, size
        self._count += 1
        self._size += size
        with self._changed:
            self._changed.notify_all()

    def _thin(self, folder: Path) -> None:
        """Remove from the mirror what was removed of an iteration here; a note first, so that nothing is missed."""
        note = folder / REMOVED
        if not note.exists() or self._sent.get(place := place_of(self.run, note)) == (content := note.read_bytes()):
            return
        self.store.write(place, content)
        gone = [place_of(self.run, folder / one) for one in json.loads(content)]
        for name in [name for name in self._files if any(within(name, one) for one in gone)]:
            self.store.remove(name)
            del self._files[name]
        self._sent[place] = content
