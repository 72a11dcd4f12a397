"""Ranks of the trainer whose disk is full when they write a checkpoint: no file becomes larger than a few kilobytes."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from typing import Any

from selftrain.training.zero import rank

FILE_BYTES = 30_000


def serve(place: int, count: int, store: str) -> Callable[[tuple[str, Any]], Iterator[Any]]:
    answer = rank.serve(place, count, store)

    def limited(request: tuple[str, Any]) -> Iterator[Any]:
        if request[0] == "save":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
        return answer(request)

    return limited
