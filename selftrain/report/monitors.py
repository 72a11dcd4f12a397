"""Monitors over the iterations: what the policy writes, and what each reward source says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selftrain.artifacts import RunDir
from selftrain.monitors.known import KNOWN
from selftrain.monitors.thresholds import Row, crossings
from selftrain.report.chart import Series
from selftrain.report.tables import align, estimate, percent
from selftrain.schema import Threshold
from selftrain.stages.monitor import line, read

MOST = 12
"""Lines of a table of text; the HTML shows all."""
SHARES = ("right", "truncated", "repetition", "looping")
OF_SOURCE = ("pair_accuracy", "best_right", "auc", "last_least")
"""What a chart shows of the responses, and of a source."""
PERCENT = {*SHARES, "pair_accuracy", "best_right", "last_least"}
BESIDE = {"tokens": "tokens_drift", "steps": "steps_drift", "tokens_per_step": "tokens_per_step_drift"}
CHANCE = {"best_right": "best_right_chance", "last_least": "last_least_chance"}
APART = {*BESIDE.values(), "kl_k3", "kl_response_k3", "last_least_excess"}
"""Monitors without a column: they stand beside another or say the same."""


def monitor_rows(run: RunDir) -> list[dict[str, Any]]:
    """Those of all iterations that were measured, in order."""
    return [row for number in run.iterations() if (row := read(run, number))]


def monitor_tables(rows: Sequence[Row]) -> dict[str, list[list[str]]]:
    """By title, header and a line for each iteration: of the responses, and of each reward source."""
    if not rows:
        return {}
    sources = dict.fromkeys(source for row in rows for source in row["sources"])
    tables = {"Responses": _table(rows, rows, of_source=False)}
    for source in sources:
        tables[f"Rewards by {source}"] = _table(rows, [row["sources"].get(source, {}) for row in rows], of_source=True)
    return tables


def monitor_legend(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """What the columns mean."""
    shown = {cell.removesuffix(" %") for table in monitor_tables(rows).values() for cell in table[0]}
    return [(name, known.meaning) for name, known in KNOWN.items() if name in shown]


def monitor_series(rows: Sequence[Row]) -> dict[str, list[Series]]:
    """By title, the lines of a chart: shares of the responses, and of each source."""
    sources = dict.fromkeys(source for row in rows for source in row["sources"])
    charts = {"Responses": _series(rows, rows, SHARES)}
    for source in sources:
        own = [row["sources"].get(source, {}) for row in rows]
        charts[f"Rewards by {source}"] = _series(rows, own, OF_SOURCE)
    return {title: series for title, series in charts.items() if series}


def monitor_warnings(rows: Sequence[Row], config: Mapping[str, Any]) -> list[str]:
    """What is beyond its threshold in the last iteration.

    Args:
        config: a resolved config as a plain tree.
    """
    thresholds = (config.get("monitor") or {}).get("thresholds") or {}
    return [one.text for one in crossings(rows, {name: Threshold(**own) for name, own in thresholds.items()})]


def monitor_lines(rows: Sequence[Row], config: Mapping[str, Any]) -> list[str]:
    """Tables, legend and warnings as lines of text; of many iterations the first, the last and some between."""
    if not rows:
        return []
    lines = ["monitors"]
    for title, table in monitor_tables(_some(rows)).items():
        lines += [f"{title.lower()}:", align(table), ""]
    legend = monitor_legend(rows)
    width = max(len(name) for name, _ in legend)
    told = [f"  warning: {text}" for text in monitor_warnings(rows, config)]
    return [*lines, *(f"  {name.ljust(width)}  {meaning}" for name, meaning in legend), *told, ""]


def last_line(run: RunDir) -> str | None:
    """The last iteration in a line."""
    rows = monitor_rows(run)
    return line(rows[-1]) if rows else None


def _some(rows: Sequence[Row]) -> list[Row]:
    if len(rows) <= MOST:
        return list(rows)
    places = {round(place * (len(rows) - 1) / (MOST - 1)) for place in range(MOST)}
    return [rows[place] for place in sorted(places)]


def _table(rows: Sequence[Row], values: Sequence[Row], *, of_source: bool) -> list[list[str]]:
    names = [
        name
        for name, known in KNOWN.items()
        if known.of_source is of_source and name not in APART and any(own.get(name) is not None for own in values)
    ]
    header = ["iteration", *(f"{name} %" if name in PERCENT else name for name in names)]
    body = [
        [str(row["iteration"]), *(_cell(own, name) or "-" for name in names)]
        for row, own in zip(rows, values, strict=True)
    ]
    return [header, *body]


def _cell(values: Row, name: str) -> str:
    """``71.2 [64.0, 78.4]``, ``62.0 (50.0)`` beside chance, ``41.2 (x1.20)`` against the first iteration."""
    value = values.get(name)
    if value is None:
        return ""
    text = estimate(values, name) if name in PERCENT else f"{value:.4g}"
    if (chance := values.get(CHANCE.get(name, ""))) is not None:
        text += f" ({percent({name: chance}, name)})"
    if (drift := values.get(BESIDE.get(name, ""))) is not None:
        text += f" (x{drift:.2f})"
    return text


def _series(rows: Sequence[Row], values: Sequence[Row], names: Sequence[str]) -> list[Series]:
    found = []
    for name in names:
        points = tuple(
            (row["iteration"], own[name], own.get(f"{name}_low", own[name]), own.get(f"{name}_high", own[name]))
            for row, own in zip(rows, values, strict=True)
            if own.get(name) is not None
        )
        found += [Series(name.replace("_", " "), points)] if points else []
    return found
