"""What a run with a budget has spent of it, iteration by iteration, and why it stopped."""

from __future__ import annotations

from collections.abc import Mapping

from selftrain.artifacts import RunDir
from selftrain.files import read_json
from selftrain.report.tables import align
from selftrain.spending import note
from selftrain.spending.seconds import seconds
from selftrain.spending.tokens import noted

COLUMNS = ("grow", "improve", "evaluate")
"""Stages are summed up by how their names begin; others stand under ``other``."""


def budget_lines(run: RunDir) -> list[str]:
    """Nothing of a run without a budget, or one that has not ended yet."""
    path = run.root / "budget.json"
    if not path.exists():
        return []
    ended = read_json(path)
    in_tokens = ended["unit"] == "tokens"
    numbers = [number for number in run.iterations() if (run.iteration(number) / "evaluate.done").exists()]
    last = max(numbers, default=-1)
    took = seconds(run)
    body, sum_so_far = [], 0.0
    for number in range(last + 1):
        own = noted(run, number) if in_tokens else _of(took, number)
        sum_so_far += sum(own.values())
        samples = note.samples_limit(run, number)
        cells = [_shown(value, in_tokens) for value in _columns(own)]
        body.append([str(number), "-" if samples is None else str(samples), *cells, _shown(sum_so_far, in_tokens)])
    what = "tokens" if in_tokens else "seconds"
    head = ["iteration", "samples per problem", *COLUMNS, "other", "so far"]
    return [f"budget, in {what}", align([head, *body]), f"  stopped: {ended['why']}", ""]


def _of(took: Mapping[tuple[int, str], float], number: int) -> dict[str, float]:
    return {stage: own for (iteration, stage), own in took.items() if iteration == number}


def _columns(own: Mapping[str, float]) -> list[float]:
    found = [sum(value for stage, value in own.items() if stage.startswith(name)) for name in COLUMNS]
    return [*found, sum(own.values()) - sum(found)]


def _shown(value: float, in_tokens: bool) -> str:
    return f"{value:,.0f}" if in_tokens or value >= 10 else f"{value:.2g}"
