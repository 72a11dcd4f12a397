"""Plain-text tables of a run: its iterations, two runs side by side, what is done.

Rows are those of ``metrics.jsonl``: one per iteration, task and split.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selftrain.evaluation import is_verdict

Row = Mapping[str, Any]

OTHER_JUDGE = "other verifier"
UNLIKE = "judged by different verifiers"
UNLIKE_LEGEND = f"{OTHER_JUDGE}: {UNLIKE}, or by other options or bounds of one, so no change of the model can be told."


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table of iterations: shown where at least one row has something to say."""

    name: str
    meaning: str
    """One sentence for a reader new to the field."""
    cell: Callable[[Row], str]


def iterations_table(rows: Sequence[Row], alone: bool = False) -> str:
    """One table per task and split, one line per iteration, and under them a sentence per column.

    Args:
        alone: the rows are of one checkpoint, and its number says nothing.

    ``row["vs_start"]`` and ``row["vs_previous"]``, where present, hold paired tests by metric:
    ``{"pass@1": {"difference": 0.15, "p": 0.0004, ...}}``.
    """
    if not rows:
        return "no iteration has been evaluated yet"
    tables: list[str] = []
    used: dict[str, Column] = {}
    for (task, split), group in by_split(rows).items():
        columns = [column for column in columns_of(group)[alone:] if any(column.cell(row) for row in group)]
        used |= {column.name: column for column in columns}
        body = [[column.cell(row) or "-" for column in columns] for row in group]
        tables.append(f"{task} / {split}, {_problems(group)}\n{align([[c.name for c in columns], *body])}")
    width = max(map(len, used))
    legend = "\n".join(f"  {column.name.ljust(width)}  {column.meaning}" for column in used.values())
    return "\n\n".join([*tables, legend])


def columns_of(group: Sequence[Row]) -> list[Column]:
    """Every column rows of one task and split could fill, that of the iteration first; numbers are percentages."""
    average, majority = metric_name(group, "avg"), metric_name(group, "maj")
    k = average.partition("@")[2]
    main = "pass@1" if any("pass@1" in row for row in group) else average
    votes = majority.partition("@")[2]
    changes = f"Change of {main} in percentage points; p is the chance of one as large if nothing had changed."
    failed = "Share of answers the verifier failed on or ran out of time for; they count as not right."
    errors = [Column("errors %", failed, lambda row: percent(row, "errors"))]
    return [
        Column("iteration", "0 is the model the loop started from.", lambda row: str(row["iteration"])),
        Column(
            "pass@1 %",
            "Share of problems solved by the one answer without chance (greedy); in brackets the 95 % interval.",
            lambda row: estimate(row, "pass@1"),
        ),
        Column(
            f"{average} %",
            f"Share of right answers among {k} sampled per problem; in brackets the 95 % interval.",
            lambda row: estimate(row, average),
        ),
        Column(
            f"{majority} %",
            f"Share of problems whose most frequent answer among {votes} samples is right.",
            lambda row: percent(row, majority),
        ),
        *(_chosen(group, name) for name in best_of_names(group)),
        *(_searched(name) for name in search_names(group)),
        Column("truncated %", "Share of answers cut off at the length limit.", lambda row: percent(row, "truncated")),
        Column(
            "unparsed %", "Share of answers in which no final answer was found.", lambda row: percent(row, "unparsed")
        ),
        Column(
            "by judge %",
            "Share of answers a judge model accepted where no rule could decide; audit them: selftrain audit.",
            lambda row: percent(row, "by_judge"),
        ),
        *(errors if any(row.get("errors") for row in group) else []),
        Column("since start", changes, lambda row: change(row, "vs_start", main)),
        Column(
            "since previous", "The same against the iteration before.", lambda row: change(row, "vs_previous", main)
        ),
    ]


def _chosen(group: Sequence[Row], name: str) -> Column:
    """That of the best of n by a source."""
    metric = metric_name(group, f"bon_{name}")
    n = metric.rpartition("@")[2]
    meaning = f"Share of problems whose answer with the largest reward by {name} among {n} samples is right."
    return Column(f"best of {n} by {name} %", meaning, lambda row: percent(row, metric))


def _searched(name: str) -> Column:
    """That of a search."""
    meaning = f"Share of problems whose answer by the search {name} is right; in brackets the 95 % interval."
    return Column(f"search {name} %", meaning, lambda row: estimate(row, f"search_{name}"))


