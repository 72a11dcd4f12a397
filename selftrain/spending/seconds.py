"""Seconds of a run by stage, from its events: those of processes that were killed too, up to their last event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from selftrain.artifacts import RunDir

OF_STAGE = ("StageStarted", "Progress", "StageFinished")
Seconds = dict[tuple[int, str], float]
"""By iteration and stage."""


def seconds(run: RunDir) -> Seconds:
    """From the start of each stage to its end, or to the last that was heard of it; all attempts together."""
    found: Seconds = {}
    began: dict[tuple[int, str], float] = {}
    latest: dict[tuple[int, str], float] = {}
    for event in _events(run):
        key = (event["iteration"], event["stage"])
        if event["event"] == "StageStarted":
            if key in began:  # An earlier process was killed in it.
                found[key] = found.get(key, 0.0) + latest[key] - began[key]
            began[key] = latest[key] = event["time"]
        elif key in began:
            latest[key] = event["time"]
            if event["event"] == "StageFinished":
                found[key] = found.get(key, 0.0) + event["time"] - began.pop(key)
    for key, start in began.items():
        found[key] = found.get(key, 0.0) + latest[key] - start
    return found


def by_stage(found: Seconds) -> dict[str, float]:
    """Over all iterations."""
    total: dict[str, float] = {}
    for (_, stage), own in found.items():
        total[stage] = total.get(stage, 0.0) + own
    return total


def _events(run: RunDir) -> Iterator[dict[str, Any]]:
    if not run.events.exists():
        return
    with run.events.open() as lines:
        for line in lines:
            # A killed process may leave half a line.
            if line.endswith("}\n") and (event := json.loads(line))["event"] in OF_STAGE:
                yield event
