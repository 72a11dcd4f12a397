"""A Ray cluster of this machine alone, in a worker that ends with the run, and everything that Ray started with it."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator

STORE_BYTES = 200 << 20
"""Of the object store: messages that are too long for Ray to send them by themselves pass through it."""
LONGEST_FOLDER = 40
"""Characters of the folder of a cluster: sockets below it may have names of 107."""
AUTH = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
"""Nobody else is to start processes through the cluster, which listens on the network. One for all clusters of this
process: Ray reads it once."""
QUIET = {
    "prestart_worker_first_driver": False,
    "enable_worker_prestart": False,
    # Nobody but the run has asked for the memory.
    "memory_monitor_refresh_ms": 0,
    "metrics_report_interval_ms": 60_000,
}


def folder() -> tempfile.TemporaryDirectory[str]:
    """Where a cluster keeps its sockets and logs."""
    made = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(
        prefix="selftrain-ray-", dir=made if len(made) < LONGEST_FOLDER else "/tmp", ignore_cleanup_errors=True
    )


def serve(cpus: int, gpus: int, place: str) -> Callable[[None], Iterator[str]]:
    """Start-up: begin a cluster of one node; it answers by its address.

    Args:
        place: folder for its sockets and logs.
    """
    os.chdir(place)
    os.environ["RAY_TMPDIR"] = place
    from ray.cluster_utils import Cluster

    head = {
        "num_cpus": cpus,
        "num_gpus": gpus,
        "object_store_memory": STORE_BYTES,
        "include_dashboard": False,
        "include_log_monitor": False,
        "no_monitor": True,
        "_system_config": QUIET,
    }
    address = str(Cluster(initialize_head=True, head_node_args=head).address)
    return lambda _: iter([address])
