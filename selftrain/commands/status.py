"""`selftrain status`: which stages of a run are done."""

from __future__ import annotations

import argparse
from pathlib import Path

from selftrain.commands.opening import existing


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, help="run directory")


def main(options: argparse.Namespace) -> int:
    from selftrain.report.monitors import last_line
    from selftrain.report.run import stages_done
    from selftrain.report.tables import status_table

    run = existing(options.run)
    print("\n".join([status_table(stages_done(run)), *filter(None, [last_line(run)])]))
    return 0
