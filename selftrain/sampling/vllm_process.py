"""The process an engine lives in, seen from outside: what it printed is at hand when it fails, and it may not be
silent for ever."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from selftrain.workers import Start, Worker, WorkerDied

GLANCE = 1.0
"""Seconds between two looks at the clock while nothing comes."""
GAP = 5.0
"""Seconds between two looks that count at most: who waits may have been busy elsewhere."""
SILENT = 5.0
"""Seconds of silence after which a wish to stop is listened to: an engine that works answers sooner."""

PREFIX = re.compile(r"^(\([\w ]+pid=\d+\) *)?((ERROR|CRITICAL) \d\d-\d\d \S+ \[\S+\] *)?")
"""What vLLM puts before a line: the process and the place in its source."""
TELLING = re.compile(r"([\w.]+(Error|Exception)\b|terminate called|what\(\):|Fatal Python error|Segmentation fault)")
POINTERS = ("root cause above", "stack trace (above)")
"""In lines that only say that another line tells more."""
CHARACTERS = 400


class EngineFailed(RuntimeError):
    """An engine failed, died or fell silent; the message holds what it printed last."""


class EngineProcess:
    """A worker with a log and with bounded patience.

    Args:
        patience: seconds without any progress after which the engine counts as stuck.
        reference: what serves in the process, as `Worker` takes it.
        name: of the engine, in messages.
        start: starts the process; None: a worker on this machine.
    """

    def __init__(
        self,
        *args: Any,
        patience: float,
        reference: str = "selftrain.sampling.vllm_engine:serve",
        name: str = "vLLM",
        start: Start | None = None,
    ) -> None:
        handle, path = tempfile.mkstemp(prefix=f"selftrain-{name.lower()}-", suffix=".log")
        self._log, self._patience, self._name = Path(path), patience, name
        self._silent, self._looked = 0.0, time.monotonic()
        """Seconds in which nothing but empty answers came to who waited, and when that was last looked at."""
        self._started = 0
        """Bytes it printed before it was ready: notes and progress bars, which tell nothing of what fails later."""
        self._failed = False
        self.closed = False
        self.waiting = 0
        """Answers that are still to come."""
        self.check_stop: Callable[[], None] = lambda: None
        """Called while the engine is silent; what it raises ends the waiting."""
        with os.fdopen(handle, "wb") as log:
            self._worker = (start or Worker)(reference, *args, output=log)
        self.waiting = 1
        try:
            self.receive()
            self._started = self._log.stat().st_size
        except BaseException:
            self.close()
            raise

    def ask(self, told: Any) -> None:
        """Send a request. That the process is gone is told by ``receive``, after all that it had answered before."""
        if not self.waiting:
            self._looked = time.monotonic()
        self.waiting += 1
        with suppress(WorkerDied):
            self._worker.send(told)

    def receive(self) -> Any:
        """The next answer; an empty list is no progress.

        Raises:
            EngineFailed: it failed, or there was no progress for too long.
        """
        while not self.poll(GLANCE):
            pass
        try:
            answer = self._worker.receive()
        except Exception as error:  # Whatever an engine fails with: its classes have no base in common.
            raise self._failure(f"{type(error).__name__}: {error}") from error
        self.waiting -= 1
        if answer == []:
            self._still_silent()
        else:
            self._silent, self._looked = 0.0, time.monotonic()
        return answer

    def poll(self, timeout: float = 0.0) -> bool:
        """Whether ``receive`` would return now, or within ``timeout`` seconds; for who waits for an answer.

        Raises:
            EngineFailed: there was no progress for too long.
        """
        if self._worker.poll(timeout):
            return True
        self._still_silent()
        return False

    def _still_silent(self) -> None:
        now = time.monotonic()
        self._silent += min(now - self._looked, GAP)
        self._looked = now
        if self._silent > self._patience:
            self._worker.kill()
            raise self._failure(
                f"{self._name} made no progress for {self._patience:g} s and was ended; what it had answered is kept "
                "(where it only needs longer, set the sampler's patience)"
            )
        if self._silent > SILENT:
            self.check_stop()

    def _failure(self, what: str) -> EngineFailed:
        said = telling(self._log.read_bytes()[self._started :].decode(errors="replace"))
        if not said:
            return EngineFailed(what)
        self._failed = True
        return EngineFailed(f"{what}; it had printed: {said} (all of it: {self._log})")

    def close(self) -> None:
        """End the process; what it printed stays only where an error has named it."""
        self.closed = True
        self._worker.close()
        if not self._failed:
            self._log.unlink(missing_ok=True)


def telling(printed: str) -> str:
    """What a log says of the reason of a failure, in one line: the last error in it, or else how it ends."""
    lines = [line for line in (PREFIX.sub("", raw).strip() for raw in printed.splitlines()) if line]
    errors = [line for line in lines if TELLING.match(line) and not any(words in line for words in POINTERS)]
    return " | ".join(errors[-1:] or lines[-3:])[-CHARACTERS:]
