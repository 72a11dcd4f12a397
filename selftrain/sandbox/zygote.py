"""Inside the sandbox: the process that all programs are forked from, so that none waits for Python to start.

It holds no secrets and never runs foreign code itself. Each program gets a keeper, forked first: the keeper separates
the program's world, forks the program into it, waits, and kills it when its lifeline (a socket that only the judge's
process holds the other end of) is closed. The judge learns from the keeper, not from the program, how it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from selftrain.sandbox import candidate, tester
from selftrain.sandbox.confine import LEVELS, Level, only, preload

ROLES = {"script": candidate.run_script, "module": candidate.run_module, "tests": tester.run}
REQUEST_BYTES = 1 << 16
FDS = 8


def main(channel: int, level: str, path: Sequence[str]) -> None:
    """Serve until the other end of the channel is closed; returns in the processes of programs, when they end.

    Args:
        path: where programs find modules.
    """
    connection = socket.socket(fileno=channel)
    try:
        LEVELS[level]()
        preload()
    except (ImportError, OSError) as error:
        connection.send(f"{type(error).__name__}: {error}".encode())
        return
    sys.path[:] = path
    os.environ.pop("PWD", None)  # Shells and bubblewrap set it.
    connection.send(b"ready")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, fds, _, _ = socket.recv_fds(connection, REQUEST_BYTES, FDS)
        if not message:
            return
        if os.fork() == 0:
            connection.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return keep(LEVELS[level](), json.loads(message), fds)
        for fd in fds:
            os.close(fd)


def keep(level: Level, request: Mapping[str, Any], fds: list[int]) -> None:
    """The keeper of one program, and the program itself; only the program returns."""
    lifeline, status, *rest = fds
    try:
        level.separate(request)
    except OSError as error:
        failed(status, error)
    try:
        program = os.fork()
    except OSError as error:
        level.remove()
        failed(status, error)
    if program == 0:
        return play(level, request, status, rest)
    for fd in rest:
        os.close(fd)
    ended = os.pidfd_open(program)
    with socket.socket(fileno=os.dup(lifeline)) as judge, contextlib.suppress(BrokenPipeError):
        socket.send_fds(judge, [b"program"], [ended])
    watched = select.poll()
    watched.register(ended, select.POLLIN)
    watched.register(lifeline, select.POLLIN)
    if all(fd != ended for fd, _ in watched.poll()):
        os.kill(program, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    level.end(request)
    tell(status, f"ended {code}")
    os.close(status)
    level.remove()
    os._exit(0)


def play(level: Level, request: Mapping[str, Any], status: int, fds: list[int]) -> None:
    """The program: confined first, then what its role does."""
    own: list[int] | None = None
    try:
        os.setsid()  # A signal to its group reaches nobody else.
        count = request["standard"]
        level.enter(request)
        own = only(fds[count:], dict(enumerate(fds[:count])))
    finally:
        if own is None:  # Whatever it was, it was before any foreign code, and somebody has to be told.
            failed(status, sys.exc_info()[1])
    ROLES[request["role"]](own)


def failed(status: int, error: BaseException | None) -> NoReturn:
    tell(status, f"failed {type(error).__name__}: {error}")
    os._exit(1)


def tell(status: int, text: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # The judge is gone, and with it all who would ask.
        os.write(status, text.encode())
