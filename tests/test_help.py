"""What every command says of itself: examples that its own arguments understand."""

from __future__ import annotations

import re
import shlex
from importlib import import_module

import pytest

from selftrain.cli import EXAMPLES, parser
from selftrain.commands import COMMANDS


def words(line: str) -> list[str]:
    """The arguments of an example; what it is for stands behind two blanks."""
    return shlex.split(re.split(r" {2,}", line.strip())[0])[1:]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_its_help_with_examples_it_understands(name: str) -> None:
    module = import_module(f"selftrain.commands.{name}")
    reader = parser(name, module)
    every = re.sub(r"\\\n *", "", f"{module.EXAMPLES}\n{EXAMPLES}").splitlines()
    shown = [line for line in every if line.lstrip().startswith(f"selftrain {name} ") or line.strip() == name]
    assert len(shown) > (name in EXAMPLES)
    for line in shown:
        options, late = reader.parse_known_args(words(line))
        assert options.command == name and not [word for word in late if word.startswith("-")], line


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_them(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser(name, import_module(f"selftrain.commands.{name}")).parse_args([name, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and "examples:\n" in shown and f"  selftrain {name} " in shown + " "


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser("run", import_module("selftrain.commands.run")).parse_args(["run"])
    assert "required: config\n" in capsys.readouterr().err
