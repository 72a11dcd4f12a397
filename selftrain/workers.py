"""Run functions in processes that can really be killed.

A worker is two processes. The one this process starts is the *keeper*: it forks the *body*, which imports and runs
the user's function, and then only waits. When the lifeline ends (a pipe whose other end only this process holds),
because the worker is closed or because this process is gone for whatever reason, the keeper kills the body and all it
started, even where that hangs in C code. No thread or signal handler of the body takes part, and between this process
and the keeper no parent-death signal, which follows the thread that started a process rather than the process. The
keeper also reaps what it kills, so no zombies gather where nobody else would (a container without an init process).

A keeper that is killed itself, by its body too, takes the body with it (its one thread forked the body: here a
parent-death signal does); `Worker.kill` then ends what the body had started, and the channel, whoever holds it open.

``subprocess`` rather than ``multiprocessing``: any thread may start a worker, and the user's ``__main__`` is not
imported again. Workers take no notice of Ctrl-C and SIGTERM: when to stop is their parent's decision. POSIX only;
what a worker started in sessions of their own is found on Linux only.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Protocol

from selftrain.marked import end_marked, new_mark

Handler = Callable[[Any], Iterable[Any]]

_PATH = "import sys; sys.path[:] = sys.argv[3:]"
_START = "from selftrain.workers import _keep; _keep(*map(int, sys.argv[1:3]))"
_SEND_SECONDS = 60
_END_SECONDS = 30
"""A keeper that takes longer to end its worker is killed itself."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class WorkerDied(RuntimeError):
    """A worker process ended, or hung, before it answered; the message says how."""


class MachineLost(WorkerDied):
    """The machine that a worker ran on is gone, through no fault of what it was asked."""


class WorkerError(RuntimeError):
    """Stands for what a worker raised and that cannot be raised here: its type and message."""


