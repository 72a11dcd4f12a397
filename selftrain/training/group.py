"""Processes that compute together, a GPU for each where there are any: started, asked and ended as one."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selftrain.places import Places
from selftrain.workers import Channel, Start, Worker

GLANCE = 0.1
"""Seconds one rank is waited for before the next is looked at: where one fails the others wait for it in vain."""
SOON = 2.0
"""Seconds in which a rank is heard of whose end another has seen."""
LOOPBACK = "lo"
SIOCGIFADDR = 0x8915
FILE = "file://"
"""How the place begins where ranks meet on one machine, each with a share of its cores and the GPU of its number;
elsewhere each sees its own."""


class Group:
    """They end with this process.

    Args:
        reference: ``package.module:function``, their start-up, called with ``args``, the rank, how many there are and
            where they meet (see `join`); it returns what answers a request.
        places: where they run; None: on this machine.

    Raises:
        Exception: whatever a rank fails with as it starts; all are ended then.
    """

    def __init__(self, reference: str, count: int, *args: Any, places: Places | None = None) -> None:
        self._open = ExitStack()
        self._workers: list[Channel] = []
        with self._ended_by_failure():
            starts, store = self._here(count) if places is None else places.meet(count)
            # Each has the output of this process: what a rank prints before it fails tells why.
            for rank, start in enumerate(starts):
                worker = start(reference, *args, rank, count, store, output=True)
                self._open.callback(worker.close)
                self._workers.append(worker)
            self._answers()

    def _here(self, count: int) -> tuple[list[Start], str]:
        folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="selftrain-ranks-"))
        return [Worker] * count, f"{FILE}{folder}/store"

    def __len__(self) -> int:
        """How many there are; none once it is closed."""
        return len(self._workers)

    def ask(self, request: Any) -> list[Any]:
        """The answer of each rank to the same request, in order.

        Raises:
            Exception: what a rank failed with, or WorkerDied; all are ended then.
        """
        return self.ask_each([request] * len(self))

    def ask_each(self, requests: Sequence[Any]) -> list[Any]:
        """As `ask`, with a request of its own for each rank."""
        with self._ended_by_failure():
            for worker, request in zip(self._workers, requests, strict=True):
                worker.send(request)
            return self._answers()

    def close(self) -> None:
        self._workers = []
        self._open.close()

    @contextmanager
    def _ended_by_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _answers(self) -> list[Any]:
        answers: dict[int, Any] = {}
        while len(answers) < len(self._workers):
            for rank, worker in enumerate(self._workers):
                if rank not in answers and worker.poll(GLANCE):
                    try:
                        answers[rank] = worker.receive()
                    except RuntimeError as error:
                        raise self._cause(error, {rank, *answers}) from None
        return [answers[rank] for rank in range(len(self._workers))]

    def _cause(self, first: Exception, heard: Collection[int]) -> Exception:
        """What a rank failed with; not that it waited for another which had failed, where that is heard of soon."""
        failures = [first]
        until = time.monotonic() + (SOON if _left_alone(first) else 0.0)
        for rank, worker in enumerate(self._workers):
            if rank not in heard and worker.poll(max(0.0, until - time.monotonic())):
                try:
                    worker.receive()
                except Exception as error:  # Whatever it failed with.
                    failures.append(error)
        return min(failures, key=_left_alone)


def _left_alone(error: Exception) -> bool:
    """Whether it only says that another process is gone."""
    return isinstance(error, RuntimeError) and re.search("gloo|nccl|ProcessGroup", str(error), re.I) is not None


def join(rank: int, count: int, store: str) -> None:
    """Become one of several processes of `torch.distributed`: over gloo, and over NCCL what lies on GPUs."""
    import torch

    if store.startswith(FILE):
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
        # The name of a machine need not lead to it, and nothing is to leave it.
        if Path(f"/sys/class/net/{LOOPBACK}").exists():
            os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
    elif interface := interface_to(store):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, init_method=store, rank=rank, world_size=count)


def interface_to(store: str) -> str | None:
    """The network interface of this machine through which ``tcp://host:port`` is reached; None: it cannot be told."""
    url = urlsplit(store)
    family, kind, protocol, _, address = socket.getaddrinfo(url.hostname, url.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)  # Sends nothing; it only chooses a way.
        own = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            if family == socket.AF_INET and _address_of(probe, name) == own:
                return name
    return None


def _address_of(probe: socket.socket, interface: str) -> str | None:
    """The IPv4 address of an interface; None where it has none."""
    try:
        found = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
    except OSError:
        return None
    return socket.inet_ntoa(found[20:24])


def device_of(rank: int, count: int, key: str, store: str = FILE) -> str:
    """The device of a rank.

    Args:
        key: of the config, that says how many ranks there are.
        store: where they meet.

    Raises:
        ValueError: there are GPUs, but not one for each.
    """
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    if not store.startswith(FILE):
        return "cuda:0"
    if count > torch.cuda.device_count():
        raise ValueError(f"{count} processes for {torch.cuda.device_count()} GPUs, one each; set {key} to that")
    return f"cuda:{rank}"
