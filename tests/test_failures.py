"""What a command leaves behind when something goes wrong around it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from selftrain.commands.failures import guarded

CONFIG = Path(__file__).with_name("tiny.yaml")
OPTIONS = argparse.Namespace(debug=False)


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_goes_away_is_no_failure_to_tell_of(lines: int) -> None:
    """As ``| head`` does: before the first line or in the midst of many, whether Python still holds them or not."""
    code = (
        "import sys; from argparse import Namespace; from selftrain.commands.failures import guarded\n"
        f"def command(options):\n    for n in range({lines}): print('a line to read', n)\n    return 0\n"
        "sys.exit(guarded(command, Namespace(debug=False)))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 128 + 13
    process.stderr.close()


def test_a_command_of_ours_ends_so_too() -> None:
    words = [sys.executable, "-m", "selftrain.cli", "config", str(CONFIG)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 141)
    process.stderr.close()


def test_a_pipe_that_breaks_elsewhere_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def command(options: argparse.Namespace) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    assert guarded(command, OPTIONS) == 1
    assert "Broken pipe" in capsys.readouterr().err
