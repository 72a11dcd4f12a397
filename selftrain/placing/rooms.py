"""Room that Ray keeps free on its nodes: placement groups, waited for within bounds."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import IO, Any, Literal

from selftrain.errors import NoRoom
from selftrain.placing.channel import Placed
from selftrain.placing.host import Home, Host
from selftrain.placing.nodes import in_words, living
from selftrain.workers import Start

SAY_SECONDS = 10
"""Between two lines that tell who waits."""
START_SECONDS = 900
"""Longest start of an actor that has a place."""
Strategy = Literal["PACK", "SPREAD"]


@cache
def _actors() -> Any:
    """`Host` as Ray starts it: what it is sent stays in order while it waits for replies and may be ended."""
    import ray

    groups: dict[str, Any] = {"concurrency_groups": {"out": 1, "end": 1}}
    return ray.remote(**groups)(Host)


class Room:
    """Places for some processes, held from the first that is started to the last that is closed.

    A node that is lost takes its part with it; Ray finds another for that, where there is room.

    Args:
        count: of processes.
        cpus, gpus: of each.
        strategy: PACK: on as few nodes as may be; SPREAD: on as many.
        wait: seconds that the places are waited for while others have them.
    """

    def __init__(self, home: Home, count: int, cpus: int, gpus: int, strategy: Strategy, wait: float) -> None:
        self._home, self._count, self._strategy, self._wait = home, count, strategy, wait
        self._cpus, self._gpus = cpus, gpus
        self._lock = threading.Lock()
        self._group: Any = None
        self._inside = self._unbegun = 0
        """Processes that hold it, and those of them that are still to be started."""

    def start(self, number: int) -> Start:
        """What starts a process at one of the places."""

        def started(reference: str, *args: Any, output: bool | IO[bytes] = False) -> Placed:
            group = self._enter()
            try:
                host = self._host(group, number)
            except BaseException:
                self._leave()
                raise
            return self._begun(host, reference, *args, output=output)

        return started

    def meet(self) -> tuple[Sequence[Start], str]:
        """As `selftrain.places.Places.meet`: neighbours are on one node."""
        import ray

        group = self._enter()
        try:
            at = ray.util.placement_group_table(group)["bundles_to_node_id"]
            nodes = list(dict.fromkeys(at[number] for number in range(self._count)))
            order = sorted(range(self._count), key=lambda number: nodes.index(at[number]))
            hosts = [self._host(group, number) for number in order]
            address, port = self._awaited(hosts[0].address.remote())
        except BaseException:
            self._leave()
            raise
        with self._lock:
            self._inside = self._unbegun = self._count
        return [self._starting(host) for host in hosts], f"tcp://{address}:{port}"

    def _starting(self, host: Any) -> Start:
        def started(reference: str, *args: Any, output: bool | IO[bytes] = False) -> Placed:
            self._unbegun -= 1
            return self._begun(host, reference, *args, output=output)

        return started

    def _begun(self, host: Any, reference: str, *args: Any, output: bool | IO[bytes]) -> Placed:
        own: dict[str, Any] = {"threads": self._cpus, "await_node": self._awaited, "left": self._leave}
        return Placed(host, reference, *args, output=output, **own)

    def _host(self, group: Any, number: int) -> Any:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        at = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number)
        asked = _actors().options(num_cpus=self._cpus, num_gpus=self._gpus, scheduling_strategy=at, max_restarts=0)
        return asked.remote(self._home)

    def _enter(self) -> Any:
        with self._lock:
            if self._group is None:
                self._group = self._reserved()
            self._inside += 1
            return self._group

    def _leave(self) -> None:
        import ray

        with self._lock:
            # Where one of those that meet cannot be started, the others are not asked to.
            self._inside -= 1 + self._unbegun
            self._unbegun = 0
            group = self._group
            if self._inside == 0 and group is not None:
                self._group = None
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.util.remove_placement_group(group)

    def _reserved(self) -> Any:
        import ray

        bundle = {"CPU": self._cpus, **({"GPU": self._gpus} if self._gpus else {})}
        group = ray.util.placement_group([bundle] * self._count, strategy=self._strategy)
        try:
            self._patiently(group.wait)
        except BaseException:
            ray.util.remove_placement_group(group)
            raise
        return group

    def _awaited(self, reference: Any) -> Any:
        """The first reply of an actor, which goes where its group is, elsewhere once a node of that is lost."""
        import ray

        until = time.monotonic() + START_SECONDS
        while not ray.wait([reference], timeout=SAY_SECONDS)[0]:
            self._patiently(self._group.wait)
            if time.monotonic() > until:
                raise NoRoom(
                    f"a process that has its place on the Ray cluster did not start within {START_SECONDS} s; look at "
                    "`ray status` and at Ray's logs on its node, and run the same command again"
                )
        return ray.get(reference)

    def _patiently(self, there: Callable[[int], bool]) -> None:
        """Return once ``there``, which waits for some seconds, says so; raise NoRoom where it cannot be, or took too
        long."""
        began = time.monotonic()
        while not there(max(1, min(SAY_SECONDS, int(self._wait)))):
            nodes, waited = living(), time.monotonic() - began
            asked = f"{self._count} process{'es' * (self._count > 1)} of {self._each()}"
            found = f"the Ray cluster has {in_words(nodes)}"
            if self._count > sum(node.room(self._cpus, self._gpus) for node in nodes):
                raise NoRoom(f"no room for {asked}: {found}; add nodes, or ask for fewer (launch)")
            if waited >= self._wait:
                raise NoRoom(
                    f"no room for {asked} within {self._wait:g} s: {found}, and others have them (`ray status`); wait "
                    "for them, raise launch.ray.wait, or ask for fewer (launch)"
                )
            print(f"waiting for {asked}: {found} ({waited:.0f} of {self._wait:g} s)", file=sys.stderr, flush=True)

    def _each(self) -> str:
        gpus = [f"{self._gpus} GPU{'s' * (self._gpus > 1)}"] * bool(self._gpus)
        return " and ".join([*gpus, f"{self._cpus} CPU{'s' * (self._cpus > 1)}"])
