"""Inside the sandbox: how a program is cut off from everything else, at each level.

`separate` is done by the keeper of a program before the program's process exists, `enter` by that process before it
reads foreign code, `end` by the keeper when the process has ended, before anybody is told, and `remove` after that,
since a program may have made a folder that takes long to remove. What fails here raises, and the program never runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import resource
import signal
import site
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from selftrain.sandbox.kernel import refuse_calls
from selftrain.sandbox.syscalls import filter_of

NEW_NAMESPACES = 0x00020000 | 0x08000000 | 0x20000000
"""CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID."""
NO_SUID_NO_DEV = 2 | 4
PR_CAPBSET_DROP, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 24, 4, 36
CAPABILITIES = 64
FIRST, MOVED, LIBRARY = 3, 200, 250
"""Descriptors: a program's own begin at the first, are moved out of the way to the second; the third is the folder of
Python's library, where that can be reached by no path."""
SHARED = 12
"""Processes of a namespace that are not the program's: those that started it, twice over."""

libc = ctypes.CDLL(None, use_errno=True)


class Level(Protocol):
    def separate(self, request: Mapping[str, Any]) -> None: ...

    def enter(self, request: Mapping[str, Any]) -> None: ...

    def end(self, request: Mapping[str, Any]) -> None: ...

    def remove(self) -> None: ...


def checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


class Namespaces:
    """Inside bubblewrap, which has shown it an empty world: own processes, own mounts, own memory segments."""

    def separate(self, request: Mapping[str, Any]) -> None:
        checked(libc.unshare(NEW_NAMESPACES), "unshare")
        options = f"size={request['disk']},mode=0777".encode()
        checked(libc.mount(b"none", b"/tmp", b"tmpfs", NO_SUID_NO_DEV, options), "mount /tmp")

    def enter(self, request: Mapping[str, Any]) -> None:
        os.chdir("/tmp")
        limit(request, request["processes"] + (0 if request["uid"] else SHARED))
        become(request["uid"])
        drop_capabilities()
        refuse_calls()

    def end(self, request: Mapping[str, Any]) -> None:
        """Processes, mounts and memory ended with the namespaces."""

    def remove(self) -> None:
        """Files too."""


class Landlock:
    """Files by Landlock, everything else by seccomp: no sockets, no further processes, no signals to others."""

    def __init__(self) -> None:
        self._landlock = importlib.import_module("landlock")
        self._rights = importlib.import_module("landlock.plumbing").FSAccess
        self._seccomp = importlib.import_module("pyseccomp")
        if importlib.import_module("landlock.plumbing").landlock_abi_version() < 3:
            raise OSError("Landlock of this kernel cannot keep files from being truncated (Linux 6.2 can)")

    def separate(self, request: Mapping[str, Any]) -> None:
        self._folder = tempfile.mkdtemp(prefix="selftrain-program-")

    def enter(self, request: Mapping[str, Any]) -> None:
        os.chdir(self._folder)
        tempfile.tempdir = self._folder  # Where it remembers to have made that.
        limit(request, None)
        rules, rights = self._landlock.Ruleset(), self._rights
        folders = [path for path in request["visible"] if os.path.isdir(path)]
        rules.allow(*folders, rules=rights.EXECUTE | rights.READ_FILE | rights.READ_DIR)
        rules.allow(*request["devices"], rules=rights.READ_FILE | rights.WRITE_FILE)
        rules.allow(self._folder)
        rules.apply()
        drop_capabilities()
        filter_of(self._seccomp).load()

    def end(self, request: Mapping[str, Any]) -> None:
        """There is no further process."""

    def remove(self) -> None:
        remove(self._folder)


