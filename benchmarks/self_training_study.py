"""ReST-MCTS* against ReST-EM and iterative RPO: two rounds each on chained arithmetic, from the same warmed-up model,
with as many generated tokens and as many optimizer steps of the policy.

For each seed configs/rest_mcts_arithmetic.yaml comes first. What its policy drew in a round, dropped proposals and
roll-outs included, divided by what the samples of a problem cost the others (``n`` responses as long as those that the
start wrote for the control), is the number of problems that configs/quickstart.yaml and
configs/iterative_rpo_arithmetic.yaml ask in a round. That their tokens are within 5 % of it, in every round, is
checked. What the value model reads is told beside it and given to nobody. ReST-EM fits the start anew in every round,
the search and iterative RPO go on with what they have; what that alone does is told by a ReST-EM that goes on too. The
control fits the start to its worked solutions alone, for the steps of two rounds.

    python benchmarks/self_training_study.py --seeds 0,1,2 [--folder FOLDER] [key=value ...]

It ends with the tables of docs/self_training_study.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from common import save

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.cli import main as cli
from selftrain.config import load_config
from selftrain.evaluation import Outcome, accuracy_by_problem, tested
from selftrain.files import read_json
from selftrain.intervals import mean, mean_interval
from selftrain.report.compare import outcomes
from selftrain.report.tables import p_value

CONFIGS = Path(__file__).parent.parent / "configs"
ROUNDS, NEAR = 2, 0.05
SEARCH, EM, CONTINUED, RPO, CONTROL = "ReST-MCTS*", "ReST-EM", "ReST-EM, continued", "iterative RPO", "control"


class Arm(NamedTuple):
    config: str
    run: str
    """How the names of its runs begin."""
    settings: tuple[str, ...] = ()


SAMPLED = {
    EM: Arm("quickstart", "quickstart"),
    CONTINUED: Arm("quickstart", "continued", ("learners.policy.init=previous",)),
    RPO: Arm("iterative_rpo_arithmetic", "iterative_rpo_arithmetic"),
}
"""Those that draw whole responses."""
METHODS = {SEARCH: Arm("rest_mcts_arithmetic", "rest_mcts_arithmetic"), **SAMPLED}
ARMS = {**METHODS, CONTROL: Arm("quickstart_control", "quickstart_control")}
MEASURED = "grow.draft.prompts=1000"
METRICS = ("pass@1", "avg@4")
"""Greedy, and the mean of four samples."""
TEST = {"task": "arithmetic", "split": "test"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, help="where runs stay; finished ones are not done again")
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = asked.folder or Path(name)
        rows = [study(folder, seed, asked.overrides) for seed in asked.seeds]
        compared = list(differences(folder, asked.seeds))
    save("self_training", {"overrides": asked.overrides, "seeds": rows, "differences": compared})
    print("\n\n".join(tables(rows, compared)))


def study(folder: Path, seed: int, overrides: Sequence[str]) -> dict[str, Any]:
    """All arms of a seed; what they cost and how they ended."""
    searched = run(folder, SEARCH, seed, overrides)
    start = (searched.warmup / "policy" / "checkpoint").resolve()
    same = [f"model.path={start}", "model.architecture=null", "model.alphabet=null", "warmup.policy=null", *overrides]
    # What the control samples is learnt by nobody: it says how long the start's responses to train problems are.
    alone = run(folder, CONTROL, seed, [*same, f"learners.policy.optim.steps={steps(searched)}", MEASURED])
    for arm in SAMPLED:
        wanted = f"grow.draft.prompts={problems_for(searched, alone, arm, overrides)}"
        run(folder, arm, seed, [*same, f"loop.iterations={ROUNDS}", wanted])
    check(folder, seed)
    return {"seed": seed, **{arm: told(place(folder, arm, seed)) for arm in ARMS}}


def run(folder: Path, arm: str, seed: int, overrides: Sequence[str]) -> RunDir:
    found = place(folder, arm, seed)
    own = [f"run.folder={folder}", f"run.name={found.root.name}", f"run.seed={seed}", "track.live=none"]
    assert cli(["run", str(CONFIGS / f"{ARMS[arm].config}.yaml"), *own, *ARMS[arm].settings, *overrides]) == 0
    return found


def place(folder: Path, arm: str, seed: int) -> RunDir:
    return RunDir(folder / f"{ARMS[arm].run}-{seed}")


def problems_for(searched: RunDir, alone: RunDir, arm: str, overrides: Sequence[str]) -> int:
    """How many problems an arm asks in a round to draw as many tokens as the search, with its config's ``n``."""
    config = load_config(CONFIGS / f"{ARMS[arm].config}.yaml", overrides)
    tokens = mean([cost(searched, number)["tokens"] for number in (1, ROUNDS)])
    drawn = cost(alone, 1)
    wanted = round(tokens / (config.grow["draft"].n * drawn["tokens"] / drawn["responses"]))
    there = config.tasks["arithmetic"].options["sizes"]["train"]
    assert ROUNDS * wanted <= there, f"{arm} would need {ROUNDS} times {wanted} problems, there are {there}"
    return wanted


