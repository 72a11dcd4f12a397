"""Evaluate: greedy and sampled answers of one checkpoint to every evaluated split, judged and summed up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftrain import records
from selftrain.artifacts import Stage
from selftrain.best_of import curve_sizes
from selftrain.budget import ErrorBudget
from selftrain.drawing.expected import expecting
from selftrain.drawing.parts import by_length
from selftrain.drawing.sampled import Advance, Drawing, request, sample_parts
from selftrain.evaluation import Outcome, compare, summarise
from selftrain.events import Evaluated, Event, Progress, StageFinished, StageStarted
from selftrain.files import read_json, remove, write_json
from selftrain.judging import Request as Judgement
from selftrain.planning.settings import evaluated_before, sampler_of, sampling_of
from selftrain.planning.writers import Writer
from selftrain.sampling.base import Request
from selftrain.session import Session
from selftrain.stages.best_of import APART, best_of_row, score_samples, scores_file
from selftrain.stages.kept import kept_lines, measure_kept
from selftrain.stages.protocol import protocol_count, protocol_rows, sample_protocols
from selftrain.stages.regrade import regraded_split
from selftrain.stages.unsplit import unsplit
from selftrain.types import Problem, Sample, Verdict
from selftrain.verification import VerifierPool

GREEDY, SAMPLED = "greedy", "sampled"
UNJUDGED = "unjudged"
"""Folder of parts that are sampled but not judged yet."""
JUDGING = ("judging.tasks", "judging.reward")
"""Keys of the stage's config that answers do not depend on."""
VERDICT_COLUMNS = ("status", "value", "answer", "reason", "verifier", "by")
OUTCOME_COLUMNS = (
    *("step", "problem_id", "index"),
    *("status", "value", "answer", "by"),
    *("finish_reason", "response_ids"),
)


def evaluate(session: Session, iteration: int) -> Iterator[Event]:
    """Write ``evaluation/<task>-<split>.parquet`` and ``metrics.json``."""
    started = time.monotonic()
    config = session.config
    folder = session.run.iteration(iteration)
    stage = session.stages.evaluate(iteration)
    stage.begin(folder / "evaluation", leave_out=(*JUDGING, *APART))
    splits = evaluated_splits(session)
    files = [folder / "evaluation" / f"{task}-{split}.parquet" for task, split in splits]
    session.run.keep_aside([path for path in files if path.exists() and not _judged(session, path)])
    per_problem = config.evaluate.n + config.evaluate.greedy
    total = per_problem * sum(len(session.problems.of(task, split)) for task, split in splits)
    total += protocol_count(session, splits)
    yield StageStarted(iteration, "evaluate", total, "samples")
    yield (progress := Progress(iteration, "evaluate", 0, total))
    sampled = 0
    for (task, split), path in zip(splits, files, strict=True):
        if not _judged(session, path):
            for advance in _split(session, iteration, task, split, path):
                progress = replace(
                    progress, done=progress.done + advance.samples, tokens=progress.tokens + advance.tokens
                )
                yield progress
        sampled += per_problem * len(session.problems.of(task, split))
        progress = replace(progress, done=sampled)
        session.check_stop()
    unjudged = folder / "evaluation" / UNJUDGED
    for advance in sample_protocols(session, iteration, splits, sampler_of(config), unjudged):
        progress = replace(progress, done=progress.done + advance.samples, tokens=progress.tokens + advance.tokens)
        yield progress
    if config.evaluate.best_of:
        for _ in score_samples(session, iteration, files, SAMPLED):
            yield progress
        chosen = config.evaluate.best_of
        yield from unsplit("evaluate.best_of", chosen, [scores_file(path, name) for path in files for name in chosen])
    own = [_row(session, iteration, task, split) for task, split in splits]
    measure_kept(session, iteration)
    rows = (*own, *protocol_rows(session, iteration, splits), *kept_lines(session, iteration))
    for task, split in splits:
        yield from regraded_split(session, iteration, task, split)
    write_json(folder / "metrics.json", list(rows))
    remove(unjudged)
    stage.finish([folder / "evaluation", folder / "metrics.json"])
    tests = {f"{r['task']}/{r['split']}": {k: r[k] for k in ("vs_start", "vs_previous") if k in r} for r in own}
    yield Evaluated(iteration, rows, tests)
    yield StageFinished(iteration, "evaluate", time.monotonic() - started, f"{total} samples", False)


def rejudged(stage: Stage) -> bool:
    """Whether a finished evaluation differs from the config in who judges, and in nothing that answers depend on."""
    differing = stage.differing() if stage.mark.exists() else []
    return answers_fit(stage) and any(key.startswith(JUDGING) for key in differing)


def answers_fit(stage: Stage) -> bool:
    """Whether a finished evaluation differs from the config, but in nothing that its answers depend on."""
    differing = stage.differing() if stage.mark.exists() else []
    return bool(differing) and all(key.startswith((*JUDGING, *APART)) for key in differing)


