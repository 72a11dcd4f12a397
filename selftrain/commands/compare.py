"""`selftrain compare`: two runs side by side, problem by problem."""

from __future__ import annotations

import argparse
from pathlib import Path

from selftrain.commands.opening import existing

EXAMPLES = """examples:
  selftrain compare runs/quickstart-control runs/quickstart   is the second better, problem by problem?
"""


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path)
    command.add_argument("other", type=Path)


def main(options: argparse.Namespace) -> int:
    from selftrain.report.compare import compare_runs

    print(compare_runs(existing(options.run), existing(options.other)))
    return 0
