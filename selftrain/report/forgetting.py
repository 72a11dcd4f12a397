"""What became of each task in a line: of those that are learnt where they are many, and, as the panel of forgetting, of
the tasks and the text that a run watches and never learns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from selftrain.report.tables import Row, align, by_split, change, estimate, metric_name, p_value

TITLE, OVERVIEW = "Forgetting", "Overview"
FEW = 3
"""Tables of a task and split that need no overview."""
KEPT = "nll: negative log-likelihood of held-out responses in nats per token, 95 % interval over rows; less is better."
LEGEND = (
    "What the run watches and never learns: tasks of weight 0 and kept text; in brackets the 95 % interval.",
    KEPT,
    "since start: the change, and the chance p of one as large if nothing had changed.",
)
CHANCE = 0.05
"""Of advice where nothing has changed, over all lines of the table together (Bonferroni)."""


def forgetting_table(rows: Sequence[Row], watched: Collection[str] = ()) -> list[list[str]]:
    """Header and a line per watched task and split and per kept file, at the first and the last iteration; empty where
    nothing is watched."""
    return _table(rows, _groups(rows, watched))


def overview_table(rows: Sequence[Row], watched: Collection[str] = ()) -> list[list[str]]:
    """The same for what is learnt, where there are more tables than a person takes in at once; else empty."""
    groups = by_split(rows)
    learnt = [group for (task, _), group in groups.items() if task not in watched]
    return _table(rows, learnt) if len(groups) > FEW else []


def _table(rows: Sequence[Row], groups: Sequence[Sequence[Row]]) -> list[list[str]]:
    if not groups:
        return []
    ends = sorted({row["iteration"] for row in rows})
    last = [f"iteration {ends[-1]}", "since start"] if len(ends) > 1 else []
    return [["", "metric", "n", f"iteration {ends[0]}", *last], *(_cells(group, bool(last)) for group in groups)]


def overview_lines(rows: Sequence[Row], watched: Collection[str] = ()) -> list[str]:
    """The table as lines of text; none where there are few."""
    table = overview_table(rows, watched)
    return [OVERVIEW.lower(), align(table), ""] if table else []


def forgetting_lines(rows: Sequence[Row], watched: Collection[str] = ()) -> list[str]:
    """The table and the advice as lines of text; none where nothing is watched."""
    table, told = forgetting_table(rows, watched), [f"  {line}" for line in [advice(rows, watched)] if line]
    return [TITLE.lower(), align(table), "", *(f"  {line}" for line in LEGEND), *told, ""] if table else []


def advice(rows: Sequence[Row], watched: Collection[str] = ()) -> str:
    """What to do where something got worse than chance explains; empty where nothing did."""
    groups = _groups(rows, watched)
    fell = [
        f"{_name(group[-1])} ({p_value(test['p'])})"
        for group in groups
        if (test := _test(group)) and _worse(group, test["difference"]) and test["p"] < CHANCE / len(groups)
    ]
    if not fell:
        return ""
    return (
        f"forgotten since the start: {', '.join(fell)}; replay general data (learners.NAME.examples.KEY.from="
        "replay:FILE), lower optim.lr or optim.steps, start each fit from init: base, or fit an adapter (lora)"
    )


def nats(row: Row) -> str:
    """``1.234 [1.101, 1.367]``."""
    return f"{row['nll']:.3f} [{row['nll_low']:.3f}, {row['nll_high']:.3f}]"


def nats_change(row: Row, against: str) -> str:
    """``+0.031 p=0.0004``; empty where it was not tested."""
    test = (row.get(against) or {}).get("nll")
    return "" if test is None else f"{test['difference']:+.3f} {p_value(test['p'])}"


def _groups(rows: Sequence[Row], watched: Collection[str]) -> list[list[Row]]:
    """The lines of what is watched, each group in the order of iterations."""
    groups = [group for (task, _), group in by_split(rows).items() if task in watched]
    kept: dict[str, list[Row]] = {}
    for row in rows:
        if "nll" in row:
            kept.setdefault(row["task"], []).append(row)
    return [*groups, *(sorted(group, key=lambda row: row["iteration"]) for group in kept.values())]


def _cells(group: Sequence[Row], with_last: bool) -> list[str]:
    metric = _metric(group)
    first, last = group[0], group[-1]
    shown = [nats(row) if metric == "nll" else estimate(row, metric) for row in (first, last)]
    since = nats_change(last, "vs_start") if metric == "nll" else change(last, "vs_start", metric)
    unit = "nll" if metric == "nll" else f"{metric} %"
    ends = [shown[1], since or "-"] if with_last else []
    return [_name(last), unit, f"{last['n_problems']:,}", shown[0], *ends]


def _name(row: Row) -> str:
    return f"{row['task']} / {row['split']}"


def _metric(group: Sequence[Row]) -> str:
    if "nll" in group[0]:
        return "nll"
    return "pass@1" if any("pass@1" in row for row in group) else metric_name(group, "avg")


def _test(group: Sequence[Row]) -> Mapping[str, float] | None:
    return (group[-1].get("vs_start") or {}).get(_metric(group))


def _worse(group: Sequence[Row], difference: float) -> bool:
    return difference > 0 if _metric(group) == "nll" else difference < 0
