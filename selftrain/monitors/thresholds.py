"""Rows of monitors by iteration, and which of their values are beyond what the config allows.

A row is what ``monitors.json`` holds: ``{"iteration": 3, "tokens": 41.2, ..., "sources": {"prm": {"auc": 0.71}}}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from selftrain.monitors.known import DRIFT, KNOWN
from selftrain.monitors.responses import Values
from selftrain.schema import Threshold

Row = Mapping[str, Any]


class Crossing(NamedTuple):
    """A value beyond a threshold."""

    monitor: str
    bound: str
    """Which one: ``stop_below``, ``warn_above`` ..."""
    text: str

    @property
    def stops(self) -> bool:
        return self.bound.startswith("stop")


def values_of(row: Row, monitor: str) -> Iterator[tuple[str, float | None]]:
    """The name of each source that has a monitor, and its value; no name for those of the responses alone."""
    if monitor in KNOWN and KNOWN[monitor].of_source:
        yield from ((source, own.get(monitor)) for source, own in row.get("sources", {}).items())
    else:
        yield "", row.get(monitor)


def with_drift(values: Values, first: Row) -> Values:
    """Values with their ratios to those of the first iteration that has them; to themselves where none has."""
    ratios: Values = {}
    for name in _drifting(values):
        own = values[name]
        start = first.get(name, own)
        ratios[f"{name}{DRIFT}"] = own / start if own is not None and start else None
    return {**values, **ratios}


def first_values(rows: Iterable[Row], values: Values) -> dict[str, float]:
    """Of the values that have a drift, the earliest; no more rows are read than it takes."""
    wanted = {name for name in _drifting(values) if values[name] is not None}
    found: dict[str, float] = {}
    for row in rows:
        found |= {name: row[name] for name in wanted - found.keys() if row.get(name) is not None}
        if len(found) == len(wanted):
            break
    return found


def _drifting(values: Values) -> list[str]:
    return [name for name in values if f"{name}{DRIFT}" in KNOWN]


def crossings(rows: Sequence[Row], thresholds: Mapping[str, Threshold]) -> list[Crossing]:
    """What is beyond its thresholds in the last of these iterations, and was in all of the last ``after``.

    Of several bounds of one monitor the first that stops is told, or the first that warns.
    """
    found = (
        one
        for monitor, threshold in thresholds.items()
        for source, _ in values_of(rows[-1] if rows else {}, monitor)
        if (one := _crossing(rows, monitor, source, threshold)) is not None
    )
    return list(found)


def _crossing(rows: Sequence[Row], monitor: str, source: str, threshold: Threshold) -> Crossing | None:
    if len(rows) < threshold.after:
        return None
    values = [dict(values_of(row, monitor)).get(source) for row in rows[-threshold.after :]]
    for bound in ("stop_below", "stop_above", "warn_below", "warn_above"):
        limit: float | None = getattr(threshold, bound)
        if limit is not None and all(_beyond(value, bound, limit) for value in values):
            return Crossing(monitor, bound, _told(rows[-1], monitor, source, threshold, bound))
    return None


def _beyond(value: float | None, bound: str, limit: float) -> bool:
    return value is not None and (value < limit if bound.endswith("below") else value > limit)


def _told(row: Row, monitor: str, source: str, threshold: Threshold, bound: str) -> str:
    known, below = KNOWN[monitor], bound.endswith("below")
    value = dict(values_of(row, monitor))[source]
    often = f" in {threshold.after} iterations in a row" if threshold.after > 1 else ""
    return (
        f"iteration {row['iteration']}: {monitor}{f' of {source}' if source else ''} is {value:.4g}, "
        f"{'below' if below else 'above'} {bound} {getattr(threshold, bound):g}{often}: "
        f"{known.low if below else known.high}"
    )
