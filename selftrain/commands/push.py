"""`selftrain push`: a checkpoint of a run with its card, to the hub or into a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from selftrain.commands.opening import existing
from selftrain.push import push

EXAMPLES = """examples:
  selftrain push runs/quickstart --to ./model             files and card into a folder, to look at first
  selftrain push runs/quickstart --to org/name --dry-run
  selftrain push runs/quickstart --to org/name --data --private
"""


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, help="run directory")
    command.add_argument("--to", required=True, metavar="NAME", help="org/name on the hub, or ./folder")
    command.add_argument("--iteration", type=int, metavar="N", help="default: the best on validation, else the last")
    command.add_argument("--learner", default="policy")
    command.add_argument("--data", action="store_true", help="samples and examples too, to NAME-data")
    command.add_argument("--private", action="store_true", help="make new repositories private")
    command.add_argument("--dry-run", action="store_true", help="print files and cards, push nothing")


def main(options: argparse.Namespace) -> int:
    return push(existing(options.run), options)
