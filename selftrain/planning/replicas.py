"""How many replicas of a sampler there are, and where each runs."""

from __future__ import annotations

from typing import Any

from selftrain import machine
from selftrain.config import instantiate
from selftrain.sampling.seats import Seat, seated
from selftrain.schema import Component, Launch


def replicas(options: Any, launch: Launch) -> int:
    """As the config says, else as many as the GPUs have room for; a sampler that cannot share its work is one.

    Args:
        options: of the sampler.
    """
    if not hasattr(options, "units"):
        return 1
    if launch.sample.replicas is not None:
        return launch.sample.replicas
    return max(1, len(machine.gpus()) // options.gpus) if options.gpus else 1


def several(component: Component, launch: Launch) -> bool:
    return replicas(instantiate("sampler", component), launch) > 1


def seats(options: Any, launch: Launch) -> list[Seat]:
    """Raises ValueError where there are GPUs, but too few."""
    return seated(
        replicas(options, launch), getattr(options, "gpus", 0), machine.gpus(), sleeps=sleep_level(options, launch) > 0
    )


def sleep_level(options: Any, launch: Launch) -> int:
    """At which an engine that stays sleeps while others need its GPUs; 0: not at all."""
    if launch.keep != "run" or not machine.gpus() or not getattr(options, "sleeps", False):
        return 0
    return 1 if launch.sample.sleep is None else launch.sample.sleep
