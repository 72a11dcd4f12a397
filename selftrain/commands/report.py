"""`selftrain report`: the tables of a run, and its report.html."""

from __future__ import annotations

import argparse
from pathlib import Path

from selftrain.commands.opening import existing

EXAMPLES = """examples:
  selftrain report runs/quickstart                        its tables; writes runs/quickstart/report.html
"""


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, help="run directory")


def main(options: argparse.Namespace) -> int:
    from selftrain.report.run import closing

    print(closing(existing(options.run)))
    return 0
