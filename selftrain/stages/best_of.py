"""Best-of-n of an evaluation: scores of its sampled responses by each source of ``evaluate.best_of``, and what choosing
by them comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from selftrain import records
from selftrain.best_of import best_of_n, curve_sizes, weighted_best_of_n
from selftrain.config import instantiate
from selftrain.digests import value_digest
from selftrain.evaluation import Outcome, by_problem, majorities, named, tested
from selftrain.intervals import mean
from selftrain.planning import fingerprints
from selftrain.planning.references import source_models
from selftrain.rewards.base import Judged, asked
from selftrain.session import Session
from selftrain.stages.logprobs import Logprobs, RunModels
from selftrain.types import Sample, Score, Verdict

OF_VERDICT = ("status", "value", "answer", "reason", "verifier", "by")
SCORED_BY = "scored_by"
"""Column of a file of scores: what they depend on."""


def score_samples(session: Session, iteration: int, files: Sequence[Path], step: str) -> Iterator[int]:
    """Write ``evaluation/<task>-<split>-<source>.parquet``: a score for every sampled response.

    Files that fit stay, others are kept aside.

    Args:
        files: judged answers, by task and split.
        step: what the sampled ones among them are called.

    Yields:
        The number of responses scored since the last time.

    Raises:
        RunError: a model cannot be run, or a source gives no number where it says it does.
    """
    with Logprobs(session, iteration) as logprobs:
        models = RunModels(session, iteration, "evaluate", logprobs)
        for path in files:
            for name in session.config.evaluate.best_of:
                target, stamp = scores_file(path, name), _stamp(session, iteration, path, name)
                if target.exists():
                    if set(records.column(target, SCORED_BY)) == {stamp}:
                        continue
                    session.run.keep_aside([target])
                scores: list[Score] = []
                for judged in _batches(path, step, session.config.run.part_size):
                    scores += _scored(session, name, judged, models)
                    yield len(judged)
                    session.check_stop()
                records.write(target, Score, scores, **{SCORED_BY: [stamp] * len(scores)})


def best_of_row(session: Session, path: Path, step: str, sampled: Sequence[Outcome]) -> dict[str, Any]:
    """What a line of metrics says of choosing, for each source NAME and for n = 2, 4 ... N: ``bon_NAME@n``, and
    ``wbon_NAME@n`` where there are answers to vote for, each with its interval; paired tests of both at N against
    maj@N; the share of samples without a reward, where there are any.

    Args:
        path: the judged answers.
        sampled: the sampled ones among them.
    """
    row: dict[str, Any] = {}
    for name in session.config.evaluate.best_of:
        rewards = _rewards(path, scores_file(path, name), step)
        row |= choosing(name, by_problem(sampled), rewards, session.config.evaluate.vote)
    return row


def choosing(
    name: str, groups: Mapping[str, Sequence[Outcome]], rewards: Mapping[tuple[str, int], float | None], vote: Any
) -> dict[str, Any]:
    """The same of one source.

    Args:
        groups: responses by problem, by index.
        rewards: by problem and index; None where the source had none to give.
    """
    told = {key: [rewards[key, one.index] for one in own] for key, own in groups.items()}
    right = {key: [one.status == "right" for one in own] for key, own in groups.items()}
    answers = {key: [one.answer for one in own] for key, own in groups.items()}
    votes = any(answer is not None for own in answers.values() for answer in own)
    largest = len(next(iter(groups.values())))
    row: dict[str, Any] = {}
    for n in [size for size in curve_sizes(largest) if size > 1]:
        chosen = {f"bon_{name}": {key: best_of_n(told[key], right[key], n) for key in groups}}
        if votes:
            chosen[f"wbon_{name}"] = {
                key: weighted_best_of_n(told[key], answers[key], right[key], n, vote) for key in groups
            }
        for what, values in chosen.items():
            row |= named(f"{what}@{n}", list(values.values()))
            if votes and n == largest:
                row[f"{what}_vs_maj"] = tested(majorities(groups, n), values)
    if unscored := mean([reward is None for own in told.values() for reward in own]):
        row[f"bon_{name}_unscored"] = round(unscored, 6)
    return row


def scores_file(path: Path, name: str) -> Path:
    """Where a source's scores of judged answers lie."""
    return path.with_name(f"{path.stem}-{name}.parquet")


def _stamp(session: Session, iteration: int, path: Path, name: str) -> str:
    """Stands for what scores depend on: the source, its models, who wrote and who judged."""
    chosen, stage = session.config.evaluate.best_of[name], session.stages.evaluate(iteration)
    inputs = [stage.inputs[place] for place in source_models(chosen, f"evaluate.best_of.{name}")]
    judges = sorted(set(records.column(path, "verifier")))
    computed = fingerprints.asked_in(session.config, [chosen])
    return value_digest([fingerprints.reward(chosen), inputs, stage.inputs["policy"], judges, computed])


def _batches(path: Path, step: str, size: int) -> Iterator[list[Judged]]:
    """The sampled responses with their verdicts, whole problems, about so many at a time."""
    verdicts = map(_verdict, *records.columns(path, *OF_VERDICT))
    pairs = zip(records.rows(path, Sample), verdicts, strict=True)
    sampled = (Judged(sample.id, verdict, sample) for sample, verdict in pairs if sample.step == step)
    batch: list[Judged] = []
    for _, own in groupby(sampled, key=lambda one: one.sample and one.sample.problem_id):
        batch += own
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def _verdict(status: Any, value: Any, answer: Any, reason: Any, verifier: Any, by: Any) -> Verdict:
    return Verdict(status, value, answer, reason, verifier=verifier, by=by)


def _scored(session: Session, name: str, judged: Sequence[Judged], models: RunModels) -> list[Score]:
    source = instantiate("reward", session.config.evaluate.best_of[name])
    return asked(source, name, judged, models, "evaluate.best_of")


def _rewards(path: Path, scores: Path, step: str) -> dict[tuple[str, int], float | None]:
    given = zip(*records.columns(scores, "sample_id", "valid", "reward"), strict=True)
    by_sample = {sample: reward if valid else None for sample, valid, reward in given}
    rows = zip(*records.columns(path, "id", "step", "problem_id", "index"), strict=True)
    return {(problem, index): by_sample[sample] for sample, own, problem, index in rows if own == step}
