"""A sandbox as this process sees it: programs are started in it, watched, and killed as a tree."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from selftrain.errors import RunError
from selftrain.sandbox.confine import visible
from selftrain.sandbox.launch import DEVICES, ENVIRONMENT, command

Role = Literal["script", "module", "tests"]
START_SECONDS = 30.0
GRACE_SECONDS = 5.0
"""Longest time between the kill of a program and the news of it."""
MEBIBYTE = 1 << 20


class SandboxError(RunError):
    """A sandbox that cannot be had, or that failed; no program's fault."""


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    memory_mb: int = 1024
    """Address space of one process, in MiB."""
    processes: int = 16
    """Processes and threads at a time; none but itself, and threads, at the level ``landlock``."""
    file_mb: int = 16
    """Largest file, in MiB."""
    disk_mb: int = 64
    """All files together, in MiB, where the level can bound them (``namespaces``)."""
    files: int = 256
    """Open files."""


class Sandbox:
    """A place where programs run at one level of isolation, each cut off from the others; a context manager.

    Raises:
        SandboxError: on entering, where this machine does not have the level.
    """

    def __init__(self, level: str) -> None:
        self.level = level

    def __enter__(self) -> Sandbox:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command(self.level, theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=ENVIRONMENT,
                    cwd="/",
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        self._channel = ours
        ours.settimeout(START_SECONDS)
        try:
            answer = ours.recv(1 << 16).decode()
        except TimeoutError:
            answer = f"it did not start within {START_SECONDS:g} s"
        except ConnectionResetError:
            answer = ""
        if answer != "ready":
            self.__exit__()
            answer = answer or f"it ended with status {self._process.returncode}"
            raise SandboxError(f"sandbox level '{self.level}': {answer}")
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._process.kill()
        self._process.communicate()

    def alive(self) -> bool:
        return self._process.poll() is None

    @contextlib.contextmanager
    def start(self, role: Role, limits: Limits, fds: Sequence[int], standard: Sequence[int] = ()) -> Iterator[Program]:
        """A program; leaving it kills what is left of it.

        Args:
            fds: descriptors it gets, as its role expects them.
            standard: its standard input, output and error, as far as it has them.
        """
        place = _places.get()
        request = {
            "role": role,
            "standard": len(standard),
            "uid": foreign_uids()[place] if os.getuid() == 0 else None,
            "memory": limits.memory_mb * MEBIBYTE,
            "processes": limits.processes,
            "file": limits.file_mb * MEBIBYTE,
            "disk": limits.disk_mb * MEBIBYTE,
            "files": limits.files,
            "visible": visible(),
            "devices": [device for device in DEVICES if os.path.exists(device)],
        }
        lifeline, ours = (end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        status, theirs = os.pipe()
        try:
            socket.send_fds(self._channel, [json.dumps(request).encode()], [lifeline, theirs, *standard, *fds])
        except OSError as error:
            os.close(ours)
            os.close(status)
            _places.put(place)
            raise SandboxError(f"sandbox level '{self.level}': it is gone ({error})") from error
        finally:
            os.close(lifeline)
            os.close(theirs)
        program = Program(ours, status)
        try:
            yield program
        finally:
            if program.close():
                _places.put(place)


class Program:
    """A program that was started."""

    def __init__(self, lifeline: int, status: int) -> None:
        self._lifeline, self.status = lifeline, status
        """``status`` can be read, and polled, as soon as the program has ended."""
        self._process: int | None = None
        self._alone, self._ready, self._waited = True, 0.0, 0.0

    def waited(self) -> float:
        """Seconds it has been ready to run while others had the processors; 0 where the kernel does not say.

        Nothing is added of the time from one look to the next where it has threads or children at either: it may be
        those that it waits for.
        """
        with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
            if self._process is None:
                self._process = self._received()
            told = dict(
                line.split(":\t") for line in Path(f"/proc/self/fdinfo/{self._process}").read_text().splitlines()
            )
            threads = Path(f"/proc/{int(told['Pid'])}/task")
            alone = os.listdir(threads) == [told["Pid"]] and not (threads / told["Pid"] / "children").read_text()
            ready = int((threads.parent / "schedstat").read_text().split()[1]) / 1e9
            if alone and self._alone:
                self._waited += ready - self._ready
            self._alone, self._ready = alone, ready
        return self._waited

    def _received(self) -> int:
        """The descriptor of its process, which its keeper has sent."""
        with socket.socket(fileno=os.dup(self._lifeline)) as keeper:
            keeper.setblocking(False)
            return socket.recv_fds(keeper, 16, 1, socket.MSG_CMSG_CLOEXEC)[1][0]

    def wait(self, seconds: float) -> int | None:
        """Its exit status, negative the number of a signal; None where it still runs.

        Raises:
            SandboxError: it could not be started, or the sandbox is gone.
        """
        if not readable([self.status], seconds):
            return None
        kind, _, text = os.read(self.status, 1 << 16).decode().partition(" ")
        if kind != "ended":
            raise SandboxError(f"the sandbox could not run a program: {text or 'it is gone'}")
        return int(text)

    def kill(self) -> None:
        """End the program and all it started."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def close(self) -> bool:
        """Kill; whether nothing of the program is left."""
        self.kill()
        if self._process is not None:
            os.close(self._process)
            self._process = None
        ended = bool(readable([self.status], GRACE_SECONDS))
        os.close(self.status)
        return ended


AT_ONCE = 64
"""Programs of one process that run at a time."""
_places: queue.SimpleQueue[int] = queue.SimpleQueue()
"""Those that are free. As root each program has a user id of its own, by which all it started is ended; so a place
whose program may still run is not given to another."""
for _place in range(AT_ONCE):
    _places.put(_place)


def readable(fds: Sequence[int], seconds: float) -> list[int]:
    """Those of some descriptors that can be read, or are at their end, within a time."""
    watched = select.poll()
    for fd in fds:
        watched.register(fd, select.POLLIN)
    return [fd for fd, _ in watched.poll(max(0.0, seconds) * 1000)]


def foreign_uids() -> range:
    """User ids that nobody has but the programs of this process, as far as the machine has so many."""
    ids = int(Path("/proc/self/uid_map").read_text().split()[2])
    number = AT_ONCE * os.getpid()
    first = 0x70000000 + number if ids >= 0x7FFFFFFF else ids // 2 + number % (ids // 3)
    return range(first, first + AT_ONCE)


def memory_file(name: str, data: bytes) -> int:
    """A descriptor of a file in memory, at its beginning."""
    fd = os.memfd_create(name)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
