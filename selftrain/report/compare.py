"""Two runs side by side: what they solve, and what they make of kept text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.evaluation import Outcome, compare, is_verdict
from selftrain.files import read_json
from selftrain.intervals import ratio_test
from selftrain.report.forgetting import KEPT, nats
from selftrain.report.run import rows_of
from selftrain.report.tables import Row, align, by_split, compare_table, p_value
from selftrain.stages.evaluate import read_outcomes
from selftrain.stages.kept import SPLIT

UNEQUAL = "other rows"
UNEQUAL_LEGEND = f"{UNEQUAL}: the two read different rows, or by different tokens, so no change can be told."


def compare_runs(a: RunDir, b: RunDir) -> str:
    """The last iterations of two runs, with paired tests where both evaluated the same problems or rows.

    Verdicts of different verifiers are shown side by side, but no change is told: it may be all the judge's.
    """
    rows_a, rows_b = rows_of(a), rows_of(b)
    kept = _kept_text(a, b, rows_a, rows_b)
    if kept and not by_split(rows_a).keys() & by_split(rows_b).keys():
        return kept
    names = (a.root.name, b.root.name)
    pairs = _pairs(a, b, _last(rows_a), _last(rows_b))
    unlike = {place: sides for place, pair in pairs.items() if len(set(sides := tuple(map(_judges, pair)))) > 1}
    tests = _tests({place: pair for place, pair in pairs.items() if place not in unlike})
    text = compare_table(rows_a, rows_b, names=names, tests=tests, unlike=unlike)
    return "\n\n".join(filter(None, [text, kept]))


def _pairs(a: RunDir, b: RunDir, rows_a: Sequence[Row], rows_b: Sequence[Row]) -> dict[str, tuple[Path, Path]]:
    """The files of judged answers of two runs, by the ``task/split`` both have."""
    others = {(row["task"], row["split"]): row for row in rows_b}
    return {
        "/".join(key): (_judged(a, row), _judged(b, others[key]))
        for row in rows_a
        if (key := (row["task"], row["split"])) in others
    }


def _tests(pairs: Mapping[str, tuple[Path, Path]]) -> dict[str, Any]:
    tests: dict[str, Any] = {}
    for place, pair in pairs.items():
        before, after = (read_outcomes(path, {}) for path in pair)
        if {o.problem_id for o in before[0] + before[1]} == {o.problem_id for o in after[0] + after[1]}:
            tests[place] = compare(before, after)
    return tests


def _judges(path: Path) -> str:
    """Who judged the answers of a file; the digest in its label stands for code, options and bounds."""
    return ", ".join(sorted(set(records.column(path, "verifier"))))


def _judged(run: RunDir, row: Mapping[str, Any]) -> Path:
    return run.iteration(row["iteration"]) / "evaluation" / f"{row['task']}-{row['split']}.parquet"


def outcomes(run: RunDir, row: Mapping[str, Any]) -> tuple[list[Outcome], list[Outcome]]:
    """The judged answers behind a line of metrics, greedy and sampled."""
    return read_outcomes(_judged(run, row), {})


def _last(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    last = max((row["iteration"] for row in rows), default=0)
    return [row for row in rows if row["iteration"] == last and is_verdict(row)]


def _kept_text(a: RunDir, b: RunDir, rows_a: Sequence[Row], rows_b: Sequence[Row]) -> str:
    """The files of kept text that both runs measured, each at its last iteration; empty without one."""
    names, (of_a, of_b) = (a.root.name, b.root.name), map(_kept, (rows_a, rows_b))
    lines = [
        [f"{name} / {SPLIT}", nats(of_a[name]), nats(of_b[name]), _change(a, b, of_a[name], of_b[name])]
        for name in of_a
        if name in of_b
    ]
    if not lines:
        return ""
    unequal = [UNEQUAL_LEGEND] if any(line[-1] == UNEQUAL for line in lines) else []
    return "\n".join(["kept text", align([["nll", *names, f"{names[1]} - {names[0]}"], *lines]), "", KEPT, *unequal])


def _kept(rows: Sequence[Row]) -> dict[str, Row]:
    """The last line of each file, by its name."""
    return {row["task"]: row for row in sorted(rows, key=lambda row: row["iteration"]) if "nll" in row}


def _change(a: RunDir, b: RunDir, row_a: Row, row_b: Row) -> str:
    """``+0.031 p=0.0004``: nats per token, from a paired test by row."""
    before, after = (
        read_json(run.iteration(row["iteration"]) / "evaluation" / f"{row['task']}-{SPLIT}.json")
        for run, row in ((a, row_a), (b, row_b))
    )
    if before["rows"] != after["rows"]:
        return UNEQUAL
    test = ratio_test([y - x for x, y in zip(before["nll"], after["nll"], strict=True)], after["tokens"])
    return f"{test.difference:+.3f} {p_value(test.p)}"
