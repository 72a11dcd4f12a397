"""Evaluate: greedy and sampled answers of one checkpoint to every evaluated split, judged and summed up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftrain import records
from selftrain.artifacts import Stage
from selftrain.best_of import curve_sizes
from selftrain.config import instantiate
from selftrain.drawing.expected import expecting
from selftrain.drawing.parts import by_length
from selftrain.drawing.sampled import Advance, Drawing, request, sample_parts
from selftrain.evaluation import Outcome, compare, summarise
from selftrain.events import Evaluated, Event, Progress, StageFinished, StageStarted
from selftrain.files import read_json, remove, write_json
from selftrain.planning import fingerprints
from selftrain.planning.settings import evaluated_before, sampler_of, sampling_of
from selftrain.planning.writers import Writer
from selftrain.sampling.base import Request
from selftrain.session import Session
from selftrain.stages.best_of import best_of_row, score_samples, scores_file
from selftrain.stages.judged import UNJUDGED, is_judged, judge_split
from selftrain.stages.kept import kept_lines, measure_kept
from selftrain.stages.protocol import protocol_count, protocol_rows, sample_protocols
from selftrain.stages.regrade import regraded_split
from selftrain.stages.search_evaluation import answer_by_searches, search_row
from selftrain.stages.unsplit import unsplit
from selftrain.types import Problem

GREEDY, SAMPLED = "greedy", "sampled"
JUDGING = ("judging.tasks", "judging.reward")
"""Keys of the stage's config that answers do not depend on."""
SEARCHED = (fingerprints.SEARCH, "input 'evaluate.search.", "input 'reward.sources.")
APART = (fingerprints.BEST_OF, "input 'evaluate.best_of.", *SEARCHED)
"""How the names begin of what samples do not depend on, among keys of the stage's config and inputs: what chooses among
them, and what searches beside them."""
OUTCOME_COLUMNS = (
    *("step", "problem_id", "index"),
    *("status", "value", "answer", "by"),
    *("finish_reason", "response_ids"),
)


def evaluate(session: Session, iteration: int) -> Iterator[Event]:
    """Write ``evaluation/<task>-<split>.parquet`` and ``metrics.json``; trees lie below ``evaluation/search``."""
    started = time.monotonic()
    config = session.config
    folder = session.run.iteration(iteration)
    stage = session.stages.evaluate(iteration)
    stage.begin(folder / "evaluation", leave_out=(*JUDGING, *APART))
    splits = evaluated_splits(session)
    files = [folder / "evaluation" / f"{task}-{split}.parquet" for task, split in splits]
    session.run.keep_aside([path for path in files if path.exists() and not is_judged(session, path)])
    per_problem = config.evaluate.n + config.evaluate.greedy
    total = sum(len(session.problems.of(*one)) for one in splits) * (per_problem + len(config.evaluate.search))
    total += protocol_count(session, splits)
    yield StageStarted(iteration, "evaluate", total, "samples")
    yield (progress := Progress(iteration, "evaluate", 0, total))
    sampled = 0
    for (task, split), path in zip(splits, files, strict=True):
        if not is_judged(session, path):
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
    for found in answer_by_searches(session, iteration, splits):
        if isinstance(found, Advance):
            progress = replace(progress, done=progress.done + found.samples, tokens=progress.tokens + found.tokens)
        yield progress if isinstance(found, Advance) else found
    if config.evaluate.best_of:
        for _ in score_samples(session, iteration, files, SAMPLED):
            yield progress
        chosen = config.evaluate.best_of
        sources = {name: instantiate("reward", source) for name, source in chosen.items()}
        yield from unsplit("evaluate.best_of", sources, [scores_file(path, name) for path in files for name in chosen])
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


def searched_otherwise(stage: Stage) -> bool:
    """Whether a finished evaluation differs from the config in what its searches depend on."""
    return stage.mark.exists() and any(key.startswith(SEARCHED) for key in stage.differing())


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
    row |= search_row(session, iteration, task, split, now[1])
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
