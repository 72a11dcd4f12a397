"""Cutting a work list into batches, and the random streams of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from selftrain.sampling.base import Request


def batches(work: Sequence[Request], size: int) -> Iterator[list[tuple[int, int]]]:
    """Batches of rows ``(request, index)``: one kind of settings each but for how long a response may be, prompts of
    like length together.

    The cut follows from the whole list, so it is the same for a run that was interrupted.
    """
    kinds = [repr(replace(request.settings, max_tokens=1)) for request in work]
    order = sorted(range(len(work)), key=lambda r: (kinds[r], len(work[r].prompt_ids), r))
    rows: list[tuple[int, int]] = []
    for request in order:
        if rows and kinds[rows[-1][0]] != kinds[request]:
            yield rows
            rows = []
        for index in range(len(work[request].seeds)):
            rows.append((request, index))
            if len(rows) == size:
                yield rows
                rows = []
    if rows:
        yield rows


def streams(seeds: Sequence[int], length: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Uniforms in [0, 1), ``[rows, length]``: one counter-based stream (Philox) per seed."""
    return np.stack([np.random.Generator(np.random.Philox(key=seed)).random(length) for seed in seeds])
