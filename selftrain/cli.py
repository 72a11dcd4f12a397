"""The command line: parse, check the config, then import only what the command needs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from selftrain import __version__
from selftrain.commands import COMMANDS

EXAMPLES = """examples:
  selftrain run configs/quickstart.yaml                   a model improves itself on this machine, in minutes
  selftrain run configs/quickstart.yaml run.seed=1 run.name=second
  selftrain run my.yaml --dry-run                         what it would do, without doing it
  selftrain estimate my.yaml --hardware H100              tokens, memory, disk, time and cost, before anything runs
  selftrain run my.yaml --redo 2/grow                     sample iteration 2 again, and do what depends on it
  selftrain launch --slurm my.yaml --time 12:00:00        a job file to read and submit
  selftrain adopt my.yaml completions/*.parquet           train on what another tool sampled, judged anew
  selftrain train configs/train_dpo.yaml data.path=pairs.jsonl   one fit to rows of your own, without a loop
  selftrain evaluate runs/quickstart/iteration_0004/policy/checkpoint --task arithmetic
  selftrain verify --verifier numeric_answer answers.jsonl verdicts.jsonl
  selftrain prm runs/first/iteration_0001/value/checkpoint --data math.jsonl   does it find wrong steps?
  selftrain new verifier even_number                      a verifier of your own to begin with, and its test
  selftrain report runs/quickstart                        tables, and report.html
  selftrain audit runs/quickstart --draw 100 sheet.jsonl  judge these by hand: how wrong is the verifier?
  selftrain push runs/quickstart --to org/name            its best checkpoint, with a card
  selftrain export runs/quickstart model                  its newest policy as a checkpoint that needs nothing else
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Only the module of the command asked for is imported.
    name = next((word for word in words if word in COMMANDS), None)
    module = import_module(f"selftrain.commands.{name}") if name else None
    reader = parser(name, module)
    # Overrides and sheets may stand behind flags, where argparse does not look for them.
    options, late = reader.parse_known_args(words)
    several: list[Any] | None = getattr(options, "overrides", getattr(options, "sheets", None))
    if late and (several is None or any(word.startswith("-") for word in late)):
        reader.error(f"unrecognized arguments: {' '.join(late)}")
    if options.command is None or module is None:
        reader.print_help()
        return 2
    if several is not None:
        several += late
    from selftrain.commands.failures import guarded

    return guarded(module.main, options)


def parser(name: str | None, module: Any) -> argparse.ArgumentParser:
    """What is understood; the arguments of the named command alone."""
    top = argparse.ArgumentParser(
        prog="selftrain",
        description="Train language models on their own verified solutions.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"selftrain {__version__}")
    top.add_argument("--debug", action="store_true", help="show a traceback with an error")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter
    for command, text in COMMANDS.items():
        found = commands.add_parser(
            command, help=text, description=f"{text[0].upper()}{text[1:]}.", formatter_class=raw
        )
        if command == name:
            found.epilog = module.EXAMPLES
            module.arguments(found)
    return top


if __name__ == "__main__":
    sys.exit(main())
