"""The searches of a config, wherever they stand: steps of Grow, and those that an evaluation answers by."""

from __future__ import annotations

from typing import NamedTuple

from selftrain.planning.settings import sampling_of
from selftrain.schema import RunConfig, Sampling, Searching

GROW, EVALUATE = "grow", "evaluate"
"""Stages that search."""


class Placed(NamedTuple):
    """A search and what is said of it elsewhere."""

    where: str
    """Its place in the config: ``grow.STEP``, ``evaluate.search.NAME``."""
    stage: str
    search: Searching
    sampling: Sampling
    is_single: bool
    """Whether of a tree only the response counts that the strategy chooses."""


def of_grow(config: RunConfig) -> list[Placed]:
    """Steps of Grow of kind ``search``."""
    return [
        Placed(f"grow.{name}", GROW, step, step.sampling(), step.keep == "chosen")
        for name, step in config.grow.items()
        if step.kind == "search"
    ]


def of_evaluation(config: RunConfig) -> list[Placed]:
    """Searches of an evaluation, which draw as its samples are drawn."""
    return [
        Placed(f"evaluate.search.{name}", EVALUATE, search, sampling_of(config), True)
        for name, search in config.evaluate.search.items()
    ]


def every_search(config: RunConfig) -> list[Placed]:
    return [*of_grow(config), *of_evaluation(config)]
