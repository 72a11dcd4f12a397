"""What every command says of itself: examples that its own arguments understand."""

from __future__ import annotations

import re
import shlex
from importlib import import_module

import pytest

from selftrain.cli import EXAMPLES, parser
from selftrain.commands import COMMANDS


def examples(text: str, command: str) -> list[list[str]]:
    """The arguments of each example of a command; what it is for stands behind two blanks."""
    lines = [line.strip() for line in re.sub(r"\\\n *", "", text).splitlines()]
    return [shlex.split(re.split(" {2,}", line)[0])[1:] for line in lines if line.startswith(f"selftrain {command} ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_its_help_with_examples_it_understands(name: str) -> None:
    module = import_module(f"selftrain.commands.{name}")
    own = examples(module.EXAMPLES, name)
    assert own
    for words in [*own, *examples(EXAMPLES, name)]:
        options, late = parser(name, module).parse_known_args(words)
        assert options.command == name and not [word for word in late if word.startswith("-")], words


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
