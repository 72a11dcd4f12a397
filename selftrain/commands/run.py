"""`selftrain run`: the loop of a config, from where it is."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from selftrain.artifacts import RunDir
from selftrain.commands.opening import begin, check_once, config_arguments, journal_line, prepare_libraries, set_aside
from selftrain.config import load_config

TERMINATED = 143


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
    from selftrain.loop import check_labels, check_marks
    from selftrain.stages.check import plan
    from selftrain.stages.session import Session

    folder = RunDir(Path(config.run.folder) / config.run.name)
    with Session(config, folder) as session:
        check_labels(session, options.until, options.redo)
        check_once(session)
        if options.dry_run:
            from selftrain.stages.preview import preview, reuse

            print("\n".join([*plan(session), *reuse(session), *preview(session)]))
            return 0
        with folder.lock(), _stop_on_sigterm(folder):
            check_marks(session, options.redo)
            if options.redo:
                set_aside(session, options.redo)
            begin(session)
            return _follow(session, options.until)


def _follow(session: Any, until: str | None) -> int:
    """Run the loop; every event goes to the view and to events.jsonl."""
    from selftrain.loop import run as loop
    from selftrain.report.live import LiveView
    from selftrain.stages.session import Interrupted

    with contextlib.ExitStack() as open_files:
        journal = open_files.enter_context(session.run.events.open("a"))
        live = session.config.track.live
        stream = open_files.enter_context(open(os.devnull, "w")) if live == "none" else None
        view = open_files.enter_context(LiveView(stream, plain=live == "plain"))
        try:
            for event in loop(session, until):
                journal.write(journal_line(event))
                journal.flush()
                view.show(event)
        except Interrupted:
            print(
                f"stopped after the current part; the same command goes on from here ({session.run.root})",
                file=sys.stderr,
            )
            return TERMINATED
    _closing(session)
    return 0


def _closing(session: Any) -> None:
    from selftrain.report.run import closing

    text = closing(session.run)
    if session.config.track.live != "none":
        print(text)


@contextlib.contextmanager
def _stop_on_sigterm(folder: RunDir) -> Iterator[None]:
    def ask(number: int, frame: FrameType | None) -> None:
        folder.stop.touch()

    folder.stop.unlink(missing_ok=True)
    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        folder.stop.unlink(missing_ok=True)
