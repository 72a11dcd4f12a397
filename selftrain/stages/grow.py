"""Grow: sample solutions to the train problems with the current policy, in parts, judged as they arrive."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from selftrain.artifacts import Stage
from selftrain.budget import ErrorBudget
from selftrain.drawing.accept import accepted, enough_accepted, rounds, tallies
from selftrain.drawing.expected import drawn_before, expecting
from selftrain.drawing.parts import by_length
from selftrain.drawing.sampled import Advance, Drawing, request, sample_parts
from selftrain.drawing.store import shared_samples, shared_verdicts
from selftrain.events import Event, Notice, Progress, StageFinished, StageStarted
from selftrain.planning.writers import Writer
from selftrain.sampling.base import Request
from selftrain.session import Session
from selftrain.spending.note import samples_limit
from selftrain.stages.search import search_parts
from selftrain.stages.trees import Forest, grown_parts, told, trees_folder
from selftrain.stages.verify import set_aside_others, verdicts_folder
from selftrain.stages.watch import Judging

UNITS = {"sample": "samples", "search": "trees"}
"""What a step of Grow counts, by its kind."""


def samples_folder(session: Session, iteration: int) -> Path:
    return session.run.iteration(iteration) / "samples"


def grow(session: Session, iteration: int) -> Iterator[Event]:
    """Write ``samples/`` and, part by part in the background, ``verdicts/``.

    Where another run did the same, its samples are taken, and judging is left to Verify.
    """
    started = time.monotonic()
    stage = session.stages.grow(iteration)
    folder = samples_folder(session, iteration)
    work = {step: work_lists(session, iteration, step) for step in session.config.grow}
    first = [requests for lists in work.values() for requests in lists[:1]]
    total = sum(len(r.seeds) for requests in first for r in requests)
    kinds = {chosen.kind for chosen in session.config.grow.values()}
    yield StageStarted(iteration, "grow", total, " and ".join(UNITS[kind] for kind in UNITS if kind in kinds))
    every = {step: [r for requests in lists for r in requests] for step, lists in work.items()}
    shared = shared_samples(session, iteration, every)
    if taken := (yield from shared.take(folder)):
        stage.finish([folder])
        yield StageFinished(iteration, "grow", time.monotonic() - started, f"{taken} samples of another run", False)
        return
    stage.begin(folder)
    set_aside_others(session, iteration)
    tally = Tally(iteration, total)
    budget = ErrorBudget(session.config.reward.verify.max_errors)
    with Judging(session, iteration, budget) as judging:
        for step, lists in work.items():
            judging.begin(step)
            writer = session.writer(step, iteration - 1)
            if session.config.grow[step].kind == "search":
                forest = _forest(session, stage, step, lists[0], writer)
                for advance in search_parts(forest, judging):
                    yield tally.after(advance, judging)
                tally.settle()
                yield from told(forest, grown_parts(session.run, iteration, step))
                continue
            for number, requests in enumerate(lists):
                if number:
                    tally.settle()
                    if enough_accepted(session, iteration, step):
                        break
                    tally.expect(requests)
                stem = folder / (step if len(lists) == 1 else f"{step}-round{number}")
                requests = expecting(session, writer.sampler, requests, drawn_before(session, iteration, step))
                for advance in sample_parts(session, Drawing(requests, stem, writer, stage, judging)):
                    yield tally.after(advance, judging)
        tally.settle()
    budget.check()
    yield from told_accepted(session, iteration)
    yield from shared.publish(folder)
    stage.finish([folder, trees_folder(session, iteration)])
    verdicts = verdicts_folder(session, iteration)
    yield from shared_verdicts(session, iteration, folder).publish(verdicts)
    session.stages.verify(iteration).finish([verdicts])
    yield tally.progress()
    yield StageFinished(iteration, "grow", time.monotonic() - started, tally.summary(), False)


def _forest(session: Session, stage: Stage, step: str, work: Sequence[Request], writer: Writer) -> Forest:
    chosen, folder = session.config.grow[step], session.run.iteration(stage.iteration)
    return Forest(
        session,
        stage,
        f"grow.{step}",
        step,
        step,
        chosen,
        chosen.keep == "chosen",
        work,
        writer,
        session.asked(step),
        folder / "samples" / step,
        trees_folder(session, stage.iteration) / step,
    )


class Tally:
    """Counts for the progress of a Grow."""

    def __init__(self, iteration: int, total: int) -> None:
        self._iteration, self._total = iteration, total
        self.done = self.tokens = self.saved = 0
        self.judging: list[Future[Counter[str]]] = []

    def after(self, advance: Advance, judging: Judging) -> Progress:
        """How far the stage is now; the samples of a part that is on disk are judged."""
        self.done += advance.samples
        self.tokens += advance.tokens
        self.saved += advance.saved
        if advance.part is not None:
            self.judging.append(judging.part(advance.part, fresh=advance.fresh))
        return self.progress()

    def expect(self, requests: Sequence[Request]) -> None:
        """More is to be drawn than was foreseen."""
        self._total += sum(len(request.seeds) for request in requests)

    def settle(self) -> None:
        """Wait for the verdicts on all that is drawn."""
        for future in self.judging:
            future.result()

    def progress(self) -> Progress:
        return Progress(self._iteration, "grow", self.done, self._total, self.tokens, dict(self.counts()))

    def counts(self) -> Counter[str]:
        """Verdicts so far; raises what stopped the judging."""
        total: Counter[str] = Counter()
        for future in self.judging:
            if future.done():
                total.update(future.result())
        return total

    def summary(self) -> str:
        counts = self.counts()
        right, judged = counts["right"], counts.total()
        others = ", ".join(f"{counts[name]} {name}" for name in ("unparsed", "timeout", "error") if counts[name])
        share = 100 * right / judged if judged else 0.0
        saved = f"; stopping early saved about {self.saved:,} tokens" if self.saved > 0 and judged < self._total else ""
        return f"{judged} samples, {share:.1f} % right" + (f" ({others})" if others else "") + saved


def told_accepted(session: Session, iteration: int) -> Iterator[Event]:
    """What was accepted, where anything may not be."""
    for name, step in session.config.grow.items():
        found = accepted(session, iteration, name)
        if found is not None:
            asked = len(tallies(session, iteration, name)[1])
            few = len(found) < (step.prompts or 0)
            more = "; fewer than were wanted: widen accept.accuracy or raise accept.oversample" if few else ""
            told = f"iteration {iteration}: {len(found)} of {asked} problems of {name} are learnt from{more}"
            yield Notice(told, "warning" if few else "info")


def work_list(session: Session, iteration: int, step: str) -> list[Request]:
    """All requests an iteration may make of a step."""
    return [request for requests in work_lists(session, iteration, step) for request in requests]


def work_lists(session: Session, iteration: int, step: str) -> list[list[Request]]:
    """Requests for the train problems of this iteration: one list, or one for each round of problems."""
    chosen = session.config.grow[step]
    writer = session.writer(step, iteration - 1)
    sampling = {task: session.settings(chosen.sampling(), task, chosen.model) for task in session.config.tasks}
    limit = samples_limit(session.run, iteration)
    return [
        by_length(
            request(
                problem,
                writer,
                sampling[problem.task],
                session.samples_per_problem(chosen.n, problem.task, limit) if chosen.kind == "sample" else 1,
                seed=session.config.run.seed,
                iteration=iteration,
                step=step,
            )
            for problem in problems
        )
        for problems in rounds(session, iteration, chosen)
    ]
