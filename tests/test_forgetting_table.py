"""The small tables at the end of a report: what was watched, the advice, and the overview of many tasks."""

from __future__ import annotations

from typing import Any

import pytest

from selftrain.planning.best import best_iteration
from selftrain.report.forgetting import advice, forgetting_lines, overview_lines


def line(iteration: int, task: str, metric: str, value: float, *test: float) -> dict[str, Any]:
    split = "kept" if metric == "nll" else "test"
    row: dict[str, Any] = {"iteration": iteration, "task": task, "split": split, "n_problems": 64}
    row |= {metric: value, f"{metric}_low": value - 0.1, f"{metric}_high": value + 0.1}
    return row | ({"vs_start": {metric: dict(zip(("difference", "p"), test, strict=True))}} if test else {})


@pytest.mark.parametrize(
    ("task", "kept", "told"),
    [
        ((-0.2, 0.001), (0.5, 0.0001), ["mmlu / test (p=0.001), chat / kept (p=0.0001)"]),
        ((0.2, 0.001), (0.5, 0.0001), ["forgotten since the start: chat / kept (p=0.0001);"]),
        ((0.2, 0.001), (-0.5, 0.0001), []),
        ((-0.2, 0.03), (0.5, 0.03), []),  # Two lines: one of them at p=0.03 is to be expected too often.
    ],
)
def test_advice_is_given_where_something_got_worse(
    task: tuple[float, float], kept: tuple[float, float], told: list[str]
) -> None:
    rows = [line(0, "mmlu", "pass@1", 0.6), line(0, "chat", "nll", 2.0), line(0, "math", "pass@1", 0.2)]
    rows += [line(1, "mmlu", "pass@1", 0.6 + task[0], *task), line(1, "chat", "nll", 2.0 + kept[0], *kept)]
    rows += [line(1, "math", "pass@1", 0.1, -0.1, 1e-6)]
    said = advice(rows, {"mmlu"})
    assert bool(said) == bool(told) and all(part in said for part in told)
    assert "math" not in "\n".join(forgetting_lines(rows, {"mmlu"}))
    assert forgetting_lines([row for row in rows if row["task"] == "math"]) == []


def test_many_tables_have_an_overview() -> None:
    def lines(tasks: str) -> list[str]:
        first = [line(0, task, "pass@1", 0.25) for task in tasks]
        return overview_lines([*first, *(line(1, task, "pass@1", 0.5, 0.25, 0.01) for task in tasks)], {"b"})

    assert lines("abc") == []
    table = "\n".join(lines("abcd")).splitlines()
    cells = "/ test pass@1 % 64 25.0 [15.0, 35.0] 50.0 [40.0, 60.0] +25.0 p=0.01"
    assert [" ".join(row.split()) for row in table[3:]] == [f"{task} {cells}" for task in "acd"]


def test_the_best_checkpoint_is_not_chosen_by_a_watched_task() -> None:
    rows = [
        {"iteration": i, "task": task, "split": "val", "pass@1": value}
        for task, values in (("a", (0.1, 0.2)), ("b", (0.9, 0.0)))
        for i, value in enumerate(values)
    ]
    config: dict[str, Any] = {"tasks": {"a": {}, "b": {"weight": 1.0}}, "loop": {"stop": None}}
    assert best_iteration(rows, config) == (0, "pass@1 on val")
    config["tasks"]["b"]["weight"] = 0.0
    assert best_iteration(rows, config) == (1, "pass@1 on val")
