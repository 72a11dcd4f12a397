"""Processes that have vLLM and DeepSpeed imported from their first moment: importing them takes longer than most of
what they do here.

``python tests/warm.py`` imports it once, starts no thread, and forks a process for every request on its socket. All
test processes of a run share one, which begins with the first request and ends with the run.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from selftrain.workers import Worker

FOLDER = "SELFTRAIN_WARM"
"""Names the folder that the processes of one test run meet in."""
ENGINES = (
    "selftrain.sampling.vllm_engine:serve",
    "selftrain.sampling.apart:serve",
    "counted:serve",
    "limited:serve",
    "seen:serve",
    "selftrain.training.ranks:serve",
    "selftrain.training.zero.rank:serve",
)
MESSAGE = 1 << 17


class Warm:
    """A process that calls ``module:function`` with ``arguments`` and the numbers of its ``fds``; as much of
    `subprocess.Popen` as is asked of it.

    Args:
        environment: of the process, beyond this one's.
    """

    def __init__(
        self,
        function: str,
        arguments: Sequence[str] = (),
        output: int | None = None,
        fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._socket = _connect()
        told = {"function": function, "arguments": list(arguments), "path": sys.path, "folder": os.getcwd()}
        message = json.dumps({**told, "environment": {**os.environ, **(environment or {})}}).encode()
        with open(os.devnull, "w") as nowhere:
            socket.send_fds(self._socket, [message], [nowhere.fileno() if output is None else output, *fds])
        self.pid = int(self._socket.recv(MESSAGE))
        self._status: int | None = None

    def poll(self) -> int | None:
        try:
            return self.wait(0.001)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self._status is None:
            self._socket.settimeout(timeout)
            try:
                self._status = int(self._socket.recv(MESSAGE))
            except TimeoutError as error:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from error
            self._socket.close()
        return self._status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmWorker(Worker):
    """A worker that is warm where it is to hold an engine."""

    def _begin(self, channel: int, lifeline: int, output: int | IO[bytes] | None, fds: Sequence[int]) -> Any:
        if self.reference not in ENGINES:
            return super()._begin(channel, lifeline, output, fds)
        assert not isinstance(output, int), "what is dropped has nowhere to go here"
        stream = 1 if output is None else output.fileno()  # Ranks print where this process does.
        return Warm("selftrain.workers:_keep", output=stream, fds=[channel, lifeline])


def children(pid: int) -> list[int]:
    """Processes that were asked for by one, and live."""
    with _connect() as asking:
        asking.send(json.dumps({"of": pid}).encode())
        return [int(found) for found in json.loads(asking.recv(MESSAGE))]


def _connect() -> socket.socket:
    folder = Path(os.environ[FOLDER])
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "socket").exists():
            _start(folder)
    asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asking.connect(str(folder / "socket"))
    return asking


def _start(folder: Path) -> None:
    told = {"OMP_NUM_THREADS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "DS_ACCELERATOR": "cpu"}
    environment = {**os.environ, **told}
    log = folder / "log"
    appended = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    streams = [(0, os.devnull, os.O_RDONLY), (1, str(log), appended), (2, str(log), appended)]
    actions = [(os.POSIX_SPAWN_OPEN, number, path, flags, 0o600) for number, path, flags in streams]
    # It outlives who starts it, and nobody waits for it.
    pid = os.posix_spawn(sys.executable, [sys.executable, __file__], environment, file_actions=actions)
    while not (folder / "socket").exists():
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), log.read_text()
        time.sleep(0.1)


def serve(folder: Path) -> None:
    """Import, then fork until the run of tests is over: nobody holds the other end of the pipe any more."""
    pipe = os.open(folder / "pipe", os.O_RDONLY)
    _preload()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(folder / "aside"))
    listener.listen(32)
    (folder / "aside").rename(folder / "socket")
    woken, waking = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(waking)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    living: dict[int, tuple[socket.socket, int]] = {}
    with selectors.DefaultSelector() as selector:
        for watched in (pipe, woken, listener):
            selector.register(watched, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if pipe in ready:
                return
            if woken in ready:
                os.read(woken, 4096)
                _tell_ended(living)
            if listener in ready:
                _answer(listener.accept()[0], living)


def _tell_ended(living: dict[int, tuple[socket.socket, int]]) -> None:
    while living:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        asking, _ = living.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # Who asked for it may be gone.
            asking.send(str(os.waitstatus_to_exitcode(status)).encode())
        asking.close()


def _answer(asking: socket.socket, living: dict[int, tuple[socket.socket, int]]) -> None:
    message, fds, _, _ = socket.recv_fds(asking, MESSAGE, 8)
    request = json.loads(message)
    if "of" in request:
        asking.send(json.dumps([pid for pid, (_, asker) in living.items() if asker == request["of"]]).encode())
        asking.close()
        return
    asker = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    pid = os.fork()
    if pid == 0:
        _become(request, fds)
    for descriptor in fds:
        os.close(descriptor)
    living[pid] = (asking, asker)
    asking.send(str(pid).encode())


def _become(request: dict[str, Any], fds: Sequence[int]) -> None:
    """Of all that is open only the descriptors handed over stay."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    output, *kept = fds
    for number in (1, 2):
        os.dup2(output, number)
    for entry in os.listdir("/proc/self/fd"):
        if int(entry) > 2 and int(entry) not in kept:
            with contextlib.suppress(OSError):  # The listing's own is gone.
                os.close(int(entry))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[:] = request["path"]
    module, _, name = request["function"].partition(":")
    status = 70
    try:
        status = getattr(importlib.import_module(module), name)(*request["arguments"], *kept) or 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _preload() -> None:
    for name in (
        "vllm",
        "vllm.v1.engine.llm_engine",
        "vllm.v1.worker.cpu_worker",
        "vllm.lora.request",
        "vllm.entrypoints.openai.api_server",
        "transformers.models.qwen3.modeling_qwen3",
        "transformers.models.qwen3_moe.modeling_qwen3_moe",
        "peft",
        "deepspeed",
        "deepspeed.runtime.zero.stage3",
        "deepspeed.runtime.zero.muon.muon_optimizer",
        "selftrain.training.zero.engine",
    ):
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads must not be forked"


def api_server(*arguments: str) -> None:
    """vLLM's OpenAI-compatible server."""
    import runpy

    sys.argv = ["api_server", *arguments]
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(Path(os.environ[FOLDER]))
