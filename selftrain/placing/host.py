"""What Ray runs on a node for us: actors that start a worker there and stand between it and the run.

An actor ends with the run, with its node, or when it is told to; the workers it started end with it.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from selftrain import __version__
from selftrain.verification import Seat, Specs
from selftrain.workers import Worker, WorkerDied, failure, success

AT_ONCE = 1 << 20
"""Bytes of output that are told at once."""


class Home(NamedTuple):
    """What processes find on any node as they would beside the run."""

    environment: Mapping[str, str]
    folder: str
    """They work in."""
    path: Sequence[str] = ()
    """Where modules are found."""

    def enter(self) -> None:
        sys.path[:] = [*self.path, *(place for place in sys.path if place not in self.path)]
        os.environ.update(self.environment)
        os.environ.pop("PYTHONBREAKPOINT", None)  # Ray's own debugger.
        os.chdir(self.folder)


class Heard(NamedTuple):
    """What came of a worker since it was last asked."""

    replies: Sequence[bytes]
    printed: bytes
    death: str | None
    """How it died, where it did."""


class Host:
    """One worker."""

    def __init__(self, home: Home) -> None:
        home.enter()
        self._reading = threading.Lock()

    def address(self) -> tuple[str, int]:
        """Of this node, and a port that is free there."""
        import ray

        with socket.socket() as listening:
            listening.bind(("", 0))
            return ray.util.get_node_ip_address(), listening.getsockname()[1]

    def begin(self, reference: str, args: bytes, threads: int, printed: bool) -> str:
        """Start the worker; the id of its node.

        Args:
            args: of ``reference``, pickled.
            threads: that it computes with.
            printed: whether its output is told.
        """
        import ray

        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._output = tempfile.TemporaryFile() if printed else None  # noqa: SIM115
        self._told = 0
        self._worker = Worker(reference, *pickle.loads(args), output=self._output or False)
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def send(self, message: bytes) -> None:
        """Hand over a request; where it cannot be, whoever waits for the reply is told."""
        try:
            self._worker.put(message)
        except WorkerDied:
            return

    def receive(self) -> Heard:
        """Wait for a reply."""
        replies, death = [], None
        try:
            replies.append(self._worker.take())
            while self._worker.poll():
                replies.append(self._worker.take())
        except WorkerDied as error:
            death = str(error)
        return Heard(replies, self._printed(), death)

    def end(self) -> tuple[str, bytes]:
        """Kill the worker; how it ended, and what it had printed."""
        return self._worker.kill(), self._printed()

    def _printed(self) -> bytes:
        """What was printed since this was last asked."""
        if self._output is None:
            return b""
        with self._reading:
            found = os.pread(self._output.fileno(), AT_ONCE, self._told)
            self._told += len(found)
        return found


class Judges:
    """Verifier workers; what they are asked comes from as many threads."""

    def __init__(self, home: Home, specs: Specs, count: int, seconds: float, memory_mb: int) -> None:
        home.enter()
        self._seats = [Seat(specs, seconds, memory_mb) for _ in range(count)]

    def ready(self, number: int) -> bytes:
        """Wait until a worker has loaded all; the tasks whose responses are judged together."""
        seat = self._seats[number]
        try:
            seat.wait_ready()
            return success(seat.together())
        except Exception as error:  # Whatever a verifier fails with as it loads is raised again in the run.
            return failure(error)

    def judge(self, number: int, requests: bytes) -> bytes:
        """Rows of a worker, in order."""
        try:
            return success(self._seats[number].judge(pickle.loads(requests)))
        except Exception as error:  # As above.
            return failure(error)


def sees(home: Home, path: str, text: str, version: str, tries: Iterable[float]) -> str | None:
    """What a node lacks to stand in for the machine of the run; None: nothing.

    Args:
        path: of a file that the run has just written, with this text.
        version: of this package, in the run.
        tries: seconds to wait between looks: network file systems show a new file late.
    """
    if __version__ != version:
        return f"has selftrain {__version__}, and this is {version}; install the same"
    if not Path(home.folder).is_dir():
        return f"has no folder {home.folder}, where this was started"
    for seconds in (*tries, 0.0):
        file = Path(path)
        if file.is_file() and file.read_text() == text:
            return None
        time.sleep(seconds)
    return f"does not see {Path(path).parent}; put run.folder on a file system that all nodes share"
