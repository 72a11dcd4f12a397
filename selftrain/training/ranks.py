"""One checkpoint in several processes that score responses together, a GPU for each where there are any.

Batches are those of a single process, dealt out to the ranks in turn, and gathered by `torch.distributed` over gloo: a
number does not depend on how many ranks there are.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed

from selftrain.training.scoring import Scorer, Scores, alone, whole
from selftrain.types import Example
from selftrain.workers import Worker

GLANCE = 0.1
"""Seconds one rank is waited for before the next is looked at: where one fails the others wait for it in vain."""
LOOPBACK = "lo"


class Asked(NamedTuple):
    """What the ranks score."""

    examples: Sequence[Example]
    temperature: float
    base: bool
    """Of an adapter, its base alone."""


class Ranks:
    """As `Scorer`, in processes of their own that end with this one.

    Args:
        count: of processes; no more than there are GPUs, where there are any.

    Raises:
        OSError, ValueError, RuntimeError: as `Scorer`, or there are more processes than GPUs.
    """

    def __init__(self, checkpoint: Path | str, count: int, *, dtype: str = "auto") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="selftrain-ranks-")
        store = f"file://{self._folder.name}/store"
        reference = "selftrain.training.ranks:serve"
        # Each has the output of this process: what a rank prints before it fails tells why.
        self._workers = [
            Worker(reference, str(checkpoint), dtype, rank, count, store, output=True) for rank in range(count)
        ]
        self._answers()

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reload(self, checkpoint: Path | str) -> bool:
        """They are started anew for other weights."""
        return False

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._folder.cleanup()

    def logprobs(self, examples: Sequence[Example], *, temperature: float = 1.0) -> list[Scores]:
        """As `Scorer.logprobs`.

        Raises:
            ValueError: a log-probability is not a number.
            RuntimeError: a process died.
        """
        return self._ask(Asked(alone(examples), temperature, base=False))

    def base_logprobs(self, examples: Sequence[Example], *, temperature: float = 1.0) -> list[Scores]:
        """As `Scorer.base_logprobs`."""
        return self._ask(Asked(alone(examples), temperature, base=True))

    def _ask(self, asked: Asked) -> list[Scores]:
        for worker in self._workers:
            worker.send(asked)
        return whole(asked.examples, self._answers()[0])

    def _answers(self) -> list[Any]:
        """One of each rank; where one fails all are ended."""
        answers: dict[int, Any] = {}
        try:
            while len(answers) < len(self._workers):
                for rank, worker in enumerate(self._workers):
                    if rank not in answers and worker.poll(GLANCE):
                        answers[rank] = worker.receive()
        except BaseException:
            self.close()
            raise
        return [answers[rank] for rank in range(len(self._workers))]


def serve(checkpoint: str, dtype: str, rank: int, count: int, store: str) -> Callable[[Asked], Iterator[Any]]:
    """Start-up of a rank; it answers what is asked by all that was found where it is the first, else by nothing."""
    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    if Path(f"/sys/class/net/{LOOPBACK}").exists():
        # The name of a machine need not lead to it, and nothing is to leave it.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
    scorer = Scorer(checkpoint, dtype=dtype, device=device_of(rank, count))
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=count)
    return partial(_answer, scorer)


def device_of(rank: int, count: int) -> str:
    """The device of a rank.

    Raises:
        ValueError: there are GPUs, but not one for each.
    """
    if not torch.cuda.is_available():
        return "cpu"
    if count > torch.cuda.device_count():
        raise ValueError(
            f"{count} processes score on {torch.cuda.device_count()} GPUs; set launch.score_processes to that"
        )
    return f"cuda:{rank}"


def _answer(scorer: Scorer, asked: Asked) -> Iterator[dict[int, Scores] | None]:
    found = share(scorer, asked)
    yield found if distributed.get_rank() == 0 else None


def share(scorer: Scorer, asked: Asked) -> dict[int, Scores]:
    """What all ranks of the process group find together, by the place of the example; each has it."""
    rank, count = distributed.get_rank(), distributed.get_world_size()
    own = scorer.shared(asked.examples, temperature=asked.temperature, base=asked.base, rank=rank, ranks=count)
    gathered: list[Any] = [None] * count
    distributed.all_gather_object(gathered, own)
    return {place: values for part in gathered for place, values in part.items()}
