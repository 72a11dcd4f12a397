"""`selftrain status`: which stages of a run are done, or the tree of one problem that was searched."""

from __future__ import annotations

import argparse
from pathlib import Path

from selftrain.commands.opening import existing
from selftrain.config import ConfigError

EXAMPLES = """examples:
  selftrain status runs/quickstart
  selftrain status runs/mcts --tree 'arithmetic/train/7+2*3=' --iteration 1
"""


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, help="run directory")
    command.add_argument(
        "--tree",
        metavar="PROBLEM",
        help="show the search tree of a problem, and write it as a picture into the run",
    )
    command.add_argument("--iteration", type=int, help="of the tree; the newest one where none is given")


def main(options: argparse.Namespace) -> int:
    run = existing(options.run)
    if options.tree is not None:
        from selftrain.report.searched import shown

        print(shown(run, options.tree, options.iteration))
        return 0
    if options.iteration is not None:
        raise ConfigError("--iteration: says whose tree is shown; name a problem with --tree")
    from selftrain.report.monitors import last_line
    from selftrain.report.run import stages_done
    from selftrain.report.tables import status_table

    print("\n".join([status_table(stages_done(run)), *filter(None, [last_line(run)])]))
    return 0
