"""End processes by a mark in their environment, which whatever they start inherits.

For what is left where nobody can say any more who started it: the parent of it all was killed. Linux only.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path

NAME = "SELFTRAIN_WORKER"


def new_mark() -> dict[str, str]:
    """A variable for the environment of a process, its value nobody else's."""
    return {NAME: secrets.token_hex(8)}


def end_marked(mark: dict[str, str], seconds: float) -> None:
    """Kill every process that bears the mark, until there is none, or until the time is up."""
    entry, end = f"{NAME}={mark[NAME]}".encode(), time.monotonic() + seconds
    while any([_end(place, entry) for place in Path("/proc").glob("[0-9]*")]) and time.monotonic() < end:
        time.sleep(0.01)


def _end(place: Path, entry: bytes) -> bool:
    """Whether a process was there to be killed; one that is dead has no environment any more."""
    try:
        process = os.pidfd_open(int(place.name))  # While it is read, its number might become another's.
    except OSError:
        return False
    try:
        if entry not in (place / "environ").read_bytes().split(b"\0"):
            return False
        signal.pidfd_send_signal(process, signal.SIGKILL)
        return True
    except OSError:  # It is another user's, or has just ended.
        return False
    finally:
        os.close(process)
