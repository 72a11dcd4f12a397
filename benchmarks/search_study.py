"""Searches and choices compared at equal total tokens and at equal time: chained arithmetic.

For each seed one run of configs/search_methods.yaml: a policy that is not trained on, and three models that value what
it writes. Then one evaluation of that policy with `selftrain evaluate`: samples of each test problem, from which the
majority, the best by each model and weighted votes are taken (evaluate.best_of), and searches of several sizes under
the process value model (evaluate.search). All draw with the same weights, problems and temperature; what is greedy in
a search, as the roll-outs of MCTS*, is so by its definition.

A method's cost for one problem is what the policy draws, dropped proposals and roll-outs included, and what models
read to value it: each token of a response once (twice for the implicit reward, which is of two models), prompts not.
Its time is that of its part of the evaluation, for all problems together.

The result goes to benchmarks/results/search_methods.json, its tables into docs/search_study.md.

    python benchmarks/search_study.py --seeds 0,1,2 --folder FOLDER [--evaluate key=value] [key=value ...]
    python benchmarks/search_study.py --tables
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import RESULTS, save
from search_comparison import MAJORITY, Curves, Point, Values, listed, tables, together

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.best_of import Weighting, best_of_n, curve_sizes, weighted_best_of_n
from selftrain.cli import main as cli
from selftrain.evaluation import majority_at_k
from selftrain.intervals import mean
from selftrain.monitors.scores import auc
from selftrain.stages.search_evaluation import evaluated_parts
from selftrain.stages.tree_costs import counted

NAME = "search_methods"
CONFIG = Path(__file__).parent.parent / "configs" / f"{NAME}.yaml"
PAGE = CONFIG.parent.parent / "docs" / "search_study.md"
BEGIN, END = "<!-- tables of benchmarks/search_study.py -->", "<!-- end of tables -->"
SAMPLES = 32
VOTE: Weighting = "sum"
"""Values lie in [0, 1]."""
MODELS = {"outcome": 1, "process": 1, "implicit": 2}
"""By source: how many models read a response."""


def searches() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """By name in the config: the method, its size, and the strategy."""
    beams = [(2, 2), (4, 2), (4, 4), (8, 4)]
    found: dict[str, tuple[str, str, dict[str, Any]]] = {}
    for width, branch in beams:
        options = {"kind": "beam", "width": width, "branch": branch}
        found[f"beam_{width}_{branch}"] = ("beam", f"{width} x {branch}", options)
    for groups in (2, 4, 8):
        options = {"kind": "diverse_beam", "groups": groups, "branch": 4}
        found[f"dvts_{groups}"] = ("diverse beam", f"{groups} x 4", options)
    for iterations in (2, 4, 8, 16, 32):
        options = {"kind": "mcts_star", "preset": "evaluate", "iterations": iterations}
        found[f"mcts_{iterations}"] = ("MCTS*", f"{iterations} iterations", options)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, help="where runs stay; finished ones are not done again")
    parser.add_argument("--evaluate", action="append", default=[], metavar="key=value", help="of the evaluation alone")
    parser.add_argument("--tables", action="store_true", help="put the tables of the last result into the page alone")
    parser.add_argument("overrides", nargs="*", help="of the runs that fit the models")
    asked = parser.parse_args()
    if asked.tables:
        write_tables(tables(json.loads((RESULTS / f"{NAME}.json").read_text())))
        return
    if asked.folder is None:
        parser.error("--folder: say where runs stay")
    warm()
    found = {seed: study(asked.folder.absolute(), seed, asked.overrides, asked.evaluate) for seed in asked.seeds}
    rows = [{"seed": seed, **told, "methods": listed(curves)} for seed, (curves, told) in found.items()]
    given = {"overrides": asked.overrides, "evaluate": asked.evaluate}
    curves = {seed: one for seed, (one, _) in found.items()}
    result = {**given, "together": together(curves), "seeds": rows}
    save(NAME, result)
    write_tables(tables(result))


def warm() -> None:
    """Load what the first method would otherwise be charged with loading."""
    import selftrain.sampling.transformers
    import selftrain.training.paths
    import selftrain.training.scoring  # noqa: F401


def study(folder: Path, seed: int, overrides: Sequence[str], evaluated: Sequence[str]) -> tuple[Curves, dict[str, Any]]:
    fitted, name = folder / f"fitted-{seed}", f"fitted-{seed}"
    plain = [f"run.seed={seed}", "track.live=none"]
    assert cli(["run", str(CONFIG), f"run.folder={folder}", f"run.name={name}", *plain, *overrides]) == 0
    output, policy = folder / f"methods-{seed}", fitted / "warmup" / "policy" / "checkpoint"
    command = ["evaluate", str(policy), "--task", "arithmetic", "--split", "test", f"--output={output}"]
    assert cli([*command, *plain, *settings(fitted), *evaluated]) == 0
    files = output / "iteration_0000" / "evaluation"
    return measured(output), {
        "fitting": spent_fitting(fitted),
        "ranking": {name: ranked(files, name) for name in MODELS},
    }


def settings(fitted: Path) -> list[str]:
    """What is asked of the evaluation."""
    models = {name: fitted / "iteration_0001" / name / "checkpoint" for name in ("value", "outcome", "prm")}
    reference = fitted / "warmup" / "policy" / "checkpoint"
    sources = {
        "outcome": f"{{kind: value_head, model: {models['outcome']}, read: last}}",
        "process": f"{{kind: value_head, model: {models['value']}, separator: ' '}}",
        "implicit": f"{{kind: implicit_prm, model: {models['prm']}, reference: {reference}, beta: 0.05}}",
    }
    rest = f"value: {models['value']}, separator: ' ', lanes: 128, budget: {{depth: 8, step_tokens: 16}}"
    return [
        f"evaluate.n={SAMPLES}",
        "evaluate.greedy=false",
        f"evaluate.vote={VOTE}",
        "evaluate.sampling={temperature: 1.0, max_tokens: 80}",
        "evaluate.sampler={kind: transformers, batch_size: 256}",
        *(f"evaluate.best_of.{name}={source}" for name, source in sources.items()),
        *(
            f"evaluate.search.{name}={{strategy: {json.dumps(strategy)}, {rest}}}"
            for name, (_, _, strategy) in searches().items()
        ),
    ]


def measured(output: Path) -> Curves:
    """The curves of all methods in an evaluation."""
    files = output / "iteration_0000" / "evaluation"
    seconds = clock(files)
    return {**chosen(files, seconds), **searched(RunDir(output), files, seconds)}


def clock(files: Path) -> dict[str, float]:
    """Seconds of each part of an evaluation: files are written one after another, each when its part is done."""
    samples = files / "arithmetic-test.parquet"
    answers = {path.parent.name: path for path in files.glob("search/*/arithmetic-test.parquet")}
    scores = {name: files / f"arithmetic-test-{name}.parquet" for name in MODELS}
    ended = {name: path.stat().st_mtime for name, path in {"samples": samples, **answers, **scores}.items()}
    names = sorted(ended, key=ended.__getitem__)
    starts = [(files / "begun.json").stat().st_mtime, *(ended[name] for name in names)]
    return {name: ended[name] - start for name, start in zip(names, starts, strict=False)}


def chosen(files: Path, seconds: Mapping[str, float]) -> Curves:
    """What is chosen among samples, by problem as the metrics of the evaluation have it over all."""
    path = files / "arithmetic-test.parquet"
    columns = ("id", "problem_id", "index", "response_ids", "status", "answer")
    rows = sorted(zip(*records.columns(path, *columns), strict=True), key=lambda row: (row[1], row[2]))
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(row[1], []).append(row)
    right = {key: [row[4] == "right" for row in own] for key, own in groups.items()}
    answers = {key: [row[5] for row in own] for key, own in groups.items()}
    tokens, largest = mean([len(row[3]) for row in rows]), len(next(iter(groups.values())))

    def curve(source: str | None, of: Callable[[str, int], float], least: int = 1) -> list[Point]:
        read = MODELS[source] if source else 0
        each = (seconds["samples"] + (seconds[source] if source else 0.0)) / len(rows)
        return [
            Point(str(n), n * tokens, read * n * tokens, n * each, {key: of(key, n) for key in groups})
            for n in curve_sizes(largest)
            if n >= least
        ]

    found = {MAJORITY: curve(None, lambda key, n: majority_at_k(answers[key], right[key], n))}
    for name in MODELS:
        scores = files / f"arithmetic-test-{name}.parquet"
        given = dict(zip(*records.columns(scores, "sample_id", "reward"), strict=True))
        told = {key: [given[row[0]] for row in own] for key, own in groups.items()}
        best = curve(name, lambda key, n, told=told: best_of_n(told[key], right[key], n), 2)  # type: ignore[misc]
        found[f"best of n, {name}"] = best
        check(files, f"bon_{name}@{largest}", best[-1].right)
        if name != "implicit":  # A log-ratio may be negative, and is no weight of a vote.
            found[f"weighted vote, {name}"] = curve(
                name,
                lambda key, n, told=told: weighted_best_of_n(told[key], answers[key], right[key], n, VOTE),  # type: ignore[misc]
                2,
            )
    check(files, f"maj@{largest}", found[MAJORITY][-1].right)
    return found


def ranked(files: Path, source: str) -> float:
    """Area under the curve of a model among the samples of a problem: the mean over those with right and wrong ones."""
    rows = zip(*records.columns(files / "arithmetic-test.parquet", "id", "problem_id", "status"), strict=True)
    scores = files / f"arithmetic-test-{source}.parquet"
    given = dict(zip(*records.columns(scores, "sample_id", "reward"), strict=True))
    sides: dict[str, dict[bool, list[float]]] = {}
    for key, problem, status in rows:
        sides.setdefault(problem, {True: [], False: []})[status == "right"].append(given[key])
    return round(mean([auc(own[True], own[False]) for own in sides.values() if own[True] and own[False]]), 4)


def searched(run: RunDir, files: Path, seconds: Mapping[str, float]) -> Curves:
    found: Curves = {}
    problems = sorted(set(records.column(files / "arithmetic-test.parquet", "problem_id")))
    for name, (method, size, _) in searches().items():
        path = files / "search" / name / "arithmetic-test.parquet"
        status = dict(zip(*records.columns(path, "problem_id", "status"), strict=True))
        right = {key: float(status.get(key) == "right") for key in problems}
        check(files, f"search_{name}", right)
        spent = counted(part.path for part in evaluated_parts(run, 0, name))["spent"]
        drawn, read = (spent[kind] / len(problems) for kind in ("policy_tokens", "value_tokens"))
        found.setdefault(method, []).append(Point(size, drawn, read, seconds[name] / len(problems), right))
    return found


def check(files: Path, metric: str, values: Values) -> None:
    """That the mean is what the evaluation reports."""
    [row] = json.loads(files.with_name("metrics.json").read_text())
    assert math.isclose(row[metric], mean(list(values.values())), abs_tol=1e-5), metric


def spent_fitting(fitted: Path) -> dict[str, Any]:
    """What the policy drew for the models to learn from."""
    folder = fitted / "iteration_0001"
    trees = counted(sorted((folder / "trees").glob("*.parquet")))["spent"]
    drafts = records.parts(folder / "samples", "draft-")
    drawn = sum(len(ids) for part in drafts for ids in records.column(part, "response_ids"))
    return {"tokens of trees": trees["policy_tokens"], "tokens of samples": drawn}


def write_tables(lines: Sequence[str]) -> None:
    """Into their place on the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{chr(10).join(lines)}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
