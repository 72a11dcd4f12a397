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
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from common import RESULTS, save

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.best_of import Weighting, best_of_n, curve_sizes, weighted_best_of_n
from selftrain.cli import main as cli
from selftrain.evaluation import majority_at_k
from selftrain.intervals import mean, mean_interval, paired_test
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
LEVELS = (128, 256, 512, 1024)
"""Total tokens for one problem at which methods are compared."""
MAJORITY = "self-consistency"

Values = dict[str, float]
"""By problem, the chance to be right."""


class Point(NamedTuple):
    """A method at one size."""

    size: str
    policy_tokens: float
    value_tokens: float
    seconds: float
    """All of them for one problem."""
    right: Values

    @property
    def tokens(self) -> float:
        return self.policy_tokens + self.value_tokens


Curves = dict[str, list[Point]]
"""By method, from small to large."""
Cost = Callable[[Point], float]


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
    return measured(output), {"fitting": spent_fitting(fitted)}


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


def listed(curves: Curves) -> dict[str, list[dict[str, Any]]]:
    """Curves of one seed with their intervals over problems."""
    return {
        method: [
            {
                "size": one.size,
                "policy_tokens": round(one.policy_tokens, 1),
                "value_tokens": round(one.value_tokens, 1),
                "seconds": round(one.seconds, 5),
                "right": [round(value, 4) for value in mean_interval(list(one.right.values()))],
            }
            for one in points
        ]
        for method, points in curves.items()
    }


def together(seeds: Mapping[int, Curves]) -> dict[str, Any]:
    """Over seeds: the curves, and all methods at equal tokens and at equal time, against self-consistency."""
    every = list(seeds.values())
    pooled = {method: [_pooled([one[method][i] for one in every]) for i in range(len(points))]
              for method, points in every[0].items()}  # fmt: skip
    own = pooled[MAJORITY]
    longest = math.log2(own[-1].seconds)
    times = [2.0 ** (longest - steps) for steps in (3, 2, 1, 0)]
    return {
        "curves": listed(pooled),
        "equal tokens": dict(compared(seeds, LEVELS, lambda point: point.tokens)),
        "equal time": dict(compared(seeds, times, lambda point: point.seconds)),
    }


def _pooled(points: Sequence[Point]) -> Point:
    """One size of a method over seeds, whose problems are the same: the mean of each problem."""
    right = {key: mean([point.right[key] for point in points]) for key in points[0].right}
    drawn, read = mean([one.policy_tokens for one in points]), mean([one.value_tokens for one in points])
    return Point(points[0].size, drawn, read, mean([one.seconds for one in points]), right)


def compared(
    seeds: Mapping[int, Curves], levels: Sequence[float], cost: Cost
) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """By level and method: accuracy and its interval over problems, the paired difference from self-consistency, and
    that of each seed."""
    for level in levels:
        at = {seed: {name: at_cost(points, level, cost) for name, points in one.items()} for seed, one in seeds.items()}
        found: dict[str, dict[str, Any]] = {}
        for method in next(iter(at.values())):
            values = [one[method] for one in at.values()]
            plain = [one[MAJORITY] for one in at.values()]
            if any(value is None for value in (*values, *plain)):
                continue
            mine, theirs = _over(values), _over(plain)
            found[method] = {"right": [round(value, 4) for value in mean_interval(list(mine.values()))]}
            if method != MAJORITY:
                test = paired_test(theirs, mine)
                found[method] |= {key: float(f"{value:.4g}") for key, value in test._asdict().items()}
                found[method]["by seed"] = [
                    round(mean(list(a.values())) - mean(list(b.values())), 4)
                    for a, b in zip(values, plain, strict=True)
                    if a is not None and b is not None
                ]
        yield f"{level:.4g}", found


def _over(seeds: Sequence[Values | None]) -> Values:
    known = [one for one in seeds if one is not None]
    return {key: mean([one[key] for one in known]) for key in known[0]}


def at_cost(points: Sequence[Point], level: float, cost: Cost) -> Values | None:
    """What a method comes to at a cost, between the two sizes around it by the logarithm of theirs; None outside."""
    ordered = sorted(points, key=cost)
    for low, high in pairwise(ordered):
        if cost(low) <= level <= cost(high):
            share = math.log(level / cost(low)) / math.log(cost(high) / cost(low)) if cost(high) > cost(low) else 0.0
            return {key: (1 - share) * value + share * high.right[key] for key, value in low.right.items()}
    return None


def tables(result: Mapping[str, Any]) -> list[str]:
    """As the page holds them, in Markdown."""
    whole, lines = result["together"], list[str]()
    for what, unit in (("equal tokens", "tokens"), ("equal time", "s")):
        levels = whole[what]
        methods = [name for name in whole["curves"] if any(name in own for own in levels.values())]
        lines += [f"| {what} | {' | '.join(f'{level} {unit}' for level in levels)} |", "|---" * (len(levels) + 1) + "|"]
        lines += [f"| {name} | {' | '.join(_cell(own.get(name)) for own in levels.values())} |" for name in methods]
        lines.append("")
    lines += ["| method | size | policy tokens | value tokens | ms | right % |", "|---|---|---|---|---|---|"]
    for method, points in whole["curves"].items():
        for one in points:
            right, low, high = (100 * value for value in one["right"])
            lines.append(
                f"| {method} | {one['size']} | {one['policy_tokens']:,.0f} | {one['value_tokens']:,.0f} | "
                f"{1000 * one['seconds']:.1f} | {right:.1f} [{low:.1f}, {high:.1f}] |"
            )
    return lines


def write_tables(lines: Sequence[str]) -> None:
    """Into their place on the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{chr(10).join(lines)}\n\n{END}{rest.partition(END)[2]}")


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    right = f"{100 * found['right'][0]:.1f}"
    if "difference" not in found:
        return right
    return f"{right} ({100 * found['difference']:+.1f} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}])"


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
