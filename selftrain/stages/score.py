"""Score: numbers from the reward sources, and their weighted total, for every judged sample."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from selftrain import records
from selftrain.config import instantiate
from selftrain.events import Event, Progress, StageFinished, StageStarted
from selftrain.selection import Candidate
from selftrain.session import Session
from selftrain.types import Sample, Score, Verdict

TOTAL = "total"
"""Source of the scores that weigh those of all others together."""


def scores_folder(session: Session, iteration: int) -> Path:
    return session.run.iteration(iteration) / "scores"


def score(session: Session, iteration: int) -> Iterator[Event]:
    started = time.monotonic()
    folder = session.run.iteration(iteration)
    stage = session.stages.score(iteration)
    stage.begin_afresh(session.run, scores_folder(session, iteration))
    parts = records.parts(folder / "verdicts")
    sources = {name: instantiate("reward", source) for name, source in session.config.reward.sources.items()}
    weights = session.config.reward.total or dict.fromkeys(sources, 1.0)
    yield StageStarted(iteration, "score", len(parts), "parts")
    for number, part in enumerate(parts, 1):
        target = scores_folder(session, iteration) / part.name
        if not target.exists():
            ids = records.column(part, "sample_id")
            rows: list[Score] = []
            for sample_id, verdict in zip(ids, records.rows(part, Verdict), strict=True):
                single = [source.score(sample_id, verdict, name) for name, source in sources.items()]
                rows += [*single, total(single, weights)]
            records.write(target, Score, rows)
        yield Progress(iteration, "score", number, len(parts))
    stage.finish([scores_folder(session, iteration)])
    yield StageFinished(iteration, "score", time.monotonic() - started, f"{len(parts)} parts", False)


def total(scores: Sequence[Score], weights: Mapping[str, float]) -> Score:
    """Weighted sum of the sources that have a weight; invalid where one of those is."""
    value = 0.0
    for score in scores:
        if score.source in weights:
            if not score.valid or score.reward is None:
                return Score(score.sample_id, TOTAL, valid=False)
            value += weights[score.source] * score.reward
    return Score(scores[0].sample_id, TOTAL, valid=True, reward=value)


def candidates(session: Session, iteration: int, step: str) -> Iterator[Candidate]:
    """The samples of a step with verdict and total reward, part by part."""
    folder = session.run.iteration(iteration)
    for part in records.parts(folder / "samples", f"{step}-"):
        verdicts = records.columns(folder / "verdicts" / part.name, "status", "answer")
        scores = zip(*records.columns(folder / "scores" / part.name, "source", "reward"), strict=True)
        totals = [reward for source, reward in scores if source == TOTAL]
        yield from map(Candidate._make, zip(records.rows(part, Sample), *verdicts, totals, strict=True))
