"""A worker on some node, asked as if it were here."""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable
from typing import IO, Any

from selftrain.errors import NoRoom
from selftrain.placing.host import Heard
from selftrain.placing.nodes import is_lost, reason
from selftrain.workers import MachineLost, WorkerDied, unpacked

STDOUT = 1
END_SECONDS = 20.0
"""Longest wait for a worker to end; a node that does not answer by then is taken to be gone."""


class Placed:
    """As `selftrain.workers.Worker`, through the actor `selftrain.placing.host.Host`.

    Args:
        host: handle of the actor.
        await_node: waits for a reply of an actor that has still to be placed; raises NoRoom.
        left: called once this is closed.

    Raises:
        NoRoom: the actor cannot be placed.
        WorkerDied: it ended before it had started the worker.
    """

    def __init__(
        self,
        host: Any,
        reference: str,
        *args: Any,
        threads: int,
        output: bool | IO[bytes],
        await_node: Callable[[Any], Any],
        left: Callable[[], None],
    ) -> None:
        self.reference = reference
        self._host, self._left = host, left
        self._lock = threading.Lock()
        self._replies: deque[bytes] = deque()
        self._death: WorkerDied | None = None
        self._ended: str | None = None
        self._node = ""
        self._output = os.dup(STDOUT if output is True else output.fileno()) if output else None
        try:
            begun = host.begin.remote(reference, pickle.dumps(args, protocol=5), threads, bool(output))
            self._node = await_node(begun)
            self._coming = self._listen()
        except BaseException as error:
            self._free()
            if isinstance(error, NoRoom) or not _of_ray(error):
                raise
            raise self._died(error) from error

    def send(self, request: Any) -> None:
        """Hand over a request; that the process is gone is told where its reply is waited for."""
        self._host.send.remote(pickle.dumps(request, protocol=5))

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether ``receive`` would return (or raise) now, or within ``timeout`` seconds (None: wait)."""
        import ray

        if self._replies or self._death:
            return True
        return bool(ray.wait([self._coming], timeout=timeout)[0])

    def receive(self) -> Any:
        """The next reply; raises what the function raised, or WorkerDied; MachineLost where its node is gone."""
        while not self._replies:
            if self._death is not None:
                raise self._death
            self._hear()
        return unpacked(self._replies.popleft())

    def kill(self) -> str:
        """End the process and all it started, from any thread; says how it ended."""
        with self._lock:
            if self._ended is None:
                self._ended = self._end()
            return self._ended

    def close(self) -> None:
        """Kill, and give the place back."""
        self.kill()
        self._free()

    def _listen(self) -> Any:
        return self._host.receive.options(concurrency_group="out").remote()

    def _hear(self) -> None:
        import ray

        try:
            heard: Heard = ray.get(self._coming)
        except ray.exceptions.RayError as error:
            self._death = self._died(error)
            return
        self._show(heard.printed)
        self._replies.extend(heard.replies)
        if heard.death is None:
            self._coming = self._listen()
        else:
            self._death = WorkerDied(heard.death)

    def _end(self) -> str:
        import ray

        try:
            how, printed = ray.get(self._host.end.options(concurrency_group="end").remote(), timeout=END_SECONDS)
        except ray.exceptions.RayError:
            return "is gone"
        self._show(printed)
        return str(how)

    def _show(self, printed: bytes) -> None:
        if printed and self._output is not None:
            os.write(self._output, printed)

    def _died(self, error: BaseException) -> WorkerDied:
        if is_lost(self._node, error):
            return MachineLost(f"{self.reference}: the worker's node was lost")
        return WorkerDied(f"{self.reference}: the process that held the worker is gone: {reason(error)}")

    def _free(self) -> None:
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self._host)
        if self._output is not None:
            os.close(self._output)
            self._output = None
        left, self._left = self._left, _nothing
        left()


def _nothing() -> None:
    """It was closed before."""


def _of_ray(error: BaseException) -> bool:
    import ray

    return isinstance(error, ray.exceptions.RayError)
