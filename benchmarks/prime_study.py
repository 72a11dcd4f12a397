"""PRIME against outcomes alone, from the same warmed-up model and problems, in as many steps: chained arithmetic.

For each seed configs/prime_arithmetic.yaml and configs/rloo_arithmetic.yaml, which differ in the process reward alone:
accuracy on the test problems by iteration, and their difference at the end, paired by seed. What is drawn is not the
same: once the policies differ, so do the problems that are solved neither too often nor too seldom; how many samples
each arm drew and how many problems it learnt from is told.

With ``--frozen`` a third run for each seed rewards tokens by a process reward model that was fitted to samples of the
warmed-up model, in as many steps, and learns no more: how well either tells right responses from wrong ones on samples
it has not seen, from the second iteration on, as in the first the one that learns is still its own reference.

    python benchmarks/prime_study.py --seeds 0,1,2,3,4 [--frozen 0,1,2] [key=value ...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import draw, save

from selftrain import records
from selftrain.cli import main as cli
from selftrain.intervals import mean_interval, paired_test
from selftrain.report.chart import Series, line_chart

CONFIGS = Path(__file__).parent.parent / "configs"
ARMS = {"prime": "prime_arithmetic", "outcomes alone": "rloo_arithmetic"}
CURVES = {"avg@4": "sampled", "pass@1": "greedy"}
"""Metrics, and what their pictures are called by."""
TOLD = ("auc", "pair_accuracy", "last_least")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2, 3, 4])
    parser.add_argument("--frozen", type=numbers, default=[], help="seeds with a third run")
    parser.add_argument("--folder", type=Path, help="where runs stay; finished ones are not done again")
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = asked.folder or Path(name)
        rows = [study(folder, seed, seed in asked.frozen, asked.overrides) for seed in asked.seeds]
    save("prime", {"overrides": asked.overrides, "seeds": rows, "together": together(rows)})
    if len(rows) > 1:
        for name, told in CURVES.items():
            draw(f"prime_{told}", line_chart([series(rows, arm, name) for arm in ARMS], f"{name} on the test problems"))


def numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def study(folder: Path, seed: int, frozen: bool, overrides: Sequence[str]) -> dict[str, Any]:
    runs = {arm: run(folder, config, f"{config}-{seed}", seed, overrides) for arm, config in ARMS.items()}
    if frozen:
        fitted = run(folder, ARMS["prime"], f"fitted-{seed}", seed, [*overrides, "learners.policy=null"])
        last = max((folder / f"fitted-{seed}").glob("iteration_*/prm/checkpoint"))
        own = ["learners.prm=null", f"reward.sources.prm.model={last}"]
        runs |= {"frozen": run(folder, ARMS["prime"], f"frozen-{seed}", seed, [*overrides, *own]), "fitted": fitted}
    return {"seed": seed, **runs}


def run(folder: Path, config: str, name: str, seed: int, overrides: Sequence[str]) -> dict[str, Any]:
    given = [f"run.folder={folder}", f"run.name={name}", f"run.seed={seed}", "track.live=none"]
    began = time.monotonic()
    assert cli(["run", str(CONFIGS / f"{config}.yaml"), *given, *overrides]) == 0
    found = {"seconds": round(time.monotonic() - began, 1), **curves(folder / name)}
    print(json.dumps({name: found["seconds"], **{key: found[key][-1] for key in CURVES}}), flush=True)
    return found


def curves(run: Path) -> dict[str, Any]:
    """By iteration: the metrics of the test problems, and what the monitors say of the process rewards."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    tested = [row for row in rows if row["split"] == "test"]
    every = {name: [[row["iteration"], row[name]] for row in tested] for name in CURVES}
    files = sorted(run.glob("iteration_*/monitors.json"))
    looks = [json.loads(file.read_text()) for file in files]
    for name in TOLD:
        every[name] = [
            [one["iteration"], one["sources"]["prm"][name]]
            for one in looks
            if one["sources"].get("prm", {}).get(name) is not None
        ]
    return every | drawn(run)


def drawn(run: Path) -> dict[str, int]:
    """Over all iterations: samples drawn, and problems whose samples were learnt from."""
    samples = accepted = 0
    for folder in run.glob("iteration_*"):
        samples += sum(len(records.column(part, "id")) for part in records.parts(folder / "samples"))
        learnt = [set(records.column(part, "problem_id")) for part in folder.glob("examples/*/*.parquet")]
        accepted += len(set().union(*learnt))
    return {"samples": samples, "problems learnt from": accepted}


def series(rows: Sequence[dict[str, Any]], arm: str, name: str) -> Series:
    """A metric by iteration: its mean over seeds, with the interval of the seeds."""
    by_iteration: dict[int, list[float]] = {}
    for row in rows:
        for iteration, value in row[arm][name]:
            by_iteration.setdefault(iteration, []).append(value)
    points = tuple((number, *mean_interval(values)) for number, values in sorted(by_iteration.items()))
    return Series(arm, points)


def together(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """At the end, over seeds: each with the interval of the seeds, and their paired difference."""
    found: dict[str, Any] = {}
    for name in CURVES:
        ends = {arm: [row[arm][name][-1][1] for row in rows] for arm in ARMS}
        by_seed = [{str(row["seed"]): end for row, end in zip(rows, ends[arm], strict=True)} for arm in ARMS]
        test = paired_test(by_seed[1], by_seed[0])._asdict() if len(rows) > 1 else {}
        difference = {key: float(f"{value:.4g}") for key, value in test.items()}
        found[name] = {arm: over(values) for arm, values in ends.items()} | {"difference": difference}
    for name in ("samples", "problems learnt from"):
        found[name] = {arm: [row[arm][name] for row in rows] for arm in ARMS}
    compared = [row for row in rows if "frozen" in row]
    for name in TOLD:
        curves = {
            told: [[value for number, value in row[arm][name] if number > 1] for row in compared]
            for told, arm in (("online", "prime"), ("frozen", "frozen"))
        }
        if compared and all(map(all_told, curves.values())):
            found[name] = {told: by_thirds(own) for told, own in curves.items()}
    return found


def all_told(curves: Sequence[Sequence[float]]) -> bool:
    """Whether every seed has a number: where nothing was right there is none."""
    return all(map(len, curves))


def by_thirds(curves: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Means over iterations of one curve for each seed: all of them, the first third and the last."""
    third = max(1, len(curves[0]) // 3)
    cuts = {"all": slice(None), "first third": slice(third), "last third": slice(-third, None)}
    return {name: over([mean(curve[cut]) for curve in curves]) for name, cut in cuts.items()}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def over(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in mean_interval(list(values))] if len(values) > 1 else [round(values[0], 4)]


if __name__ == "__main__":
    main()