class Channel(Protocol):
    """What is asked of a worker, wherever it runs."""

    def send(self, request: Any) -> None:
        """Hand over a request; raise WorkerDied where the process is gone or does not take it."""

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether ``receive`` would return (or raise) now, or within ``timeout`` seconds (None: wait)."""

    def receive(self) -> Any:
        """The next reply; raises what the function raised, or WorkerDied."""

    def kill(self) -> str:
        """End the process and all it started; says how it ended."""

    def close(self) -> None:
        """Kill, and free the channel."""


class Start(Protocol):
    """Starts a worker somewhere: `Worker` does so on this machine."""

    def __call__(self, reference: str, *args: Any, output: bool | IO[bytes] = False) -> Channel: ...


class Worker:
    """A process that answers requests.

    ``reference`` (``package.module:function``) is called once in the new process, with ``args``, and returns the
    handler; that is start-up. Each request is passed to the handler; every item it returns or yields is one reply.

    Args:
        output: let the process write to this one's stdout and stderr, or to a file; else what it prints is dropped.
        fds: file descriptors the process gets under the same numbers.
        python: another interpreter to run under, which finds this package, and all else, by itself.
    """

    def __init__(
        self,
        reference: str,
        *args: Any,
        output: bool | IO[bytes] = False,
        fds: Sequence[int] = (),
        python: str | None = None,
    ) -> None:
        self.reference = reference
        self._python = python
        self._lock = threading.Lock()
        self._mark = new_mark()
        ours, theirs = socket.socketpair()
        reading, self._lifeline = os.pipe()
        stream = None if output is True else output or subprocess.DEVNULL
        with theirs, os.fdopen(reading):
            self._process = self._begin(theirs.fileno(), reading, stream, fds)
        ours.setblocking(True)
        # A worker that hangs before it reads must not hang the thread that writes.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_SECONDS, 0))
        self._channel = Connection(ours.detach())
        self.send((reference, args))

    def _begin(
        self, channel: int, lifeline: int, output: int | IO[bytes] | None, fds: Sequence[int]
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*_interpreter(self._python), str(channel), str(lifeline), *([] if self._python else sys.path)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(channel, lifeline, *fds),
            env=os.environ | self._mark,
            start_new_session=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_ready(self, timeout: float | None = None) -> None:
        """Return when start-up is over; raise what it raised, or WorkerDied (also after ``timeout`` seconds)."""
        if not self.poll(timeout):
            self.kill()
            raise WorkerDied(f"{self.reference}: the worker was not ready within {timeout:g} s")
        self.receive()

    def send(self, request: Any) -> None:
        """Hand over a request; raise WorkerDied where the process is gone or does not take it."""
        self.put(pickle.dumps(request, protocol=5))

    def put(self, message: bytes) -> None:
        """As `send`, of a request that is pickled."""
        try:
            self._channel.send_bytes(message)
        except OSError as error:
            raise WorkerDied(f"{self.reference}: the worker process {self.kill()}") from error

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether ``receive`` would return (or raise) now, or within ``timeout`` seconds (None: wait)."""
        return self._channel.poll(timeout)

    def receive(self) -> Any:
        """The next reply; raises what the function raised, or WorkerDied."""
        return unpacked(self.take())

    def take(self) -> bytes:
        """The next reply as it came, for `unpacked`; raises WorkerDied."""
        try:
            return self._channel.recv_bytes()
        except (EOFError, OSError) as error:
            raise WorkerDied(f"{self.reference}: the worker process {self.kill()}") from error

    def kill(self) -> str:
        """End the process and all it started, from any thread; says how it ended: ``was killed by SIGKILL``."""
        with self._lock:
            if self._lifeline >= 0:
                os.close(self._lifeline)
                self._lifeline = -1
                self._end()
        status = self._process.wait()
        try:  # The keeper ends as the body did, a signal shown as 128 + its number, as in a shell.
            return f"was killed by {signal.Signals(-status if status < 0 else status - 128).name}"
        except ValueError:
            return f"ended with exit status {status}"

    def _end(self) -> None:
        """Wait for the keeper, and do what is left of its work where it could not."""
        self._process.send_signal(signal.SIGCONT)  # Its body may have stopped it.
        try:
            status = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        if status < 0:
            end_marked(self._mark, _END_SECONDS)
        # What was sent can still be received; then the channel ends, even if a process that got away holds it open.
        with socket.socket(fileno=os.dup(self._channel.fileno())) as ours, contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Kill, and free the channel; only the thread that receives may call this."""
        self.kill()
        self._channel.close()


def _interpreter(python: str | None) -> list[str]:
    """The beginning of a worker's command line; modules are found where this process finds them, by another
    interpreter where it finds them itself."""
    return [sys.executable, "-c", f"{_PATH}; {_START}"] if python is None else [python, "-c", f"import sys; {_START}"]


def call(reference: str, *args: Any) -> Any:
    """Run ``package.module:function`` on ``args`` in a fresh process, whose output goes through; its result.

    Raises:
        WorkerDied: the process died; the message holds its exit status or signal.
        Exception: what the function raised, with the traceback as a note.
    """
    with Worker("selftrain.workers:_once", reference, output=True) as worker:
        worker.wait_ready()
        worker.send(args)
        return worker.receive()


def _once(reference: str) -> Handler:
    function = _resolve(reference)
    return lambda args: iter([function(*args)])


def _resolve(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def _keep(channel: int, lifeline: int) -> None:
    """The keeper: fork the body before anything heavy is imported, wait for it, end as it did."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ignore)  # Not SIG_IGN, which programs started by the body would inherit.
    keeper, control = os.getpid(), _prctl()
    body = os.fork()
    if body == 0:
        control(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:  # It was killed before that held.
            os._exit(0)
        os.close(lifeline)
        os.setpgid(0, 0)
        os.set_inheritable(channel, False)
        _serve(Connection(channel))
        os._exit(0)
    os.close(channel)
    control(_PR_SET_CHILD_SUBREAPER, 1)
    threading.Thread(target=_kill_at_end, args=(lifeline, body), daemon=True).start()
    os.waitid(os.P_PID, body, os.WEXITED | os.WNOWAIT)
    _kill(os.killpg, body)  # Its group; not reaped yet, so the number still is its own.
    status = os.waitstatus_to_exitcode(os.waitpid(body, 0)[1])
    for child in _children():
        _kill(os.kill, child)
        os.waitpid(child, 0)
    os._exit(status if status >= 0 else 128 - status)


def _ignore(number: int, frame: object) -> None:
    """Take no notice of a signal."""


def _prctl() -> Callable[[int, int], object]:
    """Sets an attribute of this process; does nothing where there is no such call."""
    import ctypes

    libc = ctypes.CDLL(None)
    return lambda option, value: libc.prctl(option, value, 0, 0, 0) if hasattr(libc, "prctl") else None


def _children() -> Iterator[int]:
    """Children of this process until there are none: those of a killed one become ours in turn."""
    while True:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == os.getpid():
                yield int(stat.parent.name)


def _kill_at_end(lifeline: int, body: int) -> None:
    os.read(lifeline, 1)
    _kill(os.kill, body)


def _kill(how: Callable[[int, int], None], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        how(number, signal.SIGKILL)


def _serve(channel: Connection) -> None:
    """The body: make the handler, say ready, answer requests until the parent is gone."""
    try:
        reference, args = pickle.loads(channel.recv_bytes())
        handler = _resolve(reference)(*args)
        channel.send_bytes(success(None))
        while True:
            for reply in handler(pickle.loads(channel.recv_bytes())):
                _flush()  # The parent may kill this process as soon as it has the reply.
                channel.send_bytes(success(reply))
    except (EOFError, ConnectionError):
        return
    except BaseException as error:  # A failure is an answer too: it is raised again in the parent.
        _flush()
        channel.send_bytes(failure(error))


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def success(reply: Any) -> bytes:
    """A reply on its way between processes."""
    return pickle.dumps((reply, None), protocol=5)


def failure(error: BaseException) -> bytes:
    """What was raised in place of a reply, on its way between processes."""
    error.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
    text = f"{type(error).__name__}: {error}"
    try:
        return pickle.dumps((None, (pickle.dumps(error), text)))
    except Exception:  # Whatever pickling a foreign class raises, the text is left.
        return pickle.dumps((None, (b"", text)))


def unpacked(message: bytes) -> Any:
    """What `success` was given; raises what `failure` was given."""
    reply, failed = pickle.loads(message)
    if failed is None:
        return reply
    raise _revive(*failed)


def _revive(pickled: bytes, text: str) -> Exception:
    try:
        error = pickle.loads(pickled)
    except Exception:  # As above: a class this process has not imported, or that does not survive the trip.
        return WorkerError(text)
    return error if isinstance(error, Exception) else WorkerError(text)
