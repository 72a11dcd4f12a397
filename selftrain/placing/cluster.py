"""The Ray cluster of a run, as `selftrain.places.Places`: an existing one, or one that is started for it."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from selftrain import __version__, machine
from selftrain.config import ConfigError
from selftrain.errors import RunError
from selftrain.placing import judges, local
from selftrain.placing.address import resolved
from selftrain.placing.connection import connected, settle
from selftrain.placing.host import Home, sees
from selftrain.placing.nodes import Node, living, reason
from selftrain.placing.rooms import Room
from selftrain.schema import Launch
from selftrain.verification import Seated, Specs
from selftrain.workers import Start, Worker

LOOK_SECONDS = 60.0
"""Longest wait for a node to tell what it sees."""
TRIES = (0.2, 0.5, 1.0, 2.0, 3.0, 3.0)
OF_MACHINE = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HOSTNAME", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_")
"""Variables that belong to a machine or a process; a node keeps its own."""
OF_SCHEDULERS = ("RAY_", "SLURM", "PMI", "SSH_", "XDG_")


class Cluster:
    """A context manager.

    Raises:
        ConfigError: it does not answer.
    """

    def __init__(self, launch: Launch) -> None:
        self._wait = launch.ray.wait
        self.cpus = cpus_each(launch)
        self._home = Home(environment(os.environ), os.getcwd(), tuple(sys.path))
        self._open = ExitStack()
        try:
            address = resolved(launch.ray.address) or self._started(cpus_of(launch))
            self._open.enter_context(connected(address))
        except BaseException:
            self._open.close()
            raise
        self.address = address
        self.gpus = any(node.gpus for node in living())

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _started(self, cpus: int) -> str:
        settle(local.AUTH)
        folder = self._open.enter_context(local.folder())
        worker = self._open.enter_context(Worker("selftrain.placing.local:serve", cpus, len(machine.gpus()), folder))
        try:
            worker.wait_ready()
            worker.send(None)
            return str(worker.receive())
        except Exception as error:  # Ray fails with classes that have no base in common.
            raise RunError(
                f"launch.place: ray: no Ray cluster could be started on this machine: {reason(error)}; run the same "
                "command again, or name one that runs (launch.ray.address)"
            ) from error

    @property
    def nodes(self) -> list[Node]:
        return living()

    def room(self, gpus: int) -> int:
        return sum(node.room(self.cpus, gpus if self.gpus else 0) for node in living())

    def spread(self, count: int, gpus: int) -> Sequence[Start]:
        room = Room(self._home, count, self.cpus, gpus if self.gpus else 0, "SPREAD", self._wait)
        return [room.start(number) for number in range(count)]

    def meet(self, count: int) -> tuple[Sequence[Start], str]:
        return Room(self._home, count, self.cpus, int(self.gpus), "PACK", self._wait).meet()

    def judges(self, specs: Specs, count: int, seconds: float, memory_mb: int) -> Iterator[Seated]:
        """As `selftrain.verification.Put`."""
        return judges.seated(self._home, specs, count, seconds, memory_mb)

    def check_shares(self, folder: Path) -> None:
        """Raises ConfigError where a node does not see what this machine writes there, or has another version."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        token = folder.absolute() / f".seen-{secrets.token_hex(8)}"
        token.write_text(text := secrets.token_hex(8))
        try:
            look = ray.remote(num_cpus=0, max_retries=0)(sees)
            at = {node: NodeAffinitySchedulingStrategy(node.id, soft=False) for node in living()}
            asked = {
                look.options(scheduling_strategy=there).remote(self._home, str(token), text, __version__, TRIES): node
                for node, there in at.items()
            }
            told, silent = ray.wait(list(asked), num_returns=len(asked), timeout=LOOK_SECONDS)
            said = {asked[one].address: _said(one) for one in told}
            said |= {asked[one].address: f"did not answer within {LOOK_SECONDS:g} s" for one in silent}
        finally:
            token.unlink()
        for address, lacks in said.items():
            if lacks:
                raise ConfigError(f"launch.place: ray: node {address} {lacks}")


def _said(reference: Any) -> str | None:
    import ray

    try:
        lacks: str | None = ray.get(reference)
    except ray.exceptions.RayError as error:
        return f"does not run this package: {reason(error)}; all nodes need the same environment under the same paths"
    return lacks


def cpus_each(launch: Launch) -> int:
    """CPUs, and threads, of each process with a model."""
    return launch.ray.cpus or int(os.environ.get("OMP_NUM_THREADS") or 1)


def cpus_of(launch: Launch) -> int:
    """That a cluster of this machine is said to have: all that may be asked for at once, as without a cluster."""
    processes = (launch.sample.replicas or 1) + launch.score_processes + launch.train.processes
    return max(len(os.sched_getaffinity(0)), cpus_each(launch) * processes)


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """Variables of this process that hold on every node."""
    return {name: value for name, value in own.items() if name not in OF_MACHINE and not name.startswith(OF_SCHEDULERS)}