def evaluated_splits(session: Session) -> list[tuple[str, str]]:
    return [
        (task, split)
        for task in session.config.tasks
        for split in session.config.evaluate.splits
        if session.problems.of(task, split)
    ]


def metrics_of(session: Session, iteration: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_json(session.run.iteration(iteration) / "metrics.json")
    return rows


def _split(session: Session, iteration: int, task: str, split: str, path: Path) -> Iterator[Advance]:
    """Sample one split, in parts until it is judged, and judge it."""
    parts = [path] if path.exists() else []
    if not parts:
        config = session.config
        writer = session.policy(sampler_of(config), iteration, config.evaluate.prompt)
        work = _work(session, iteration, writer, session.problems.of(task, split))
        work = expecting(session, writer.sampler, work, [_answered_before(session, iteration, path)])
        stem = path.parent / UNJUDGED / path.stem
        for advance in sample_parts(session, Drawing(work, stem, writer, session.stages.evaluate(iteration))):
            parts += [advance.part] if advance.part else []
            yield advance
    judge_split(session, parts, path)


def _answered_before(session: Session, iteration: int, path: Path) -> Path:
    """The answers to a split in the evaluation before."""
    return session.run.iteration(evaluated_before(session.config, max(iteration, 1))) / "evaluation" / path.name


def judge_split(session: Session, parts: Sequence[Path], path: Path) -> None:
    """Put the samples of parts into one file, with their verdicts."""
    samples = [sample for part in parts for sample in records.rows(part, Sample)]
    samples.sort(key=lambda sample: (sample.problem_id, sample.step, sample.index))
    by_id, asked = session.problems.by_id, session.prompters[session.config.evaluate.prompt]
    judgements = (session.judgement(by_id[sample.problem_id], sample.text, asked) for sample in samples)
    verdicts = verdicts_of(session.verifiers, judgements, session.config.reward.verify.max_errors)
    extra = {name: [getattr(verdict, name) for verdict in verdicts] for name in VERDICT_COLUMNS}
    records.write(path, Sample, samples, **extra)


def verdicts_of(pool: VerifierPool, judgements: Iterable[Judgement], max_errors: float) -> list[Verdict]:
    """Raises TooManyErrors where the verifier could not judge too large a share of them."""
    budget = ErrorBudget(max_errors)
    verdicts = list(budget.watch(pool.judge(judgements)))
    budget.check()
    return verdicts


def _judged(session: Session, path: Path) -> bool:
    """Whether a split is sampled and judged, by the verifiers of the config."""
    return path.exists() and session.judges.issuperset(records.column(path, "verifier"))


def _work(session: Session, iteration: int, writer: Writer, problems: Sequence[Problem]) -> list[Request]:
    config = session.config
    sampling = session.settings(sampling_of(config), problems[0].task)
    wanted = [(GREEDY, replace(sampling, temperature=0.0), 1)] if config.evaluate.greedy else []
    if config.evaluate.n:
        wanted.append((SAMPLED, sampling, config.evaluate.n))
    seed = config.run.seed
    return by_length(
        request(problem, writer, how, n, seed=seed, iteration=iteration, step=purpose)
        for purpose, how, n in wanted
        for problem in problems
    )


def _row(session: Session, iteration: int, task: str, split: str) -> dict[str, Any]:
    """One line of metrics: the numbers of this checkpoint, and paired tests against the start and the one before."""
    config = session.config
    now = _outcomes(session, iteration, task, split)
    sizes = curve_sizes(config.evaluate.n) if config.evaluate.best_of else []
    ks = sorted({*config.evaluate.k, config.evaluate.n, *sizes} - {0})
    row = summarise(*now, task=task, split=split, iteration=iteration, ks=ks)
    path = session.run.iteration(iteration) / "evaluation" / f"{task}-{split}.parquet"
    row |= best_of_row(session, path, SAMPLED, now[1])
    if iteration > 0:
        row["vs_start"] = compare(_outcomes(session, 0, task, split), now)
        row["vs_previous"] = compare(_outcomes(session, evaluated_before(config, iteration), task, split), now)
    return row


def _outcomes(session: Session, iteration: int, task: str, split: str) -> tuple[list[Outcome], list[Outcome]]:
    path = session.run.iteration(iteration) / "evaluation" / f"{task}-{split}.parquet"
    return read_outcomes(path, {problem.id: problem.difficulty for problem in session.problems.of(task, split)})


def read_outcomes(path: Path, difficulty: Mapping[str, float | None]) -> tuple[list[Outcome], list[Outcome]]:
    """The judged answers of a file this stage wrote, greedy and sampled."""
    sides: dict[str, list[Outcome]] = {GREEDY: [], SAMPLED: []}
    for step, problem, index, status, value, answer, by, finish, ids in zip(
        *records.columns(path, *OUTCOME_COLUMNS), strict=True
    ):
        credit = None if value is None else float(value)
        sides[step].append(
            Outcome(problem, index, status, credit, answer, finish, difficulty.get(problem), len(ids), by)
        )
    return sides[GREEDY], sides[SAMPLED]
