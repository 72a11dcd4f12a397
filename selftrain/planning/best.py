"""Which iteration of a run is the best, by its lines of metrics and its config as a plain tree."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from selftrain.evaluation import is_verdict


def watched_tasks(config: Mapping[str, Any]) -> frozenset[str]:
    """Tasks of weight 0, of a resolved config as a plain tree."""
    return frozenset(name for name, task in config["tasks"].items() if task.get("weight") == 0)


def best_iteration(rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> tuple[int, str] | None:
    """The iteration with the highest value on validation, and of what: ``pass@1 on val``; None without one.

    Metric and split are those of ``loop.stop``. Without it they are pass@1, or avg@n where there is none, on ``val``.
    The value is the mean over tasks that have a weight; of equals the earliest is the best.

    Args:
        rows: lines of metrics.
        config: a resolved config as a plain tree.
    """
    rule, watched = config["loop"]["stop"] or {}, watched_tasks(config)
    split = rule.get("split", "val")
    rows = [row for row in rows if row["split"] == split and is_verdict(row) and row["task"] not in watched]
    if not rows:
        return None
    metric = rule.get("metric") or ("pass@1" if "pass@1" in rows[0] else _average(rows))
    values: dict[int, list[float]] = {}
    for row in rows:
        values.setdefault(row["iteration"], []).append(row[metric])
    return max(values, key=lambda i: sum(values[i]) / len(values[i])), f"{metric} on {split}"


def _average(rows: Sequence[Mapping[str, Any]]) -> str:
    """``avg@n``, by the largest n."""
    found = {int(name.partition("@")[2]) for row in rows for name in row if re.fullmatch(r"avg@\d+", name)}
    return f"avg@{max(found, default='n')}"