def check(folder: Path, seed: int) -> None:
    """Whether the arms of a seed can be compared: one start, as many steps, as many tokens.

    Raises:
        ValueError: they cannot.
    """
    runs = {arm: place(folder, arm, seed) for arm in ARMS}
    if len({tuple(answers(found, 0, "pass@1").items()) for found in runs.values()}) > 1:
        raise ValueError(f"seed {seed}: the arms do not start from the same model")
    taken = {arm: steps(found) for arm, found in runs.items()}
    if len(set(taken.values())) > 1:
        raise ValueError(f"seed {seed}: optimizer steps differ: {taken}")
    for number in (1, ROUNDS):
        drawn = {arm: cost(runs[arm], number)["tokens"] for arm in METHODS}
        if any(abs(one / drawn[SEARCH] - 1) > NEAR for one in drawn.values()):
            raise ValueError(f"seed {seed}, round {number}: tokens differ by more than {NEAR:.0%}: {drawn}")


def steps(found: RunDir) -> int:
    """Optimizer steps of the policy, all rounds together."""
    logs = found.root.glob("iteration_*/policy/log.jsonl")
    return sum(len(log.read_text().splitlines()) for log in logs)


def cost(found: RunDir, number: int) -> dict[str, int]:
    """What a round drew and learnt from."""
    folder = found.iteration(number)
    samples = records.parts(folder / "samples")
    trees = [read_json(path)["spent"] for path in sorted((folder / "trees").glob("*-[0-9]*.json"))]
    written = sum(len(ids) for part in samples for ids in records.column(part, "response_ids"))
    judged = [
        row
        for part in samples
        for row in zip(
            records.column(part, "problem_id"),
            records.column(part, "text"),
            records.column(folder / "verdicts" / part.name, "status"),
            strict=True,
        )
    ]
    right = {(problem, text) for problem, text, status in judged if status == "right"}
    learnt = [source for part in (folder / "examples" / "policy").glob("*.parquet") for source in sources(part)]
    return {
        "tokens": sum(one["policy_tokens"] for one in trees) or written,
        "tokens read by the value model": sum(one["tokens_read"] for one in trees),
        "problems": sum(one["trees"] for one in trees) or len({problem for problem, _, _ in judged}),
        "responses": len(judged),
        "right": sum(status == "right" for _, _, status in judged),
        "different right": len(right),
        "solved": len({problem for problem, _ in right}),
        "examples": learnt.count("own"),
        "worked": learnt.count("gold"),
    }


def sources(part: Path) -> Iterator[str]:
    """Of each example, or of each pair by its chosen side, the selection it is from."""
    for source, role in zip(*records.columns(part, "source", "role"), strict=True):
        if role != "rejected":
            yield source


