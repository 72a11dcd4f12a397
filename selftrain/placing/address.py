"""Where the Ray cluster of a run is, and whether anything answers there; without importing Ray."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from selftrain.config import ConfigError

VARIABLE = "RAY_ADDRESS"
KEY = "launch.ray.address"
SECONDS = 5.0
"""Longest wait for a connection."""
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""A frame of HTTP/2, which gRPC and so Ray speak, that each side begins with (RFC 9113, section 3.4)."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS
LAST = "ray/ray_current_cluster"
"""Below RAY_TMPDIR, or another folder: the address of the cluster that was last started on this machine."""
PLACES = ("/tmp",)


def resolved(named: str | None) -> str | None:
    """``host:port`` of the cluster; None: one is to be started.

    Args:
        named: what the config says.

    Raises:
        ConfigError: it cannot be the address of a cluster.
    """
    where, address = (KEY, named) if named else (VARIABLE, os.environ.get(VARIABLE))
    if address in (None, "", "local"):
        return None
    if address == "auto":
        return _last(where)
    if "://" in address:
        raise ConfigError(
            f"{where}: '{address}' is for clients of Ray outside of a cluster; start the run on a node of the cluster, "
            "with the head's address, host:port"
        )
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 1 << 16):
        raise ConfigError(f"{where}: '{address}' is no address; write host:port, as `ray start` shows it")
    return address


def check_answers(address: str) -> None:
    """Raises ConfigError where nothing listens at ``host:port``, or nothing that speaks as Ray does.

    Ray itself would try for minutes.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") in ("", "0", "false"):
                connection.sendall(PREFACE)
                if connection.recv(len(SETTINGS))[3:4] != SETTINGS[3:4]:
                    raise ConfigError(unanswered(address, "what answers there is not Ray"))
    except OSError as error:
        raise ConfigError(unanswered(address, str(error.strerror or error))) from error


def unanswered(address: str, why: str) -> str:
    return (
        f"launch.ray: no Ray cluster answers at {address} ({why}); start one (`ray start --head`), mend {KEY} or "
        f"{VARIABLE}, or unset both: one is then started on this machine"
    )


def _last(where: str) -> str:
    for folder in (os.environ.get("RAY_TMPDIR"), *PLACES):
        if folder and (found := Path(folder) / LAST).is_file():
            return found.read_text().strip()
    raise ConfigError(f"{where}: 'auto', and no Ray cluster was started on this machine; write host:port")
