"""Whose a mirror is: the run it belongs to, and the process that writes to it.

``run.json`` names the run, for good. ``lock.json`` names the process that goes on with it; while it lives it writes a
new number there every few seconds, so that another machine can tell, by its own clock alone, that one which was killed
is gone.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from selftrain.artifacts import RunDir
from selftrain.config import ConfigError
from selftrain.errors import RunError
from selftrain.files import read_json, write_json
from selftrain.mirror.store import KEY, Down, Store

RUN, LOCK = "run.json", "lock.json"
NOTE = "mirror.json"
"""In the run's folder: under which id it is mirrored."""
BEAT, PATIENCE = 15.0, 40.0
"""Seconds from one sign of life to the next, and without any after which a process counts as gone."""


def claim(store: Store, run: RunDir, name: str, *, late: bool = False) -> None:
    """Make a new mirror this run's, or make sure that it is. A run whose folder is empty goes on with what it holds.

    Args:
        late: whether the run has begun without it.

    Raises:
        ConfigError: it is another's.
    """
    note = run.root / NOTE
    own = read_json(note)["run"] if note.exists() else None
    found = store.read_json(RUN)
    if began := found is None:
        found = {"run": own or uuid4().hex, "name": name}
        began = store.create(RUN, _encoded(found))  # Of two that begin at once, one comes first.
        found = found if began else store.read_json(RUN)
    if not isinstance(found, dict) or not {"run", "name"} <= found.keys():
        raise ConfigError(f"{KEY}: {store.url}/{RUN} is none of a mirror's; remove it, or choose another mirror")
    if found["name"] != name:
        raise ConfigError(
            f"{KEY}: {store.url} belongs to the run '{found['name']}'; give this one a mirror of its own, such as "
            f"{store.url.rstrip('/')}-{name}"
        )
    fresh = own is None and not late and not any(run.root.glob("*/**/*.done"))
    if not (began or fresh or own == found["run"]):
        raise ConfigError(_other(store, run))
    if own != found["run"]:
        write_json(note, {"run": found["run"]})


def _other(store: Store, run: RunDir) -> str:
    return (
        f"{KEY}: {store.url} holds another run of this name, not the one in {run.root}; give this one a mirror of its "
        "own, or move its folder away to go on with what the mirror holds"
    )


@dataclass
class Lock:
    """The right to write to a mirror, held by one process at a time."""

    store: Store
    beat: float = BEAT
    patience: float = PATIENCE
    lost: bool = False
    """Whether another process has taken it over, because this one gave no sign of life for too long."""
    _held: bool = False
    _end: threading.Event = field(default_factory=threading.Event)
    _count: int = 0
    _token: str = field(default_factory=lambda: uuid4().hex)
    _renewed: float = 0.0
    """When the last sign of life was given."""

    def take(self, say: Callable[[str], None], check_stop: Callable[[], None]) -> None:
        """Take it, also from a process that is gone; wait where that cannot be known at once.

        Args:
            say: is told why it waits.
            check_stop: raises where it should not wait any longer.

        Raises:
            RunError: another process holds it and lives.
        """
        if self._held:
            return
        # Looked at first: not every storage refuses to create what is there.
        while (found := self.store.read_json(LOCK)) is not None or not self.store.create(LOCK, self._content()):
            found = found or self.store.read_json(LOCK)
            if found is None or self._silent(found, say, check_stop):
                self.store.remove(LOCK)
        self._held, self._renewed = True, time.monotonic()
        threading.Thread(target=self._keep, name="mirror-lock", daemon=True).start()

    def _silent(self, found: dict[str, Any], say: Callable[[str], None], check_stop: Callable[[], None]) -> bool:
        """Whether the process that holds it is gone."""
        who = f"process {found['pid']} on {found['host']}"
        refused = RunError(f"{KEY}: {self.store.url} is in use by {who}; wait for it, or choose another mirror")
        if found["machine"] == _machine():
            if found["began"] is not None and found["began"] == _began(found["pid"]):
                raise refused
            return True
        say(f"the mirror was in use by {who}; waiting {self.patience:.0f} s for a sign of life")
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            check_stop()
            time.sleep(min(1.0, self.patience / 10))
            now = self.store.read_json(LOCK)
            if now is None:
                return True
            if now != found:
                raise refused
        return True

    def check(self) -> None:
        """Make sure that it is held still, also where no sign of life could be given for long.

        Raises:
            RunError: another process has taken it over.
            Down, ConfigError: that cannot be known.
        """
        if self._held and time.monotonic() > self._renewed + self.patience:
            self._renew()
        if self.lost:
            raise RunError(f"{self.store.url} was taken over by another process")

    def _keep(self) -> None:
        while not (self.lost or self._end.wait(self.beat)):
            with suppress(Down, ConfigError):  # What uploads tells of it.
                self._renew()

    def _renew(self) -> None:
        """Give a sign of life, unless another process does."""
        began = time.monotonic()
        found = self.store.read_json(LOCK)
        if found is not None and found["token"] != self._token:
            self.lost = True
            return
        self.store.write(LOCK, self._content())
        self._renewed = began

    def release(self, answers: bool = True) -> None:
        """Give it back.

        Args:
            answers: whether the mirror does; who comes next waits for a sign of life where it does not.
        """
        self._end.set()
        if self._held and answers and not self.lost:
            self._held = False
            try:
                self.store.remove(LOCK)
            except (Down, ConfigError):
                return

    def _content(self) -> bytes:
        self._count += 1
        own = {"token": self._token, "beat": self._count, "pid": os.getpid(), "host": platform.node()}
        return _encoded({**own, "machine": _machine(), "began": _began(os.getpid())})


def _machine() -> str:
    """Where the number of a process means something: this boot of this machine, and the name space of processes."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"


def _began(pid: int) -> str | None:
    """When a process of this machine was started, by the kernel's clock; numbers are given out again. None: gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def _encoded(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True) + "\n").encode()