def told(found: RunDir) -> dict[str, Any]:
    """By round, the start first: each metric with its interval, and what the round cost."""
    numbers = found.iterations()
    of = {name: [interval(list(answers(found, one, name).values())) for one in numbers] for name in METRICS}
    return {**of, "steps": steps(found), "rounds": [cost(found, number) for number in numbers[1:]]}


def answers(found: RunDir, number: int, metric: str) -> dict[str, float]:
    """Share of right answers by test problem."""
    both: tuple[Sequence[Outcome], Sequence[Outcome]] = outcomes(found, {"iteration": number, **TEST})
    return accuracy_by_problem(both[METRICS.index(metric)])


def differences(folder: Path, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Every two arms at their ends: paired by problem for each seed; over all seeds by problem, and by seed."""
    for metric in METRICS:
        ends = {arm: [end(place(folder, arm, seed), metric) for seed in seeds] for arm in ARMS}
        for later, earlier in combinations(ARMS, 2):
            yield {
                "metric": metric,
                "arms": [later, earlier],
                "seeds": [tested(*both) for both in zip(ends[earlier], ends[later], strict=True)],
                "by problem": tested(averaged(ends[earlier]), averaged(ends[later])),
                # One seed says nothing of others.
                **({"by seed": tested(whole(ends[earlier]), whole(ends[later]))} if len(seeds) > 1 else {}),
            }


def end(found: RunDir, metric: str) -> dict[str, float]:
    return answers(found, found.iterations()[-1], metric)


def averaged(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over seeds for each problem, which all of them share."""
    return {problem: mean([one[problem] for one in seeds]) for problem in seeds[0]}


def whole(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over problems for each seed."""
    return {str(number): mean(list(one.values())) for number, one in enumerate(seeds)}


def interval(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in mean_interval(values)]


def tables(rows: Sequence[Mapping[str, Any]], compared: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """In Markdown: how the arms ended, how they differ, what they drew and learnt from."""
    lines = [
        [str(row["seed"]), arm, *(cell for metric in METRICS for cell in by_round(row[arm][metric]))]
        for row in rows
        for arm in ARMS
    ]
    heads = [f"{metric}, {when}" for metric in METRICS for when in ("start", "after 1", "end")]
    yield table(["seed", "", *heads], lines)
    seeds = [f"seed {row['seed']}" for row in rows]
    overall = [over for over in ("by problem", "by seed") if over in compared[0]]
    lines = [compared_line(one, overall) for one in compared]
    yield table(["", "", *seeds, *(f"all, {over}" for over in overall)], lines)
    names = list(rows[0][SEARCH]["rounds"][0])
    lines = [
        [str(row["seed"]), arm, str(number), *(f"{one[name]:,}" for name in names)]
        for row in rows
        for arm in METHODS
        for number, one in enumerate(row[arm]["rounds"], 1)
    ]
    yield table(["seed", "", "round", *names], lines)


def by_round(estimates: Sequence[Sequence[float]]) -> list[str]:
    """Start, after the first round, end with its interval; the control has one round, as long as two."""
    first, *between, last = estimates
    return [percent(first), percent(between[0]) if between else "", ranged(last)]


def compared_line(one: Mapping[str, Any], overall: Sequence[str]) -> list[str]:
    together = [change(one[over], with_range=True) for over in overall]
    return [" - ".join(one["arms"]), one["metric"], *map(change, one["seeds"]), *together]


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *lines))


def percent(estimate: Sequence[float]) -> str:
    return f"{100 * estimate[0]:.1f} %"


def ranged(estimate: Sequence[float]) -> str:
    return f"{percent(estimate)} [{100 * estimate[1]:.1f}, {100 * estimate[2]:.1f}]"


def change(test: Mapping[str, float], *, with_range: bool = False) -> str:
    around = f" [{100 * test['low']:+.1f}, {100 * test['high']:+.1f}]" if with_range else ""
    return f"{100 * test['difference']:+.1f}{around}, {p_value(test['p'])}"


if __name__ == "__main__":
    main()
