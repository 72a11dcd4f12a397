"""What `selftrain prm` prints: tables of how scores of steps compare with their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selftrain.report.tables import align

PLACES = 12
"""Places of a step that are shown; the JSON beside has all."""
Result = Mapping[str, Any]


def prm_lines(result: Result) -> list[str]:
    """Lines of text from what `selftrain.prm_evaluation.whole.evaluation` returns, and where its data comes from."""
    kinds = f"{result['n_erroneous']:,} with a wrong step, {result['n_correct']:,} without"
    return [
        f"{result['data']}: {result['solutions']:,} solutions to {result['problems']:,} problems, {kinds}",
        _threshold(result),
        "",
        *_protocol(result),
        *_finding(result["finding"]),
        *_calibration(result),
        *_positions(result),
    ]


def _threshold(result: Result) -> str:
    if not result["n_validation"]:
        return f"threshold {result['threshold']:.4g}, as given"
    where = result["validation"] or "a fifth of its problems, which are not counted above"
    return f"threshold {result['threshold']:.4g}, of the best F1 on {result['n_validation']:,} solutions: {where}"


def _protocol(result: Result) -> list[str]:
    named = {"F1": "f1", "right where a step is wrong": "erroneous", "right where none is": "correct"}
    rows = [[name, _share(result[key])] for name, key in named.items() if result[key] is not None]
    return [align([["first wrong step (ProcessBench)", "% [95 %]"], *rows]), ""]


def _finding(finding: Result) -> list[str]:
    if not finding:
        return []
    against = finding["against"]
    ways = [way for way in finding if way != "against"]
    rows = [[way, _share(finding[way]), _difference(against.get(way))] for way in ways]
    told = (
        "where a step is wrong, which one: over problems; 'threshold' may say none, 'position' is the place most often"
    )
    return [
        align([["first wrong step by", "% [95 %]", f"{ways[0]} against it"], *rows]),
        f"  {told} wrong on validation",
        "",
    ]


def _calibration(result: Result) -> list[str]:
    told = result["calibration"]
    rows = [
        [
            f"{bin['low']:.1f}-{bin['high']:.1f}",
            f"{bin['n']:,}",
            f"{100 * bin['score']:.1f}",
            f"{100 * bin['right']:.1f}",
        ]
        for bin in told["bins"]
    ]
    how = "s(score), as scores are log-odds" if result["scores"] == "log-odds" else "the scores"
    auc = "" if result["step_auc"] is None else f", AUC of right against wrong steps {result['step_auc']:.3f}"
    return [
        f"chances to be right ({how}) of {told['n']:,} labelled steps: expected calibration error {told['ece']:.3f}, "
        f"Brier {told['brier']:.3f}{auc}",
        align([["chance", "steps", "mean %", "right %"], *rows]),
        "",
    ]


def _positions(result: Result) -> list[str]:
    heads = ["steps", "wrong %", "accuracy %", "AUC"]
    lines = []
    for key, name in (("from_start", "place from the start"), ("from_end", "place from the end")):
        rows = [[str(row["place"] + 1), *_place(row)] for row in result[key][:PLACES]]
        lines += [align([[name, *heads], *rows]), ""]
    return lines[:-1]


def _place(row: Result) -> list[str]:
    auc = "-" if row["auc"] is None else f"{row['auc']:.3f}"
    return [f"{row['n']:,}", f"{100 * row['wrong']:.1f}", f"{100 * row['accuracy']:.1f}", auc]


def _share(estimate: Sequence[float]) -> str:
    value, low, high = (100 * one for one in estimate)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _difference(test: Result | None) -> str:
    if test is None:
        return ""
    return f"{100 * test['difference']:+.1f} [{100 * test['low']:+.1f}, {100 * test['high']:+.1f}]"
