"""What a config asks for and this machine does not have: an error before a run; a line of a dry run, which may be of a
config for another machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from selftrain import machine
from selftrain.config import ConfigError

Lacks = Callable[[str], None]
"""Is told what is lacking, and what to do about it."""


def refuse(what: str) -> NoReturn:
    raise ConfigError(what)


def check_one_gpu_each(where: str, processes: int, lacks: Lacks) -> None:
    """More processes than GPUs; where there are none, they share the cores."""
    if (there := len(machine.gpus())) and processes > there:
        lacks(f"{where}: {processes} for {there} GPUs, one each; set it to {there}")


def elsewhere(lacking: Sequence[str]) -> Iterator[str]:
    """Lines of a dry run."""
    if lacking:
        yield "not on this machine, where a run is refused:"
    yield from (f"  {what}" for what in lacking)
