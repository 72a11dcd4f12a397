"""Which examples make a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

POOL = 64
"""Steps whose examples are sorted together by length."""


def schedule(lengths: Sequence[int], batch_size: int, steps: int, seed: int) -> Iterator[list[int]]:
    """Indices of the examples of each step; every example comes once before any comes again.

    Where there are fewer than ``batch_size`` a step is a whole epoch, in which none counts twice. Within a pool of
    steps examples are sorted by length, so that a step pads little; the steps of a pool come in random order, so that
    lengths do not drift. A pool never reaches into the next epoch; a step between two epochs holds the last of the one
    and the first of the next, some of which may be the same.
    """
    return islice(_steps(lengths, batch_size, np.random.default_rng(seed)), steps)


def _steps(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    while len(lengths) < batch_size:
        yield rng.permutation(len(lengths)).tolist()
    rest: list[int] = []
    while True:
        epoch = rng.permutation(len(lengths)).tolist()
        missing = -len(rest) % batch_size
        rest, epoch = [*rest, *epoch[:missing]], epoch[missing:]
        if len(rest) == batch_size:
            yield rest
            rest = []
        whole = len(epoch) - len(epoch) % batch_size
        for start in range(0, whole, POOL * batch_size):
            pool = sorted(epoch[start : min(whole, start + POOL * batch_size)], key=lambda i: lengths[i])
            batches = [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
            yield from (batches[place] for place in rng.permutation(len(batches)).tolist())
        rest.extend(epoch[whole:])


def epochs_to_steps(examples: int, batch_size: int, epochs: float) -> int:
    return max(1, round(examples * epochs / min(batch_size, examples)))
