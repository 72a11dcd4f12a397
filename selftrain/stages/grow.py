"""Grow: sample solutions to the train problems with the current policy, in parts, judged as they arrive."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from selftrain import records
from selftrain.events import Event, Progress, StageFinished, StageStarted
from selftrain.sampling.base import Request
from selftrain.stages.plan import POLICY, Stages
from selftrain.stages.sampled import collect, cut, part_size, request, samples_of, settings_of
from selftrain.stages.session import Session
from selftrain.stages.verify import judge_part, verdicts_folder
from selftrain.types import Sample
from selftrain.verification import ErrorBudget


def samples_folder(session: Session, iteration: int) -> Path:
    return session.run.iteration(iteration) / "samples"


def grow(session: Session, iteration: int) -> Iterator[Event]:
    """Write ``samples/`` and, part by part in the background, ``verdicts/``."""
    started = time.monotonic()
    stages = Stages(session.config, session.run)
    stage = stages.grow(iteration)
    folder = samples_folder(session, iteration)
    stage.begin(folder)
    work = {step: work_list(session, iteration, step) for step in session.config.grow}
    total = sum(len(r.seeds) for requests in work.values() for r in requests)
    yield StageStarted(iteration, "grow", total, "samples")
    tally = Tally(iteration, total)
    budget = ErrorBudget(session.config.reward.verify.max_errors)
    with _judge() as judge:
        judging: list[Future[Counter[str]]] = []
        for step, requests in work.items():
            size = part_size(folder / f"{step}.plan.json", session.config.run.part_size)
            groups = cut(requests, size)
            paths = [folder / f"{step}-{number:05d}.parquet" for number in range(len(groups))]
            done = {number for number, path in enumerate(paths) if path.exists()}
            tally.kept(requests, groups, done)
            judging += [judge.submit(judge_part, session, iteration, paths[number], budget) for number in sorted(done)]
            yield tally.progress(judging)
            if len(done) == len(groups):
                continue
            sampler = session.sampler(session.config.grow[step].sampler, stages.checkpoint(POLICY, iteration - 1))
            for number, answers, tokens in collect(sampler, requests, groups, done):
                tally.tokens += tokens
                if number is not None:
                    part = _part(session, iteration, [requests[i] for i in groups[number]], answers)
                    records.write(paths[number], Sample, part)
                    tally.done += len(part)
                    judging.append(judge.submit(judge_part, session, iteration, paths[number], budget))
                    session.check_stop()
                yield tally.progress(judging)
        for future in judging:
            future.result()
    budget.check()
    stage.finish([folder])
    stages.verify(iteration).finish([verdicts_folder(session, iteration)])
    yield tally.progress(judging)
    yield StageFinished(iteration, "grow", time.monotonic() - started, tally.summary(judging), False)


@contextmanager
def _judge() -> Iterator[ThreadPoolExecutor]:
    """A thread for the judging; where sampling ends early, the part it is at is the last."""
    judge = ThreadPoolExecutor(1, "judge")
    try:
        yield judge
    finally:
        judge.shutdown(cancel_futures=True)


class Tally:
    """Counts for the progress of a Grow."""

    def __init__(self, iteration: int, total: int) -> None:
        self._iteration, self._total = iteration, total
        self.done = self.tokens = 0

    def kept(self, requests: Sequence[Request], groups: Sequence[Sequence[int]], done: set[int]) -> None:
        self.done += sum(len(requests[i].seeds) for number in done for i in groups[number])

    def progress(self, judging: Sequence[Future[Counter[str]]]) -> Progress:
        return Progress(self._iteration, "grow", self.done, self._total, self.tokens, dict(self.counts(judging)))

    def counts(self, judging: Sequence[Future[Counter[str]]]) -> Counter[str]:
        """Verdicts so far; raises what stopped the judging."""
        total: Counter[str] = Counter()
        for future in judging:
            if future.done():
                total.update(future.result())
        return total

    def summary(self, judging: Sequence[Future[Counter[str]]]) -> str:
        counts = self.counts(judging)
        right, judged = counts["right"], counts.total()
        others = ", ".join(f"{counts[name]} {name}" for name in ("unparsed", "timeout", "error") if counts[name])
        share = 100 * right / judged if judged else 0.0
        return f"{judged} samples, {share:.1f} % right" + (f" ({others})" if others else "")


def work_list(session: Session, iteration: int, step: str) -> list[Request]:
    """Requests for every train problem, by prompt length: samplers batch like with like, and parts follow them."""
    chosen = session.config.grow[step]
    settings = settings_of(chosen.sampling())
    seed = session.config.run.seed
    prompters = {task: session.prompter(task) for task in session.config.tasks}
    requests = [
        request(
            problem, prompters[problem.task].ids(problem), settings, chosen.n, seed=seed, iteration=iteration, step=step
        )
        for problem in session.problems.all("train")
    ]
    return sorted(requests, key=lambda r: len(r.prompt_ids))


def _part(
    session: Session, iteration: int, requests: Sequence[Request], answers: Sequence[Sequence[object]]
) -> list[Sample]:
    seed = session.config.run.seed
    policy = Stages(session.config, session.run).checkpoint_digest(POLICY, iteration - 1)
    part: list[Sample] = []
    for wanted, completions in zip(requests, answers, strict=True):
        sampler = session.config.grow[wanted.purpose].sampler.kind
        part += samples_of(wanted, completions, seed=seed, iteration=iteration, policy=policy, sampler=sampler)  # type: ignore[arg-type]
    return sorted(part, key=lambda sample: (sample.problem_id, sample.index))
