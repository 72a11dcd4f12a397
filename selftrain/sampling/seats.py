"""Where the replicas of a sampler run: which GPUs or cores each has, and who starts its process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from selftrain import machine
from selftrain.workers import Start


@dataclass(frozen=True)
class Seat:
    """The place of one replica."""

    number: int = 0
    count: int = 1
    """Replicas there are."""
    gpus: tuple[str, ...] = ()
    """Those it may use, as CUDA_VISIBLE_DEVICES names them; empty: all there are, or none."""
    sleeps: bool = False
    """Whether it is to give up its GPU memory while it is not asked."""
    start: Start | None = None
    """Starts its process, on this machine or another, which then has GPUs and threads of its own; None: a worker
    here."""
    given: bool = False
    """Whether what ``start`` starts has GPUs."""

    @property
    def on_gpu(self) -> bool:
        return bool(machine.gpus()) if self.start is None else self.given

    def environment(self) -> dict[str, str]:
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}

    def cores(self, ranks: int) -> list[list[int]]:
        """The cores of each of its ranks, where there is no GPU: those this process may use, dealt out to all ranks
        of all replicas, and shared where there are fewer."""
        allowed = sorted(os.sched_getaffinity(0))
        whole = ranks * self.count
        first = self.number * ranks
        return [_share(allowed, rank, whole) for rank in range(first, first + ranks)]


def _share(cores: Sequence[int], rank: int, ranks: int) -> list[int]:
    """Neighbours, as even as may be."""
    if len(cores) < ranks:
        return [cores[rank % len(cores)]]
    return list(cores[rank * len(cores) // ranks : (rank + 1) * len(cores) // ranks])


def seated(count: int, each: int, gpus: Sequence[str], *, sleeps: bool = False) -> list[Seat]:
    """Seats of ``each`` GPUs, one after the other; one replica alone has whatever there is.

    Raises:
        ValueError: there are GPUs, but too few.
    """
    if not each or not gpus or count == 1:
        return [Seat(number, count, (), sleeps) for number in range(count)]
    if count * each > len(gpus):
        raise ValueError(f"{count} replicas of {each} GPU(s) each need {count * each}, and there are {len(gpus)}")
    return [Seat(number, count, tuple(gpus[number * each : (number + 1) * each]), sleeps) for number in range(count)]
