"""The journal of a long Grow stays as small as what is still open, on disk and in memory, and a kill costs nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from selftrain.drawing.journal import Journal
from selftrain.sampling.base import Begun, Completion

LENGTH = 50


def response(request: int, index: int) -> Completion:
    return Completion(request, index, tuple(range(1000, 1000 + LENGTH)), f"{request}/{index}", "eos", segments=(7,))


def written(path: Path, **options: Any) -> Journal:
    """A journal of three requests with two finished responses each, which grew before, and one begun."""
    journal = Journal(path, **options)
    for request in range(3):
        for index in range(3):
            journal.grown((request, index), list(range(LENGTH // 2)), None)
        journal.finish([response(request, 0), response(request, 1)])
    journal.flush()
    return journal


def holds(path: Path) -> tuple[list[Completion], dict[tuple[int, int], Begun]]:
    journal = Journal(path)
    journal.close()
    return journal.finished, journal.begun


OPEN = ([response(2, 0), response(2, 1)], {(2, 2): Begun(tuple(range(LENGTH // 2)))})


def test_what_lies_in_parts_is_not_read_again(tmp_path: Path) -> None:
    written(tmp_path / "j").close()
    journal = Journal(tmp_path / "j", closed={0, 1})
    assert (journal.finished, journal.begun) == OPEN
    journal.close()


def test_the_file_is_rewritten_without_what_lies_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = written(path, slack=0)
    whole = path.stat().st_size
    journal.forget([0])
    assert path.stat().st_size == whole  # Most of it is needed still.
    journal.forget([1])
    assert path.stat().st_size < 0.4 * whole
    assert not list(tmp_path.glob(".*"))
    journal.grown((2, 2), [9], None)  # The same process goes on in the new file.
    journal.finish([response(3, 0)])
    journal.close()
    finished, begun = holds(path)
    assert finished == [*OPEN[0], response(3, 0)]
    assert begun == {(2, 2): Begun((*range(LENGTH // 2), 9))}


def test_the_file_is_rewritten_when_it_is_opened_too(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path).close()
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b'{"at":[0,0],"ids":[9')
    Journal(path, closed={0, 1}).close()
    assert path.stat().st_size > whole  # It may hold this much.
    Journal(path, closed={0, 1}, slack=0).close()
    assert path.stat().st_size < 0.4 * whole
    assert holds(path) == OPEN


def test_where_a_response_was_taken_up_again_outlives_the_rewriting(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path).close()
    again = Journal(path, slack=0)
    again.grown((2, 2), [9], None)
    again.forget([0, 1])
    again.close()
    assert holds(path)[1] == {(2, 2): Begun((*range(LENGTH // 2), 9), None, (LENGTH // 2,))}


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_kill_while_it_is_rewritten_loses_nothing(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "j"
    before = written(tmp_path / "j", slack=0)
    if (pid := os.fork()) == 0:
        setattr(os, moment, lambda *_: os._exit(9))
        before.forget([0, 1])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert list(tmp_path.glob(".j.*.tmp"))
    before.close()
    finished, begun = holds(path)
    assert [done for done in finished if done.request == 2] == OPEN[0] and begun[2, 2] == OPEN[1][2, 2]


def test_a_long_grow_keeps_a_small_journal(tmp_path: Path) -> None:
    path, slack = tmp_path / "j", 20_000
    journal = Journal(path, slack=slack)
    largest = total = 0
    for request in range(400):
        before = path.stat().st_size
        journal.finish([response(request, index) for index in range(4)])
        journal.flush()
        total += max(0, path.stat().st_size - before)
        largest = max(largest, path.stat().st_size)
        if request >= 2:
            journal.forget([request - 2])
    journal.close()
    assert total > 10 * slack and largest < 2 * slack
    assert [done.request for done in holds(path)[0]][-8:] == [398] * 4 + [399] * 4
