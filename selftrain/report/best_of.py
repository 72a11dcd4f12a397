"""Choosing among samples by a reward: curves over n of the last iteration, as text and for the HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from selftrain.report.chart import Point, Series
from selftrain.report.tables import Row, align, best_of_names, by_split, estimate, metric_name, p_value, percent

MEANING = {
    "n": "Samples to choose among; with 1 there is no choice.",
    "pass": "Share of problems with a right answer among n: no choice can do better.",
    "maj": "Share whose most frequent answer among n is right.",
    "bon": "Share whose answer with the largest reward among n is right.",
    "wbon": "Share where the answer that gathers the most reward among n is right.",
}
"""Of the columns, by how their metric is called before the @."""


def best_of_tables(row: Row) -> list[list[str]]:
    """Header and a line for each n of a row that has such metrics; empty for any other."""
    names = best_of_names([row])
    if not names:
        return []
    kinds = [kind for kind in _kinds(names) if any(f"{kind}@{n}" in row for n in _sizes(row, names))]
    average = metric_name([row], "avg")
    body = [["1", *(estimate(row, average) for _ in kinds)]]
    body += [[str(n), *(estimate(row, f"{kind}@{n}") or "-" for kind in kinds)] for n in _sizes(row, names)]
    return [["n", *(f"{kind.replace('_', ' ', 1)} %" for kind in kinds)], *body]


def best_of_tests(row: Row) -> list[str]:
    """A sentence for each paired test against the majority, and for each source that could not score all samples."""
    names = best_of_names([row])
    largest = max(_sizes(row, names), default=0)
    told = []
    for kind in _kinds(names):
        test: Any = row.get(f"{kind}_vs_maj")
        if test:
            change = f"{100 * test['difference']:+.1f} [{100 * test['low']:+.1f}, {100 * test['high']:+.1f}]"
            told.append(f"{kind.replace('_', ' ', 1)} - maj, of {largest}: {change} {p_value(test['p'])}")
    told += [
        f"{name} gave {percent(row, f'bon_{name}_unscored')} % of the samples no reward; they are the last choice"
        for name in names
        if row.get(f"bon_{name}_unscored")
    ]
    return told


def best_of_legend(row: Row) -> list[tuple[str, str]]:
    """What the columns mean."""
    header = best_of_tables(row)[0]
    return [(name, text) for name, text in MEANING.items() if any(re.match(rf"{name}\b", cell) for cell in header)]


def best_of_lines(rows: Sequence[Row]) -> list[str]:
    """The tables of the last iteration as lines of text; none where nothing was chosen."""
    lines: list[str] = []
    legend: dict[str, str] = {}
    for group in by_split(rows).values():
        row = group[-1]
        if table := best_of_tables(row):
            lines += [title(row), align(table), *(f"  {line}" for line in best_of_tests(row)), ""]
            legend |= dict(best_of_legend(row))
    width = max(map(len, legend), default=0)
    return [*lines, *(f"  {name.ljust(width)}  {text}" for name, text in legend.items()), ""] if lines else []


def title(row: Row) -> str:
    return f"{row['task']} / {row['split']}, best of n at iteration {row['iteration']}, {row['n_problems']:,} problems"


def best_of_series(row: Row) -> dict[str, list[Series]]:
    """For each source the lines of a chart over n: pass, maj, and both choices by it."""
    found = {}
    for name in best_of_names([row]):
        lines = {kind: _points(row, kind) for kind in _kinds([name])}
        found[name] = [Series(kind.partition("_")[0], points) for kind, points in lines.items() if len(points) > 1]
    return found


def _points(row: Row, kind: str) -> tuple[Point, ...]:
    average = metric_name([row], "avg")
    metrics = {1: average, **{n: f"{kind}@{n}" for n in _sizes(row, best_of_names([row]))}}
    return tuple((n, row[m], row[f"{m}_low"], row[f"{m}_high"]) for n, m in metrics.items() if m in row)


def _kinds(names: Sequence[str]) -> list[str]:
    return ["pass", "maj", *(f"{how}_{name}" for name in names for how in ("bon", "wbon"))]


def _sizes(row: Row, names: Sequence[str]) -> list[int]:
    """The n of the curves."""
    return sorted({int(key.rpartition("@")[2]) for name in names for key in row if re.fullmatch(_metric(name), key)})


def _metric(name: str) -> str:
    return rf"bon_{re.escape(name)}@\d+"
