"""Answering by searches: what it comes to beside greedy answers and the majority, and what each takes, as text and for
the HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selftrain.report.tables import Row, align, by_split, estimate, metric_name, p_value, percent, search_names

MEANING = {
    "right %": "Share of problems answered right; in brackets the 95 % interval over problems.",
    "policy tokens": "Drawn for one problem, those of dropped proposals and of roll-outs too.",
    "value tokens": "Of responses, read by who values them, each once; as budgets count them.",
}
"""Of the columns."""


def search_table(row: Row) -> list[list[str]]:
    """Header and a line for each search of a row, below what its samples alone come to; empty where none searched."""
    names = search_names([row])
    if not names:
        return []
    body = [[f"search {name}", estimate(row, f"search_{name}"), *_tokens(row, name)] for name in names]
    return [["answer by", *MEANING], *_sampled(row), *body]


def search_tests(row: Row) -> list[str]:
    """A sentence for each paired test against the majority, and for each search that leaves problems unanswered."""
    names, majority = search_names([row]), metric_name([row], "maj")
    told = []
    for name in names:
        test: Any = row.get(f"search_{name}_vs_maj")
        if test:
            change = f"{100 * test['difference']:+.1f} [{100 * test['low']:+.1f}, {100 * test['high']:+.1f}]"
            told.append(f"search {name} - {majority}: {change} {p_value(test['p'])}")
    told += [
        f"search {name} has no answer to {percent(row, f'search_{name}_unanswered')} % of the problems; they count as "
        "not right"
        for name in names
        if row.get(f"search_{name}_unanswered")
    ]
    return told


def search_lines(rows: Sequence[Row]) -> list[str]:
    """The tables of the last iteration as lines of text; none where nothing was searched."""
    lines: list[str] = []
    for group in by_split(rows).values():
        row = group[-1]
        if table := search_table(row):
            where = f"{row['task']} / {row['split']}, searches at iteration {row['iteration']}"
            lines += [f"{where}, {row['n_problems']:,} problems", align(table)]
            lines += [*(f"  {line}" for line in search_tests(row)), ""]
    width = max(map(len, MEANING))
    return [*lines, *(f"  {name.ljust(width)}  {text}" for name, text in MEANING.items()), ""] if lines else []


def _sampled(row: Row) -> list[list[str]]:
    """The majority of the samples and what they take."""
    majority = metric_name([row], "maj")
    if majority not in row:
        return []
    count = int(majority.partition("@")[2])
    return [[majority, estimate(row, majority), f"{count * row['mean_tokens']:,.0f}", "0"]]


def _tokens(row: Row, name: str) -> list[str]:
    return [f"{row[f'search_{name}_{kind}_tokens']:,.0f}" for kind in ("policy", "value")]
