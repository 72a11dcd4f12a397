"""The nodes of a Ray cluster: what each offers, and whether one is lost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

LOST_SECONDS = 3.0
"""Time for Ray to notice that a node is gone, after what ran there is."""


class Node(NamedTuple):
    """A machine that lives."""

    id: str
    address: str
    cpus: float
    gpus: float

    def room(self, cpus: float, gpus: float) -> int:
        """Processes of so much that it can hold, were nobody else there."""
        bounds = [int(there // each) for there, each in ((self.cpus, cpus), (self.gpus, gpus)) if each]
        return min(bounds)


def living() -> list[Node]:
    """The nodes of the cluster that this process is connected to."""
    import ray

    return [
        Node(
            one["NodeID"],
            one["NodeManagerAddress"],
            one["Resources"].get("CPU", 0.0),
            one["Resources"].get("GPU", 0.0),
        )
        for one in ray.nodes()
        if one["Alive"]
    ]


def in_words(nodes: Sequence[Node]) -> str:
    """``2 nodes: 8 GPUs, 64 CPUs``."""
    gpus, cpus = sum(node.gpus for node in nodes), sum(node.cpus for node in nodes)
    offered = [f"{gpus:g} GPUs"] * (gpus > 0) + [f"{cpus:g} CPUs"]
    return f"{len(nodes)} node{'s' * (len(nodes) != 1)}: {', '.join(offered)}"


def is_lost(node: str, error: BaseException) -> bool:
    """Whether a failure of an actor is that of its node.

    Args:
        node: its id; empty where it was not placed yet.
    """
    if "node has died" in str(error):
        return True
    until = time.monotonic() + LOST_SECONDS
    while node and time.monotonic() < until:
        if node not in {one.id for one in living()}:
            return True
        time.sleep(0.2)
    return False


def reason(error: BaseException) -> str:
    """What Ray says of a failure, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "because" in line or "Error" in line]
    return (telling or lines or [type(error).__name__])[-1][:300]


def shares(count: int, nodes: Sequence[Node]) -> list[int]:
    """So many processes dealt out to nodes by their CPUs: by largest remainder."""
    whole = sum(node.cpus for node in nodes)
    exact = [count * node.cpus / whole if whole else count / len(nodes) for node in nodes]
    found = [int(share) for share in exact]
    rest = sorted(range(len(nodes)), key=lambda place: found[place] - exact[place])
    for place in rest[: count - sum(found)]:
        found[place] += 1
    return found
