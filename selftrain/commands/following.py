"""Running the loop before the user's eyes: every event goes to the view and to ``events.jsonl``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from selftrain.artifacts import RunDir
from selftrain.commands.opening import journal_line
from selftrain.events import Event

if TYPE_CHECKING:
    from selftrain.mirror.upload import Mirror

TERMINATED = 143
"""Exit status of a run that was asked to stop."""


def follow(session: Any, until: str | None = None, mirror: Mirror | None = None) -> bool:
    """Whether the loop came to its end, and was not asked to stop."""
    from selftrain.commands.mirroring import mirrored
    from selftrain.loop import run as loop

    events = loop(session, until)
    return watch(session, events if mirror is None else mirrored(mirror, events))


def watch(session: Any, events: Iterator[Event]) -> bool:
    """Show and journal events; whether they came to their end."""
    from selftrain.report.live import LiveView
    from selftrain.session import Interrupted

    with contextlib.ExitStack() as open_files:
        journal = open_files.enter_context(session.run.events.open("a"))
        live = session.config.track.live
        stream = open_files.enter_context(open(os.devnull, "w")) if live == "none" else None
        view = open_files.enter_context(LiveView(stream, plain=live == "plain"))
        try:
            for event in events:
                journal.write(journal_line(event))
                journal.flush()
                view.show(event)
        except Interrupted as interrupted:
            stopped(session, str(interrupted))
            return False
    return True


def stopped(session: Any, again: str = "") -> None:
    """Tell that a run ended because it was asked to, and what the same command does ``again``."""
    told = again or "goes on from here"
    print(f"stopped after the current part; the same command {told} ({session.run.root})", file=sys.stderr)


@contextlib.contextmanager
def stop_on_sigterm(folder: RunDir) -> Iterator[None]:
    """Inside, SIGTERM asks the run to stop in place of ending the process."""

    def ask(number: int, frame: FrameType | None) -> None:
        folder.stop.touch()

    folder.stop.unlink(missing_ok=True)
    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        folder.stop.unlink(missing_ok=True)
