"""A run beside its mirror: stages that are there and not here are pulled first, finished ones are uploaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from selftrain.errors import RunError
from selftrain.events import Event, StageFinished

if TYPE_CHECKING:
    from selftrain.mirror.upload import Mirror

LAST, STOPPING = 60.0, 20.0
"""Seconds that the end of a run waits for a mirror that does not answer, and one that was asked to stop for uploads."""


@contextmanager
def mirroring(session: Any) -> Iterator[Mirror | None]:
    """Inside, the run's mirror is claimed and open; None where the config names none."""
    url = session.config.track.mirror
    if url is None:
        yield None
        return
    from selftrain.mirror.store import Store
    from selftrain.mirror.upload import Mirror

    mirror = Mirror(Store(url), session.run, session.config.run.name, session.check_stop)
    try:
        mirror.open(partial(print, file=sys.stderr))
        yield mirror
    finally:
        mirror.close()


def pulled(session: Any, mirror: Mirror, redo: Sequence[str]) -> Iterator[Event]:
    """What the mirror has and the run's folder lacks."""
    from selftrain.loop import dependants, each_stage, every_stage
    from selftrain.mirror.pull import pull
    from selftrain.stages.order import outputs

    yield from mirror.told()
    if mirror.held is not None:
        redone = {stage.label for stage in dependants(every_stage(session), redo)}
        yield from pull(mirror.held, session.run, each_stage(session), redone, outputs, session.check_stop)


def mirrored(mirror: Mirror, events: Iterator[Event]) -> Iterator[Event]:
    """The events of a run; every stage that ends is uploaded beside the next, the last ones are waited for."""
    from selftrain.session import Interrupted

    try:
        for event in events:
            yield event
            if isinstance(event, StageFinished):
                mirror.wake()
            yield from mirror.told()
        yield from mirror.settle(LAST)
    except (Interrupted, RunError):
        yield from mirror.settle(STOPPING, stopping=True)
        raise
