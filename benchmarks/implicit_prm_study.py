"""What a process reward model trained on outcomes alone knows of steps: chained arithmetic, whose steps are checked.

For each seed one run of configs/implicit_prm.yaml. (a) Best of 16 and votes weighted by its reward against the
majority: read from the run's metrics. (b) On wrong solutions of the test problems: how often the step with the least
process reward is the first wrong one, against a step at random, the place that is most often the first wrong one among
the training samples of as many steps, and the step the policy itself found least likely.

    python benchmarks/implicit_prm_study.py --seeds 0,1,2 [key=value ...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import save

from selftrain import records
from selftrain.cli import main as cli
from selftrain.intervals import mean_interval, paired_test
from selftrain.prm_evaluation.finding import position_prior, told_apart
from selftrain.rewards.process import step_rewards, token_rewards
from selftrain.rewards.steps import pieces, step_ends
from selftrain.selection import as_scored
from selftrain.tasks.arithmetic import first_wrong_step
from selftrain.types import Problem, Sample

CONFIG = Path(__file__).parent.parent / "configs" / "implicit_prm.yaml"
OWN = "process reward"
WAYS = (OWN, "chance", "position", "policy's least likely step", "reference's least likely token")


class Wrong(NamedTuple):
    """A wrong solution: its steps, and which of them is the first that is not right."""

    sample: Sample
    ends: tuple[int, ...]
    first: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0, 1, 2])
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [study(Path(folder), seed, asked.overrides) for seed in asked.seeds]
    save("implicit_prm", {"seeds": rows, "together": together(rows)})


def study(folder: Path, seed: int, overrides: Sequence[str]) -> dict[str, Any]:
    name = f"seed{seed}"
    own = [f"run.folder={folder}", f"run.name={name}", f"run.seed={seed}", "track.live=none"]
    assert cli(["run", str(CONFIG), *own, *overrides]) == 0
    return {"seed": seed, "choosing": chosen(folder / name), "locating": located(folder / name)}


def chosen(run: Path) -> dict[str, Any]:
    """What the run's metrics say of the choice among 16 samples."""
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    wanted = ("avg@16", "maj@16", "pass@16", "bon_", "wbon_")
    return {
        key: value for key, value in row.items() if key.startswith(wanted) and "_low" not in key and "_high" not in key
    }


def located(run: Path) -> dict[str, Any]:
    from selftrain.models.checkpoint import load_tokenizer
    from selftrain.training.scoring import Scorer

    start, prm = run / "warmup" / "policy" / "checkpoint", run / "iteration_0001" / "prm" / "checkpoint"
    tokenizer = load_tokenizer(start)
    problems = {one.id: one for one in records.rows(run / "problems.parquet", Problem)}
    (path,) = (run / "iteration_0001" / "evaluation").glob("arithmetic-test.parquet")
    tested = list(wrong(records.rows(path, Sample), records.column(path, "status"), problems, tokenizer))
    prior = first_places(run, problems, tokenizer)
    examples = [as_scored(one.sample, tokenizer.eos_token_id) for one in tested]
    with Scorer(start) as scorer:
        reference = scorer.logprobs(examples)
    with Scorer(prm) as scorer:
        ratios = [own - other for own, other in zip(scorer.logprobs(examples), reference, strict=True)]
    hits: dict[str, list[tuple[str, float]]] = {way: [] for way in WAYS}
    last = 0
    for one, ratio, likelihood in zip(tested, ratios, reference, strict=True):
        steps = step_rewards(token_rewards(ratio, 1.0), one.ends)
        least = [float(part.min()) for part in np.split(likelihood, one.ends[:-1])]
        said = {
            OWN: float(steps.argmin() == one.first),
            "chance": 1 / len(one.ends),
            "position": float(prior[len(one.ends)] == one.first),
            "policy's least likely step": float(step_rewards(likelihood.astype(float), one.ends).argmin() == one.first),
            "reference's least likely token": float(np.argmin(least) == one.first),
        }
        last += int(steps.argmin() == len(one.ends) - 1)
        for way, hit in said.items():
            hits[way].append((one.sample.problem_id, hit))
    return {
        "wrong solutions": len(tested),
        "problems": len({one.sample.problem_id for one in tested}),
        "least at the last step": last / len(tested),
        **told_apart(hits, OWN),
    }


def wrong(samples: Any, statuses: Sequence[str], problems: dict[str, Problem], tokenizer: Any) -> Any:
    """Wrong solutions that came to their end, drawn by chance, with at least two steps."""
    for sample, status in zip(samples, statuses, strict=True):
        if status != "wrong" or sample.finish_reason != "eos" or sample.step == "greedy":
            continue
        ends = step_ends(pieces(tokenizer, sample.response_ids), " ")
        first = first_wrong_step(problems[sample.problem_id].question, sample.text)
        if len(ends) > 1:  # A last step "#34" that contradicts right ones before it is the first wrong one.
            yield Wrong(sample, ends, len(ends) - 1 if first is None else min(first, len(ends) - 1))


def first_places(run: Path, problems: dict[str, Problem], tokenizer: Any) -> dict[int, int]:
    """By number of steps: where the first wrong step of the samples that were trained on most often is."""
    found: list[tuple[int, int]] = []
    folder = run / "iteration_0001"
    for part in records.parts(folder / "samples"):
        statuses = records.column(folder / "verdicts" / part.name, "status")
        found += [
            (len(one.ends), one.first) for one in wrong(records.rows(part, Sample), statuses, problems, tokenizer)
        ]
    return position_prior(found)


def together(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, with the interval of the seeds; margins are paired by seed."""
    found: dict[str, Any] = {}
    hits = {way: [row["locating"][way][0] for row in rows] for way in WAYS}
    for way in WAYS:
        found[way] = mean_over(hits[way])
        if way != OWN:
            found[f"{OWN} over {way}"] = margin(hits[way], hits[OWN])
    rates = [row["choosing"] for row in rows]
    for name, value in rates[0].items():
        if isinstance(value, float):
            found[name] = mean_over([row[name] for row in rates])
        elif name.endswith("_vs_maj"):
            chosen = f"{name.removesuffix('_vs_maj')}@16"
            found[name] = margin([row["maj@16"] for row in rates], [row[chosen] for row in rates])
    return found


def margin(before: Sequence[float], after: Sequence[float]) -> list[float]:
    """``after - before``, with its 95 % interval where there are seeds to tell."""
    if len(before) < 2:
        return [round(after[0] - before[0], 4)]
    sides = ({str(seed): value for seed, value in enumerate(side)} for side in (before, after))
    return [round(value, 4) for value in paired_test(*sides)[:3]]


def mean_over(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in mean_interval(list(values))] if len(values) > 1 else [round(values[0], 4)]


if __name__ == "__main__":
    main()
