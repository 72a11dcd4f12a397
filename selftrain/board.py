"""What a worker process is at and since when, shown to its parent in memory that both map.

It is one aligned word, written by one store: a reader that comes at any moment sees what was there before or after,
never half of each. Two numbers, or a `struct.pack_into`, which clears its place first, would now and then show a start
long ago, and cost a judgement that was on time.
"""

from __future__ import annotations

import mmap

BYTES = 8
POSITION_BITS = 16
READING, GROUP = -1, -2
"""In place of a position: it reads what it is to do; it is at several positions together."""


class Board:
    """A view of the shared memory behind a file descriptor, which may be closed afterwards."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, BYTES)
        self._word = memoryview(self._memory).cast("Q")

    def write(self, position: int, since: float) -> None:
        """``since`` in seconds of time.monotonic, kept to the microsecond."""
        self._word[0] = int(since * 1e6) << POSITION_BITS | position - GROUP

    def read(self) -> tuple[int, float]:
        """Position and since when."""
        word = self._word[0]
        return (word & (1 << POSITION_BITS) - 1) + GROUP, (word >> POSITION_BITS) / 1e6

    def close(self) -> None:
        self._word.release()
        self._memory.close()
