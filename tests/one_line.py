"""What goes wrong is said in one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from kill_driver import Ended

from selftrain.cli import main


def check_refused(
    command: Sequence[str], told: Iterable[str], capsys: pytest.CaptureFixture[str], *, unwritten: Path
) -> None:
    """A command that ends with status 2 and one line that holds these texts, and leaves a path unwritten."""
    status = main(command)
    output = capsys.readouterr()
    assert status == 2, output
    check_line(output.err, told)
    assert output.out == ""
    assert not unwritten.exists()


def check_stopped(ended: Ended, *told: str) -> None:
    """A run that ended with status 1 and one line that holds these texts."""
    assert ended.status == 1, ended.err
    check_line(ended.err, told)


def check_line(said: str, told: Iterable[str]) -> None:
    assert said.startswith("selftrain: ") and said.count("\n") == 1, said
    for text in told:
        assert text in said, said
