"""Score: numbers from the reward sources, and their weighted total, for every judged sample."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path

from selftrain import records
from selftrain.config import instantiate
from selftrain.drawing.accept import accepted
from selftrain.events import Event, Notice, Progress, StageFinished, StageStarted
from selftrain.rewards.base import Judged, Models, RewardSource, asked, verdict_only
from selftrain.selection import Candidate
from selftrain.session import Session
from selftrain.stages.logprobs import Logprobs, RunModels
from selftrain.stages.monitor import line, measure, monitored
from selftrain.stages.unsplit import unsplit
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
    learnt = {step: accepted(session, iteration, step) for step in session.config.grow}
    yield StageStarted(iteration, "score", len(parts), "parts")
    with Logprobs(session, iteration) as logprobs:
        models = RunModels(session, iteration, "score", logprobs)
        for number, part in enumerate(parts, 1):
            target = scores_folder(session, iteration) / part.name
            if not target.exists():
                seen = learnt_from(session, iteration, part.name, learnt)
                judged = read_judged(session, iteration, part.name, sources, seen)
                records.write(target, Score, scored(judged, sources, total_weights(session), models, seen))
            yield Progress(iteration, "score", number, len(parts))
            session.check_stop()
        yield from unsplit("reward.sources", sources, records.parts(scores_folder(session, iteration)))
        if monitored(session):
            yield Notice(line(measure(session, iteration, logprobs)), "info")
    stage.finish([scores_folder(session, iteration)])
    yield StageFinished(iteration, "score", time.monotonic() - started, f"{len(parts)} parts", False)


def read_judged(
    session: Session,
    iteration: int,
    part: str,
    sources: Mapping[str, RewardSource],
    seen: Sequence[bool] | None = None,
) -> list[Judged]:
    """The judged samples of a part; the samples themselves only where a source looks at them.

    Args:
        seen: as of `scored`.
    """
    folder = session.run.iteration(iteration)
    ids = records.column(folder / "verdicts" / part, "sample_id")
    verdicts = records.rows(folder / "verdicts" / part, Verdict)
    if all(map(verdict_only, sources.values())):
        return list(map(Judged, ids, verdicts))
    samples = {sample.id: sample for sample in records.rows(folder / "samples" / part, Sample, seen)}
    return [Judged(id, verdict, samples.get(id)) for id, verdict in zip(ids, verdicts, strict=True)]


def learnt_from(
    session: Session, iteration: int, part: str, learnt: Mapping[str, set[str] | None]
) -> Sequence[bool] | None:
    """Whether each sample of a part is of a problem that is learnt from; None where all are.

    Args:
        learnt: ids of those problems by step.
    """
    chosen = next(own for step, own in learnt.items() if part.startswith(f"{step}-"))
    return of_problems(session.run.iteration(iteration) / "samples" / part, chosen)


def scored(
    judged: Sequence[Judged],
    sources: Mapping[str, RewardSource],
    weights: Mapping[str, float],
    models: Models,
    seen: Sequence[bool] | None = None,
) -> list[Score]:
    """For every sample the scores of all sources, in their order, and their total.

    Args:
        seen: which samples the sources are asked about, None for all; the others' scores are not valid.

    Raises:
        RunError: a source gave another number of scores than there are samples, or one that is no number.
    """
    learnt = judged if seen is None else [one for one, is_seen in zip(judged, seen, strict=True) if is_seen]
    columns = [asked(source, name, learnt, models, "reward.sources") for name, source in sources.items()]
    rows = zip(*columns, strict=True)
    found: list[Score] = []
    for place, one in enumerate(judged):
        single = next(rows) if seen is None or seen[place] else [Score(one.sample_id, name, False) for name in sources]
        found += [*single, total(single, weights)]
    return found


def total_weights(session: Session) -> Mapping[str, float]:
    reward = session.config.reward
    return reward.total or dict.fromkeys(reward.sources, 1.0)


def total(scores: Sequence[Score], weights: Mapping[str, float]) -> Score:
    """Weighted sum of the sources that have a weight; invalid where one of those is."""
    value = 0.0
    for score in scores:
        if score.source in weights:
            if not score.valid or score.reward is None:
                return Score(score.sample_id, TOTAL, valid=False)
            value += weights[score.source] * score.reward
    return Score(scores[0].sample_id, TOTAL, valid=True, reward=value)


def candidates(
    session: Session, iteration: int, step: str, scored: bool = True, learnt: Container[str] | None = None
) -> Iterator[Candidate]:
    """The samples of a step with verdict and total reward, part by part.

    Args:
        scored: whether Score has been there; else rewards are None.
        learnt: ids of the problems whose samples are wanted; None for all.
    """
    folder = session.run.iteration(iteration)
    for part in records.parts(folder / "samples", f"{step}-"):
        chosen = of_problems(part, learnt)
        verdicts = records.columns(folder / "verdicts" / part.name, "status", "value", "answer")
        totals = total_rewards(folder / "scores" / part.name) if scored else [None] * len(verdicts[0])
        told = zip(*verdicts, totals, strict=True)
        asked = told if chosen is None else compress(told, chosen)
        for sample, own in zip(records.rows(part, Sample, chosen), asked, strict=True):
            yield Candidate(sample, *own)


def of_problems(part: Path, learnt: Container[str] | None) -> list[bool] | None:
    """Whether each sample of a part is of one of these problems; None where all are wanted."""
    return None if learnt is None else [id in learnt for id in records.column(part, "problem_id")]


def total_rewards(path: Path) -> list[float | None]:
    scores = zip(*records.columns(path, "source", "reward"), strict=True)
    return [reward for source, reward in scores if source == TOTAL]
