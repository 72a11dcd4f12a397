"""The thread that brings finished stages to a mirror while the run goes on.

Whenever it is woken it brings what the mirror lacks (`selftrain.mirror.copying`): what could not be uploaded once is
made up for the next time.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from selftrain.artifacts import RunDir
from selftrain.config import ConfigError
from selftrain.errors import RunError
from selftrain.events import Event, Notice, Progress, StageFinished, StageStarted
from selftrain.mirror.claim import Lock, claim
from selftrain.mirror.copying import Copying
from selftrain.mirror.places import place_of
from selftrain.mirror.pull import Held
from selftrain.mirror.store import Down, Store, Unusable

BESIDE = ("config.yaml", "environment.json", "problems.parquet", "metrics.jsonl")
"""Files of the run that belong to no stage; nothing depends on them."""
FIRST, LONGEST, TRIES = 1.0, 60.0, 6
"""Seconds until a failed upload is tried again, doubled every time up to a bound; and how often a mirror that does not
answer is asked again before a run begins that has nothing else to go on from."""
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
    _copying: Copying = field(init=False)
    held: Held | None = None
    """What it held when the run began; None where it did not answer."""
    _told: queue.SimpleQueue[Notice] = field(default_factory=queue.SimpleQueue)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _asked: int = 0
    _done: int = 0
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
        self._copying = Copying(self.store, self.run, self._check, partial(self._say, level="warning"), self._stir)

    def open(self, say: Callable[[str], None]) -> None:
        """Look at the mirror and claim it, then begin to upload. One that does not answer is told of, and tried again.

        Args:
            say: is told at once why this takes long.

        Raises:
            ConfigError: it is another run's, or the address or the credentials are no good.
            RunError: another process writes to it.
        """
        self._look(say)
        self._thread = threading.Thread(target=self._serve, name="mirror", daemon=True)
        self._thread.start()

    def _look(self, say: Callable[[str], None]) -> None:
        """Claim it and note what it holds; a run that has nothing else to go on from asks more than once."""
        pauses = [] if any(self.run.root.glob("*/**/*.done")) else [self.first * 2**n for n in range(TRIES)]
        while self.held is None:
            try:
                self._claim(say, self.check_stop, late=False)
                self.held = Held(self.store, dict(self._copying.files), dict(self._copying.marks))
            except Down as error:
                if not pauses:
                    self._down(error)
                    break
                pause = pauses.pop(0)
                say(f"the mirror {self.store.url} does not answer ({error}); asked again in {pause:.0f} s")
                self._ended.wait(pause)
                self.check_stop()

    def _claim(self, say: Callable[[str], None], check: Callable[[], None], *, late: bool) -> None:
        if self._claimed:
            return
        claim(self.store, self.run, self.name, late=late)
        self.lock.take(say, check)
        self._copying.look()
        journal = self.run.events
        if not journal.exists() and (place := place_of(self.run, journal)) in self._copying.files:
            self.store.get(place, journal)
        self._claimed = True

    def close(self) -> None:
        self._ended.set()
        self._stir()
        self.lock.release(answers=not self._failing)

    def wake(self) -> None:
        """Something may be new."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def _stir(self) -> None:
        """Let who waits look again."""
        with self._changed:
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
        began, shown, moved = time.monotonic(), 0, self._copying
        while not (self._settled or self._refused or self._dead or self._in_vain(began, seconds, stopping)):
            if not stopping:
                self.check_stop()
            yield from self.told()
            if moved.count != shown and moved.wanted > moved.count:
                if not shown:
                    yield StageStarted(0, NAME, None, "files")
                shown = moved.count
                yield Progress(0, NAME, shown, moved.wanted)
            with self._changed:
                self._changed.wait(0.2)
        yield from self.told()
        if self._settled and moved.count:
            summary = f"{moved.count} files, {moved.size / 1e6:,.1f} MB to {self.store.url}"
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
                self._copying.sync(self._beside())
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

    def _beside(self) -> Sequence[str]:
        """Files that belong to no stage. Events, which tell what a run has spent, are many: they are brought when they
        have grown by a tenth, and at the end."""
        events = self.run.events
        grown = events.exists() and events.stat().st_size > 1.1 * self._copying.files.get(events.name, 0)
        return (*BESIDE, events.name) if self._last or grown else BESIDE

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

    def _check(self) -> None:
        if self._ended.is_set():
            raise Down("the run is over")
        self.lock.check()
