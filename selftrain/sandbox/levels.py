"""Levels of isolation, and which of them this machine has: found by trying what each promises, not by looking."""

from __future__ import annotations

import atexit
import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache

from selftrain.registry import nearest
from selftrain.sandbox.box import Limits, Sandbox, SandboxError, memory_file

LEVELS = ("uid", "landlock", "namespaces")
"""From the weakest to the strongest."""
PROMISES = {
    "uid": frozenset({"write", "signal", "memory", "network"}),
    "landlock": frozenset({"write", "signal", "memory", "read", "network"}),
    "namespaces": frozenset({"write", "signal", "memory", "read", "network"}),
}
"""What a program is refused at each: to write outside its folder, to send signals to others, to take more memory than
it may, to read files that are not Python's or the system's, to reach the network."""
REMEDY = {
    "namespaces": "run `make sandbox`, or install bubblewrap",
    "landlock": "pip install 'selftrain[sandbox]'; it needs Linux 6.2 and libseccomp2",
    "uid": "it needs root",
}
PROBE_SECONDS = 20.0
PROBE = """
import json, os, socket
import wave  # A module that was not imported before: the library can be reached.
told = json.loads(input())

def refused(attempt):
    try:
        attempt()
    except (OSError, MemoryError):
        return True
    return False

open("mine", "w").close()
assert os.listdir() == ["mine"]
print(json.dumps({
    "write": refused(lambda: open(os.path.join(told["folder"], "theirs"), "w")),
    "read": refused(lambda: open(os.path.join(told["folder"], "public"))),
    "network": refused(lambda: socket.create_connection(("127.0.0.1", told["port"]), 2)),
    "signal": refused(lambda: os.kill(told["pid"], 0)),
    "memory": refused(lambda: bytearray(8 << 30)),
}))
"""


@cache
def trial(level: str) -> str | None:
    """Why this machine does not have a level; None where it has."""
    if level == "uid" and os.getuid() != 0:
        return REMEDY[level]
    try:
        with ExitStack() as stack:
            box = stack.enter_context(Sandbox(level))
            told = stack.enter_context(_bait())
            job, given = memory_file("probe", b"\0" + PROBE.encode()), memory_file("input", json.dumps(told).encode())
            output, errors = memory_file("output", b""), memory_file("errors", b"")
            for fd in (job, given, output, errors):
                stack.callback(os.close, fd)
            with box.start("script", Limits(), [job], [given, output, errors]) as program:
                status = program.wait(PROBE_SECONDS)
            if status != 0:
                words = os.pread(errors, 1 << 16, 0).decode(errors="replace").strip()
                return f"a program that tries it ended with {status}: {words.rpartition(chr(10))[2]}"
            refused = json.loads(os.pread(output, 1 << 16, 0))
    except (SandboxError, OSError) as error:
        reason = str(error).removeprefix(f"sandbox level '{level}': ")
        return f"{reason} ({REMEDY[level]})"
    allowed = sorted(what for what in PROMISES[level] if not refused[what])
    return f"a program was not refused: {', '.join(allowed)}" if allowed else None


@contextmanager
def _bait() -> Iterator[dict[str, object]]:
    """Things of this process that a program might reach."""
    with tempfile.TemporaryDirectory() as folder, closing(socket.create_server(("127.0.0.1", 0))) as server:
        os.chmod(folder, 0o755)
        with open(os.path.join(folder, "public"), "w") as file:
            file.write("for all to read")
        yield {"folder": folder, "port": server.getsockname()[1], "pid": os.getpid()}


def strongest() -> str | None:
    """The strongest level this machine has; None where it has none."""
    return next((level for level in reversed(LEVELS) if trial(level) is None), None)


def check_level(name: str) -> None:
    """Raises ValueError for what is no level."""
    if name not in LEVELS:
        raise ValueError(f"no sandbox level '{name}' ({nearest(name, LEVELS)})")


def require(demanded: str) -> str:
    """The strongest level this machine has.

    Raises:
        SandboxError: it is weaker than the demanded one; the message says why.
        ValueError: there is no such level.
    """
    check_level(demanded)
    found = strongest()
    if found is None or LEVELS.index(found) < LEVELS.index(demanded):
        reasons = "; ".join(f"{level}: {trial(level)}" for level in LEVELS if trial(level) is not None)
        best = f"no more than '{found}'" if found else "none"
        raise SandboxError(f"running programs demands sandbox level '{demanded}', this machine has {best} ({reasons})")
    return found


_running: dict[tuple[int, str], Sandbox] = {}
_starting = threading.Lock()


def shared(level: str) -> Sandbox:
    """The sandbox of this process at a level: started when first asked for, and again where it died."""
    key = (os.getpid(), level)
    with _starting:
        box = _running.get(key)
        if box is not None and not box.alive():
            _running.pop(key).__exit__()
            box = None
        if box is None:
            box = _running[key] = Sandbox(level).__enter__()
        return box


@atexit.register
def _close() -> None:
    for (pid, _), box in _running.items():
        if pid == os.getpid():
            box.__exit__()