class OtherUser:
    """A user id nobody has, by root: it can end no process and write no file of others. It sees what all users see."""

    def separate(self, request: Mapping[str, Any]) -> None:
        checked(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "subreaper")
        if request["uid"] is None:
            raise PermissionError("only root can give a program another user id")
        self._folder, self._uid = tempfile.mkdtemp(prefix="selftrain-program-"), request["uid"]
        os.chown(self._folder, self._uid, self._uid)

    def enter(self, request: Mapping[str, Any]) -> None:
        os.chdir(self._folder)
        tempfile.tempdir = self._folder  # Where it remembers to have made that.
        library = os.path.dirname(os.__file__)
        os.dup2(os.open(library, os.O_PATH), LIBRARY)
        limit(request, request["processes"])
        become(request["uid"])
        checked(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "dumpable")  # Else its own /proc/self is closed to it.
        drop_capabilities()
        refuse_calls()
        if not os.access(os.__file__, os.R_OK):  # Somewhere above it is a folder of root's, as /root is.
            packages = [
                m.__path__ for m in list(sys.modules.values()) if isinstance(getattr(m, "__path__", None), list)
            ]
            for paths in (sys.path, *packages):
                paths[:] = [path.replace(library, f"/proc/self/fd/{LIBRARY}") for path in paths]

    def end(self, request: Mapping[str, Any]) -> None:
        """Whatever runs under the user id."""
        killer = os.fork()
        if killer == 0:
            become(request["uid"])
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            os._exit(0)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()

    def remove(self) -> None:
        remove(self._folder)
        for folder in filter(os.path.isdir, OPEN):
            with os.scandir(folder) as entries:
                left = [entry.path for entry in entries if self._owns(entry)]
            for path in left:
                subprocess.run([*REMOVE, path], check=False, stderr=subprocess.DEVNULL)

    def _owns(self, entry: os.DirEntry[str]) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return bool(entry.stat(follow_symlinks=False).st_uid == self._uid)
        return False


OPEN = ("/tmp", "/var/tmp", "/dev/shm")
"""Folders that all users may write."""
REMOVE = ("/bin/rm", "-rf", "--")


LEVELS: dict[str, type[Level]] = {"namespaces": Namespaces, "landlock": Landlock, "uid": OtherUser}


def limit(request: Mapping[str, Any], processes: int | None) -> None:
    """Bounds of one process; threads count as processes."""
    bounds = {
        resource.RLIMIT_AS: request["memory"],
        resource.RLIMIT_FSIZE: request["file"],
        resource.RLIMIT_NOFILE: request["files"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if processes is not None:
        bounds[resource.RLIMIT_NPROC] = processes
    for kind, bound in bounds.items():
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (bound, bound))


def become(uid: int | None) -> None:
    """Another user, for good; None: stay who one is."""
    if uid is not None:
        for number in range(CAPABILITIES):  # While one may; those beyond the last one are none.
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def drop_capabilities() -> None:
    """What root may do beyond a user, also root of a namespace."""
    for number in range(CAPABILITIES):
        libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # Without the right to it, or beyond the last one: as well.
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    checked(libc.capset(header, none), "capset")


def remove(folder: str) -> None:
    """By a program, since shutil.rmtree does not come to the end of folders nested a thousand deep."""
    with contextlib.suppress(OSError):
        return os.rmdir(folder)  # Most programs leave nothing.
    subprocess.run([*REMOVE, folder], check=False, stderr=subprocess.DEVNULL)


def only(fds: Sequence[int], standard: Mapping[int, int]) -> list[int]:
    """Leave no descriptors open but these, renumbered from 3 on, and the standard streams: those given, else null."""
    high = [os.dup2(fd, MOVED + place, inheritable=False) for place, fd in enumerate(fds)]
    streams = {number: os.dup(fd) for number, fd in standard.items()}
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(FIRST):
        os.dup2(streams.get(number, null), number)
    own = [os.dup2(fd, FIRST + place, inheritable=False) for place, fd in enumerate(high)]
    os.closerange(FIRST + len(own), LIBRARY)
    os.closerange(LIBRARY + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return own


def preload() -> None:
    """Import what most programs import, once for all of them."""
    for name in COMMON:
        importlib.import_module(name)
    for names in (site.setquit, site.setcopyright, site.sethelper):
        names()  # Programs end by exit(), which Python without its packages lacks.
    gc.collect()
    gc.freeze()


def visible() -> list[str]:
    """Folders a program may read: Python's and those of the system's libraries."""
    folders = ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", sys.base_prefix]
    return [path for path in dict.fromkeys(folders) if Path(path).exists()]


COMMON = (
    *("abc", "bisect", "cmath", "collections", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions"),
    *("functools", "hashlib", "heapq", "io", "itertools", "json", "math", "operator", "os", "random", "re"),
    *("statistics", "string", "sys", "textwrap", "threading", "time", "traceback", "typing"),
)
