"""When the judgement at hand overruns."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar

_END: ContextVar[float] = ContextVar("end", default=math.inf)


def time_left() -> float:
    """Seconds until the judgement at hand overruns and its worker is killed; infinite where there is no worker.

    For verifiers that bound what they run themselves, so that theirs is the last word.
    """
    return _END.get() - time.monotonic()


def ends(moment: float) -> None:
    """The judgement that is begun here overruns at this moment (time.monotonic)."""
    _END.set(moment)


def delay(seconds: float) -> None:
    """The judgement at hand overruns so much later."""
    _END.set(_END.get() + seconds)
