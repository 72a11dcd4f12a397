"""What a run tells whoever watches it: the loop yields these, views and logs read them; none decides anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done, said before anything heavy is loaded."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage begins; it is known by ``(iteration, stage)`` until its ``StageFinished``."""

    iteration: int
    stage: str
    total: int | None
    """How many ``unit`` the whole stage has, finished parts included; None where unknown."""
    unit: str
    """Plural, as a person reads it: ``samples``, ``steps``."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is. Numbers are totals of the stage, not increments.

    The first one of a stage says where it starts (0, or what a resumed stage kept): rates are measured from there.
    """

    iteration: int
    stage: str
    done: int
    total: int | None
    tokens: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    """Verdicts so far by status; acceptance is right / all of them."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Latest named numbers, such as ``loss``."""


@dataclass(frozen=True, slots=True)
class StageFinished:
    """A stage is done, or was found done (``skipped``)."""

    iteration: int
    stage: str
    seconds: float
    summary: str
    skipped: bool


@dataclass(frozen=True, slots=True)
class Handover:
    """What it took that samplers and others have memory and weights in turn, and that replicas share their work; comes
    before the ``StageFinished`` of the stage that waited for it."""

    iteration: int
    stage: str
    seconds: Mapping[str, float]
    """By what was done with an engine: open, sleep, wake, reload, reset, exit."""
    shared: Mapping[str, float] = field(default_factory=dict)
    """Of replicas, where there are several: as `selftrain.sampling.replica.Account`."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The metrics rows of one iteration, one per task and split."""

    iteration: int
    rows: tuple[dict[str, Any], ...]
    tests: Mapping[str, Any]
    """Paired tests by ``task/split``: ``{"vs_start": {metric: test}, "vs_previous": {metric: test}}``."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should read."""

    text: str
    level: Literal["info", "warning"]


@dataclass(frozen=True, slots=True)
class Finished:
    """The run is over."""

    run_dir: str
    reason: str


ALONE = frozenset({"train", "reference", "steps", "pull", "upload"})
"""Stages of commands without a loop, and of a mirror: their iteration says nothing."""

Event = Plan | StageStarted | Progress | StageFinished | Handover | Evaluated | Notice | Finished
