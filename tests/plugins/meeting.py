"""Processes that meet and add up their ranks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator


def serve(rank: int, count: int, store: str) -> Callable[[int], Iterator[tuple[int, int, int]]]:
    """Each answers a number by the sum of its products with all ranks, the threads it was given, and its number."""
    import torch

    from selftrain.training.group import join

    join(rank, count, store)

    def answer(number: int) -> Iterator[tuple[int, int, int]]:
        total = torch.tensor(float(number * (rank + 1)))
        torch.distributed.all_reduce(total)
        yield int(total), int(os.environ["OMP_NUM_THREADS"]), os.getpid()

    return answer
