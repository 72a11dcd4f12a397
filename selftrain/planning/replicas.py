"""How many replicas of a sampler there are, and where each runs."""

from __future__ import annotations

from typing import Any

from selftrain import machine
from selftrain.config import instantiate
from selftrain.places import Places
from selftrain.sampling.seats import Seat, seated
from selftrain.schema import Component, Launch


def replicas(options: Any, launch: Launch, places: Places | None = None) -> int:
    """As the config says, else as many as the GPUs have room for; a sampler that cannot share its work is one.

    Args:
        options: of the sampler.
        places: where they run; None: on this machine.
    """
    if not hasattr(options, "units"):
        return 1
    if launch.sample.replicas is not None:
        return launch.sample.replicas
    each: int = options.gpus
    if not each or (places is not None and not places.gpus):
        return 1
    return max(1, len(machine.gpus()) // each if places is None else places.room(each))


def several(component: Component, launch: Launch, places: Places | None = None) -> bool:
    """Whether a fleet draws: several replicas, or one on a machine that may be lost."""
    options = instantiate("sampler", component)
    return replicas(options, launch) > 1 if places is None else hasattr(options, "units")


def seats(options: Any, launch: Launch, places: Places | None = None) -> list[Seat]:
    """Raises ValueError where there are GPUs of this machine, but too few.

    Elsewhere there are as many as there is room for: a machine that is lost need not end the run.
    """
    count, each = replicas(options, launch, places), getattr(options, "gpus", 0)
    if places is None:
        return seated(count, each, machine.gpus(), sleeps=sleep_level(options, launch) > 0)
    count = max(1, min(count, places.room(each)))
    starts = places.spread(count, each)
    return [Seat(number, count, start=start, given=places.gpus and each > 0) for number, start in enumerate(starts)]


def sleep_level(options: Any, launch: Launch) -> int:
    """At which an engine that stays sleeps while others need its GPUs; 0: not at all."""
    if launch.keep != "run" or not machine.gpus() or not getattr(options, "sleeps", False):
        return 0
    return 1 if launch.sample.sleep is None else launch.sample.sleep
