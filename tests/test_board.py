"""The board on which a worker shows what it is at: whole at every moment, for any position and time."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from selftrain.board import BYTES, GROUP, READING, Board

WRITER = """
import sys
from selftrain.board import Board
board = Board(int(sys.argv[1]))
print(flush=True)
while True:
    for position in range(64):
        board.write(position, 1e6 + position)
"""


@pytest.fixture
def fd() -> int:
    number = os.memfd_create("board")
    os.ftruncate(number, BYTES)
    return number


@pytest.mark.parametrize("position", [READING, GROUP, 0, 1, 63, 60_000])
@pytest.mark.parametrize("since", [0.0, 0.25, 52_000.123456, 1e8])
def test_what_is_written_is_read(fd: int, position: int, since: float) -> None:
    board = Board(fd)
    os.close(fd)
    board.write(position, since)
    assert board.read()[0] == position and board.read()[1] == pytest.approx(since, abs=2e-6)
    board.close()


def test_a_reader_never_sees_half_of_a_line(fd: int) -> None:
    board, seen = Board(fd), set[tuple[int, float]]()
    board.write(0, 1e6)
    command = [sys.executable, "-c", WRITER, str(fd)]
    with subprocess.Popen(command, pass_fds=[fd], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        ends = time.monotonic() + 1
        while time.monotonic() < ends:
            seen.update(board.read() for _ in range(1000))
        writer.kill()
    os.close(fd)
    board.close()
    assert len(seen) > 10 and all(since == 1e6 + position for position, since in seen)
