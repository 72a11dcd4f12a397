"""Verifier workers on the nodes of a cluster, dealt out by their CPUs.

Each node that has some holds them in one actor, where deadlines are kept as on the run's own machine. An actor that is
lost with its node is started anew on another, and what its workers were judging is judged again.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

from selftrain.errors import RunError
from selftrain.judging import Request
from selftrain.placing.host import Home, Judges
from selftrain.placing.nodes import Node, living, reason, shares
from selftrain.serving import Row
from selftrain.verification import START_SECONDS, Seated, Specs
from selftrain.workers import unpacked

ATTEMPTS = 5
"""Actors that one chunk of responses may lose."""


def seated(home: Home, specs: Specs, count: int, seconds: float, memory_mb: int) -> Iterator[Seated]:
    """As `selftrain.verification.Put`."""
    nodes = living()
    for node, share in zip(nodes, shares(count, nodes), strict=True):
        if share:
            bench = Bench(partial(_placed, home, specs, share, seconds, memory_mb), node)
            yield from (Seat(bench, number) for number in range(share))


def _placed(home: Home, specs: Specs, count: int, seconds: float, memory_mb: int, node: Node) -> Any:
    """The actor that has so many workers on a node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    at = NodeAffinitySchedulingStrategy(node.id, soft=False)
    # It holds no CPUs: judging goes on beside what has them, as on one machine.
    options = {"num_cpus": 0, "max_concurrency": 2 * count, "max_restarts": 0}
    return _actors().options(scheduling_strategy=at, **options).remote(home, specs, count, seconds, memory_mb)


@cache
def _actors() -> Any:
    import ray

    return ray.remote(Judges)


class Bench:
    """The workers of one node; of another, once that is lost.

    Args:
        start: starts their actor on a node.
    """

    def __init__(self, start: Callable[[Node], Any], node: Node) -> None:
        self._start, self._node = start, node
        self._lock = threading.Lock()
        self._stopped = False
        self._turn = 0
        self._actor = start(node)

    def ask(self, call: Callable[[Any], Any], seconds: float | None = None) -> Any:
        """What the actor answers; another is asked where it is lost.

        Args:
            call: makes the request of an actor.
            seconds: longest wait.

        Raises:
            RuntimeError: they were stopped.
            RunError: one after the other was lost.
        """
        import ray

        for _ in range(ATTEMPTS):
            turn, actor = self._turn, self._actor
            try:
                return unpacked(ray.get(call(actor), timeout=seconds))
            except ray.exceptions.RayTaskError:
                raise
            except ray.exceptions.RayError as error:
                last = error
                self._replace(turn)
        raise RunError(
            f"verifier workers were lost {ATTEMPTS} times: {reason(last)}; look after the nodes (`ray status`), and "
            "run the same command again"
        )

    def _replace(self, turn: int) -> None:
        """A new actor in place of a lost one, unless another thread has seen to it."""
        with self._lock:
            if self._stopped:
                raise RuntimeError("the verifier pool was closed while it was judging")
            if turn == self._turn:
                self._node = self._next()
                self._actor, self._turn = self._start(self._node), turn + 1

    def _next(self) -> Node:
        nodes = living()
        if not nodes:
            raise RunError("the Ray cluster has no nodes any more; start it, and run the same command again")
        return next((node for node in nodes if node.id == self._node.id), max(nodes, key=lambda node: node.cpus))

    def stop(self) -> None:
        import ray

        with self._lock:
            self._stopped = True
            ray.kill(self._actor)


class Seat:
    """The place of one worker, as `selftrain.verification.Seated`."""

    def __init__(self, bench: Bench, number: int) -> None:
        self._bench, self._number = bench, number

    def wait_ready(self) -> None:
        self.together()

    def together(self) -> frozenset[str]:
        found: frozenset[str] = self._bench.ask(lambda actor: actor.ready.remote(self._number), START_SECONDS)
        return found

    def judge(self, requests: Sequence[Request]) -> list[Row]:
        message = pickle.dumps(list(requests), protocol=5)
        rows: list[Row] = self._bench.ask(lambda actor: actor.judge.remote(self._number, message))
        return rows

    def stop(self) -> None:
        self._bench.stop()

    def close(self) -> None:
        """Stopped is all there is."""
