"""`selftrain run`: the loop of a config, from where it is."""

from __future__ import annotations

import argparse
from typing import Any

from selftrain.artifacts import RunDir
from selftrain.checks.here import elsewhere, refuse
from selftrain.commands.following import TERMINATED, follow, stop_on_sigterm, stopped, watch
from selftrain.commands.mirroring import mirroring, pulled
from selftrain.commands.opening import (
    begin,
    check_once,
    config_arguments,
    prepare_libraries,
    redone,
    root_of,
    set_aside,
)
from selftrain.config import load_config

EXAMPLES = """examples:
  selftrain run configs/quickstart.yaml
  selftrain run my.yaml --dry-run                         check everything, print the plan and an example
  selftrain run my.yaml grow.draft.n=16 run.name=more     other settings, in a run of their own
  selftrain run my.yaml --until grow                      end after the first Grow, and look at its samples
  selftrain run my.yaml --until 2/evaluate
  selftrain run my.yaml --redo 2/grow                     sample iteration 2 again, and do what depends on it
"""


def arguments(command: argparse.ArgumentParser) -> None:
    config_arguments(command)
    command.add_argument("--until", metavar="STAGE", help="end after a stage: grow, or 2/improve-policy")
    command.add_argument(
        "--redo",
        metavar="ITERATION/STAGE",
        action="append",
        default=[],
        help="set a finished stage and all that depends on it aside, and do them again; may be given more than once",
    )
    command.add_argument("--dry-run", action="store_true", help="check everything, print the plan, write nothing")


def main(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.overrides)
    prepare_libraries()
    from selftrain.checks.check import plan
    from selftrain.loop import check_labels, check_marks
    from selftrain.session import Interrupted, Session

    folder = RunDir(root_of(config.run))
    lacking: list[str] = []
    with Session(config, folder) as session:
        check_labels(session, options.until, options.redo)
        check_marks(session, options.redo)
        check_once(session, lacking.append if options.dry_run else refuse)
        if options.dry_run:
            from selftrain.checks.preview import preview, reuse

            again = redone(session, options.redo)
            print("\n".join([*plan(session), *again, *reuse(session), *preview(session), *elsewhere(lacking)]))
            return 0
        try:
            if not _run(session, options):
                return TERMINATED
        except Interrupted:  # While it waited for the mirror.
            stopped(session)
            return TERMINATED
    from selftrain.report.run import closing

    text = closing(folder)  # It writes report.html too.
    if config.track.live != "none":
        print(text)
    return 0


def _run(session: Any, options: argparse.Namespace) -> bool:
    """Whether the run came to its end, and was not asked to stop."""
    from selftrain.loop import check_marks

    with session.run.lock(), stop_on_sigterm(session.run), mirroring(session) as mirror:
        if mirror is not None and not watch(session, pulled(session, mirror, options.redo)):
            return False
        check_marks(session, options.redo)
        if options.redo:
            set_aside(session, options.redo)
        begin(session)
        return follow(session, options.until, mirror)
