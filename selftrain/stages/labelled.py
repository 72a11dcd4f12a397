"""Scores of the steps of solutions that are given, without a loop: what a reward source says of labelled steps."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence

from selftrain.errors import RunError
from selftrain.events import Event, Progress, StageFinished, StageStarted
from selftrain.labelling.files import LabelledSteps
from selftrain.planning.problems import ProblemSet
from selftrain.prompts import Prompter
from selftrain.rewards.base import Judged, Models, RewardSource
from selftrain.session import Session
from selftrain.stages.logprobs import Logprobs, RunModels
from selftrain.types import Problem, Sample, Verdict

PART = 256
"""Solutions that are scored together; what was computed of finished parts is kept over a kill."""
STAGE, SOURCE = "steps", "prm"
NOT_JUDGED = Verdict("error", reason="its steps are labelled, its answer is not")

Scores = list[tuple[float, ...]]


def problems_of(rows: Sequence[LabelledSteps]) -> ProblemSet:
    """What is asked, each problem by its own text."""
    asked = {row.problem: Problem(id=row.problem, task=STAGE, split="", question=row.problem) for row in rows}
    return ProblemSet({STAGE: {"": list(asked.values())}}, dropped={}, held_out=frozenset({""}))


def as_judged(rows: Sequence[LabelledSteps], problems: ProblemSet, prompter: Prompter, separator: str) -> list[Judged]:
    """Solutions as responses to their problems, encoded once and with the ends of their steps.

    Args:
        separator: what stands between two steps.
    """
    found = []
    for number, row in enumerate(rows):
        ids, ends = prompter.encoder.steps(row.steps, separator)
        sample = Sample(
            id=str(number),
            problem_id=row.problem,
            iteration=0,
            step=STAGE,
            index=number,
            prompt_ids=prompter.ids(problems.by_id[row.problem]),
            response_ids=ids,
            text=separator.join(row.steps),
            finish_reason="eos",
            policy="",
            sampler="",
            ids_from="retokenised",
        )
        found.append(Judged(sample.id, NOT_JUDGED, sample, ends))
    return found


def step_scores(
    session: Session, source: RewardSource, name: str, judged: Sequence[Judged]
) -> Generator[Event, None, Scores]:
    """A score for every step of every solution, in order.

    Args:
        name: of the source, for messages.

    Raises:
        RunError: the source gives steps no scores, or others than those it is told of.
    """
    started = time.monotonic()
    found: Scores = []
    yield StageStarted(0, STAGE, len(judged), "solutions")
    with Logprobs(session, 0) as logprobs:
        models = RunModels(session, 0, "score", logprobs)
        for begin in range(0, len(judged), PART):
            found += _scored(judged[begin : begin + PART], source, name, models)
            yield Progress(0, STAGE, len(found), len(judged))
            session.check_stop()
    steps = sum(map(len, found))
    yield StageFinished(0, STAGE, time.monotonic() - started, f"{steps:,} steps of {len(found):,} solutions", False)
    return found


def _scored(judged: Sequence[Judged], source: RewardSource, name: str, models: Models) -> Scores:
    scores = list(source.scores(judged, SOURCE, models))
    for one, score in zip(judged, scores, strict=True):
        if score.step_rewards is None or not score.valid:
            raise RunError(f"{name} gives no scores to steps; choose a source that does, such as implicit_prm")
        if score.step_ends != one.ends:
            raise RunError(
                f"{name} found {len(score.step_rewards)} steps where a solution has {len(one.ends or ())}: a source "
                "must take the ends it is given (Judged.ends)"
            )
    return [score.step_rewards or () for score in scores]
