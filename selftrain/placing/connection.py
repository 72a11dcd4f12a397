"""This process as a driver of a Ray cluster, and as it was before."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from selftrain.config import ConfigError
from selftrain.errors import RunError
from selftrain.placing.address import check_answers, unanswered

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A cluster that listens and does not answer is told within seconds; by default Ray tries for minutes.
    "RAY_NUM_REDIS_GET_RETRIES": "1",
    "RAY_GCS_SERVER_REQUEST_TIMEOUT_SECONDS": "10",
    # Else a warning of what a later version will do, with every actor that has no GPU.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Variables that Ray reads as it is imported."""
HERE = "raylet"
"""Name of the process that a node of a cluster is."""


def settle(more: Mapping[str, str] | None = None) -> None:
    """What Ray is to find before it is imported; what the user has set wins."""
    for name, value in {**SETTINGS, **(more or {})}.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.CRITICAL)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Inside, Ray's functions ask the cluster.

    Raises:
        ConfigError: it does not answer, or cannot be joined from here.
    """
    check_answers(address)
    settle()
    if not on_node():
        raise ConfigError(
            f"launch.ray: this machine is no node of the Ray cluster at {address}; join it (`ray start "
            f"--address={address}`), or start the run on one of its nodes"
        )
    import ray

    if ray.is_initialized():
        raise RunError("this process uses a Ray cluster already; start the run in one of its own")
    with _as_before():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, configure_logging=False)
        except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
            ray.shutdown()
            raise ConfigError(unanswered(address, " ".join(str(error).split())[:200])) from error
    try:
        yield
    finally:
        with _as_before():
            ray.shutdown()


@contextmanager
def _as_before() -> Iterator[None]:
    """Ray puts a handler of its own behind SIGTERM, and a debugger behind ``breakpoint()``."""
    main = threading.current_thread() is threading.main_thread()
    before, debugger = signal.getsignal(signal.SIGTERM), os.environ.get("PYTHONBREAKPOINT")
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
        if debugger is None:
            os.environ.pop("PYTHONBREAKPOINT", None)
        else:
            os.environ["PYTHONBREAKPOINT"] = debugger


def on_node() -> bool:
    """Whether a node of any cluster lives on this machine."""
    for name in Path("/proc").glob("[0-9]*/comm"):
        try:
            if name.read_text().strip() == HERE:
                return True
        except OSError:  # It has ended meanwhile.
            continue
    return False