def compare_table(
    rows_a: Sequence[Row],
    rows_b: Sequence[Row],
    *,
    names: tuple[str, str] = ("A", "B"),
    tests: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    unlike: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Two runs side by side, each at its last iteration on every task and split both were evaluated on.

    Args:
        names: what to call the runs.
        tests: paired tests of B against A by ``task/split`` and metric; without them the change has no p-value.
        unlike: the verifiers of A and of B by ``task/split``, where they differ: no change is told there.
    """
    groups_a, groups_b = by_split(rows_a), by_split(rows_b)
    shared = [key for key in groups_a if key in groups_b]
    if not shared:
        have = [", ".join("/".join(key) for key in groups) or "nothing" for groups in (groups_a, groups_b)]
        return f"nothing to compare: {names[0]} was evaluated on {have[0]}; {names[1]} on {have[1]}"
    tables = []
    for key in shared:
        a, b = groups_a[key][-1], groups_b[key][-1]
        found, judges = (tests or {}).get("/".join(key), {}), (unlike or {}).get("/".join(key))
        title = f"{key[0]} / {key[1]}: {_at(names[0], a)} and {_at(names[1], b)}"
        body = align([["", *names, f"{names[1]} - {names[0]}"], *_pairs(a, b, found, bool(judges))])
        tables.append("\n".join([title, body, *([f"{UNLIKE}: {' and '.join(judges)}"] if judges else [])]))
    legend = (
        "Percentages, in brackets their 95 % interval over problems; the change is in percentage points.\n"
        "p is the chance of a change as large if the two were equally good, from a paired test by problem."
    )
    return "\n\n".join([*tables, "\n".join([legend, *([UNLIKE_LEGEND] if unlike else [])])])


def status_table(stages: Mapping[int, Mapping[str, str]]) -> str:
    """What is done: one line per iteration, one column per stage, in the order given.

    Args:
        stages: for each iteration the state of its stages, such as ``done`` or ``3 of 12 parts``; ``-`` where absent.
    """
    if not stages:
        return "no stage has started yet"
    names = list(dict.fromkeys(name for states in stages.values() for name in states))
    body = [[str(number), *(states.get(name, "-") for name in names)] for number, states in sorted(stages.items())]
    return align([["iteration", *names], *body])


def by_split(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows of verdicts, without those of protocols and of kept text, by (task, split), in the order of iterations."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in filter(is_verdict, rows):
        groups.setdefault((row["task"], row["split"]), []).append(row)
    return {key: sorted(group, key=lambda row: row["iteration"]) for key, group in groups.items()}


def metric_name(rows: Iterable[Row], kind: str) -> str:
    """The metric ``kind@k`` of the largest k any row has; ``kind@k`` itself where none has one."""
    found = {int(name.partition("@")[2]) for row in rows for name in row if re.fullmatch(rf"{kind}@\d+", name)}
    return f"{kind}@{max(found, default='k')}"


def best_of_names(rows: Iterable[Row]) -> list[str]:
    """The sources that choose among samples in any of these rows."""
    found = (re.fullmatch(r"bon_(.+)@\d+", name) for row in rows for name in row)
    return list(dict.fromkeys(one[1] for one in found if one))


def search_names(rows: Iterable[Row]) -> list[str]:
    """The searches that answer problems in any of these rows."""
    found = (re.fullmatch(r"search_(.+)_policy_tokens", name) for row in rows for name in row)
    return list(dict.fromkeys(one[1] for one in found if one))


def percent(row: Row, name: str) -> str:
    """A share as a percentage with one decimal; a tiny one is never shown as 0; empty where the row has none."""
    share = row.get(name)
    if share is None:
        return ""
    return "<0.1" if 0 < share < 0.0005 else f"{100 * share:.1f}"


def estimate(row: Row, name: str) -> str:
    """``46.0 [41.7, 50.4]``: a share and its interval."""
    if f"{name}_low" not in row:
        return percent(row, name)
    return f"{percent(row, name)} [{percent(row, f'{name}_low')}, {percent(row, f'{name}_high')}]"


def change(row: Row, against: str, name: str) -> str:
    """``+15.0 p=0.0004``: a difference in percentage points; empty where it was not tested."""
    test = (row.get(against) or {}).get(name)
    return "" if test is None else f"{100 * test['difference']:+.1f} {p_value(test['p'])}"


def p_value(p: float) -> str:
    """``p=0.012``; ``p<0.0001`` below that."""
    return "p<0.0001" if p < 0.0001 else f"p={p:.2g}" if p < 0.995 else "p=1"


def align(lines: Sequence[Sequence[str]]) -> str:
    """Columns of plain text, right-aligned, a rule under the first line."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([text[0], "  ".join("-" * width for width in widths), *text[1:]])


def _pairs(a: Row, b: Row, tests: Mapping[str, Mapping[str, float]], unlike: bool) -> list[list[str]]:
    """Lines of what two rows both have; who judged has a say in all but how many were truncated."""
    both = [name for name in a if name in b]
    lines = []
    chosen = [metric_name([a, b], f"{how}_{name}") for name in best_of_names([a, b]) for how in ("bon", "wbon")]
    chosen += [f"search_{name}" for name in search_names([a, b])]
    for name in [name for name in both if re.fullmatch(r"(pass|avg|maj)@\d+", name) or name in chosen]:
        p = f" {p_value(tests[name]['p'])}" if name in tests else ""
        told = OTHER_JUDGE if unlike else f"{100 * (b[name] - a[name]):+.1f}{p}"
        lines.append([f"{name} %", estimate(a, name), estimate(b, name), told])
    for name in [name for name in ("truncated", "unparsed", "errors") if name in both]:
        told = OTHER_JUDGE if unlike and name != "truncated" else f"{100 * (b[name] - a[name]):+.1f}"
        lines.append([f"{name} %", percent(a, name), percent(b, name), told])
    return lines


def _problems(group: Sequence[Row]) -> str:
    counts = sorted({row["n_problems"] for row in group})
    return f"{' or '.join(f'{count:,}' for count in counts)} problem{'' if counts == [1] else 's'}"


def _at(name: str, row: Row) -> str:
    return f"{name} at iteration {row['iteration']} ({row['n_problems']:,} problems)"
