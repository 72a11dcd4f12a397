"""Requests to a sampler and the samples that come back: shared by Grow and by evaluation."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from selftrain import records, registry
from selftrain.artifacts import Stage
from selftrain.drawing.journal import Journal
from selftrain.drawing.ledger import Ledger
from selftrain.drawing.parts import planned
from selftrain.errors import RunError, failing_as_run_error
from selftrain.files import remove
from selftrain.planning.replicas import several
from selftrain.planning.writers import Writer
from selftrain.prompts import unclosed
from selftrain.sampling.base import Completion, Request
from selftrain.schema import Sampling
from selftrain.seeds import derive, sample_id
from selftrain.session import Session
from selftrain.types import FinishReason, Problem, Sample


def request(
    problem: Problem, writer: Writer, settings: Sampling, n: int, *, seed: int, iteration: int, step: str
) -> Request:
    """``n`` samples of one problem, asked with the prompt of its task."""
    prompter = writer.prompters[problem.task]
    seeds = seeds_of(problem, n, seed=seed, iteration=iteration, step=step)
    messages = prompter.messages(problem) if prompter.template is not None else ()
    return Request(problem, prompter.ids(problem), seeds, settings, step, messages, prompter.text(problem))


def seeds_of(problem: Problem, n: int, *, seed: int, iteration: int, step: str) -> tuple[int, ...]:
    """They follow from run seed, iteration, step, problem and index."""
    return tuple(derive(seed, iteration, step, problem.id, index) for index in range(n))


@dataclass(frozen=True)
class Advance:
    """How far sampling came: tokens drawn, or a part that is on disk."""

    tokens: int = 0
    part: Path | None = None
    samples: int = 0
    """How many the part holds."""
    fresh: bool = True
    """Whether this process wrote the part."""
    saved: int = 0
    """Tokens that were not drawn because enough samples were right, about."""


class Watcher(Protocol):
    """Who judges samples while they are drawn."""

    enough: int | None
    """Right samples that learners could be taught, after which a problem is done."""

    def arrived(self, work: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Begin to judge."""

    def settle(self, ledger: Ledger, wait: bool = False) -> list[int]:
        """Tell a ledger of the verdicts that are there; requests they belong to."""


class NoWatcher:
    """Nobody looks before all are drawn."""

    enough: int | None = None

    def arrived(self, work: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Nothing to do."""

    def settle(self, ledger: Ledger, wait: bool = False) -> list[int]:
        return []


NOBODY = NoWatcher()


@dataclass(frozen=True)
class Drawing:
    """One work list on its way to files ``stem-00000.parquet`` and so on."""

    work: Sequence[Request]
    stem: Path
    writer: Writer
    stage: Stage
    """The one that draws; the samples are recorded under its iteration."""
    watcher: Watcher = NOBODY

    @property
    def journal(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.journal")


def sample_parts(session: Session, drawing: Drawing) -> Iterator[Advance]:
    """Answer a work list into its files.

    Parts that are on disk already come first; where none is missing no engine is opened. Where the sampler says so,
    responses are kept in a journal as they come, so that a killed process loses none. After every part written the
    run may stop.

    Raises:
        Interrupted: the run was asked to stop.
        RunError: the sampler failed; the parts it finished stay.
        StaleStage: the parts on disk answer another work list.
    """
    work, stem = drawing.work, drawing.stem
    plan = stem.with_name(f"{stem.name}.plan.json")
    groups = planned(plan, work, session.config.run.part_size, drawing.stage.label)
    paths = [stem.with_name(f"{stem.name}-{number:05d}.parquet") for number in range(len(groups))]
    done = {number for number, path in enumerate(paths) if path.exists()}
    for kept in sorted(done):
        yield Advance(part=paths[kept], samples=records.count(paths[kept]), fresh=False)
    if len(done) < len(groups):
        on_disk = {index for number in done for index in groups[number]}
        with _journal(session, drawing, on_disk) as journal:
            ledger = Ledger(work, enough=drawing.watcher.enough, journal=journal, closed=on_disk)
            for number, answers, tokens in collect(session, drawing, groups, done, ledger):
                if number is None:
                    yield Advance(tokens=tokens)
                    continue
                requests = [work[i] for i in groups[number]]
                samples = _samples(session, drawing, requests, answers)
                records.write(paths[number], Sample, samples)
                ledger.written(groups[number])
                yield Advance(part=paths[number], samples=len(samples))
                session.check_stop()
        yield Advance(saved=ledger.saved)
    remove(drawing.journal)


def _journal(session: Session, drawing: Drawing, on_disk: Container[int]) -> AbstractContextManager[Journal | None]:
    """Where the sampler can make use of one, and where replicas finish parts late."""
    sampler = drawing.writer.sampler
    journaled = getattr(registry.resolve("sampler", sampler.kind), "journaled", False)
    shared = several(sampler, session.config.launch, session.cluster)
    return closing(Journal(drawing.journal, on_disk)) if journaled or shared else nullcontext()


def collect(
    session: Session, drawing: Drawing, groups: Sequence[Sequence[int]], done: set[int], ledger: Ledger
) -> Iterator[tuple[int | None, list[list[Completion]], int]]:
    """Run the work list and put responses together by group of requests.

    Args:
        groups: indices into the work list, each in one group.
        done: groups that are on disk already.

    Yields:
        After every answer of the sampler: None and the tokens the answer held; and the groups that are finished by
        it, with their completions by request in order of index. Before that, what an earlier process had finished.

    Raises:
        RunError: the sampler failed; the groups it finished have been yielded.
    """
    waiting = Waiting(groups, done, ledger)
    work, watcher = drawing.work, drawing.watcher

    def finished(
        completions: Sequence[Completion], wait: bool = False
    ) -> Iterator[tuple[int | None, list[list[Completion]], int]]:
        watcher.arrived(work, completions)
        touched = {completion.request for completion in completions}
        for number in waiting.finished({*touched, *watcher.settle(ledger, wait)}):
            yield number, [ledger.take(index) for index in groups[number]], 0

    # Verdicts on what is there tell what need not be drawn at all.
    yield from finished(ledger.recover(), wait=True)
    for completions in _drawn(session, drawing, ledger):
        yield from finished(completions)
        yield None, [], sum(len(completion.ids) for completion in completions)
    yield from finished([], wait=True)
    if waiting.groups:
        raise RunError(
            f"the sampler ended and left {len(waiting.groups)} part(s) unfinished; run the same command again"
        )


def _drawn(session: Session, drawing: Drawing, ledger: Ledger) -> Iterator[list[Completion]]:
    """Responses of the sampler that the ledger took in."""
    wanted = any(ledger.wanted(r, i) for r, request in enumerate(drawing.work) for i in range(len(request.seeds)))
    if wanted:
        engine = session.sampler(drawing.writer.sampler, drawing.writer.checkpoint)
        for completions in failing_as_run_error(engine.sample(drawing.work, ledger), "the sampler"):
            yield ledger.finish(completions)


class Waiting:
    """Groups of requests that are not finished yet."""

    def __init__(self, groups: Sequence[Sequence[int]], done: set[int], ledger: Ledger) -> None:
        self.groups = {number: set(group) for number, group in enumerate(groups) if number not in done}
        self._of = {index: number for number, group in self.groups.items() for index in group}
        self._ledger = ledger

    def finished(self, requests: Iterable[int]) -> list[int]:
        """Groups that are whole now that something of these requests has come."""
        whole = []
        for request in sorted(requests):
            left = self.groups.get(self._of[request], set())
            if request in left and self._ledger.complete(request):
                left.discard(request)
                if not left:
                    del self.groups[self._of[request]]
                    whole.append(self._of[request])
        return whole


def _samples(
    session: Session, drawing: Drawing, requests: Sequence[Request], answers: Sequence[Sequence[Completion]]
) -> list[Sample]:
    found = [
        sample_of(session, drawing, request, completion)
        for request, completions in zip(requests, answers, strict=True)
        for completion in completions
    ]
    return sorted(found, key=lambda s: (s.problem_id, s.step, s.index))


def sample_of(session: Session, drawing: Drawing, request: Request, answer: Completion) -> Sample:
    writer, problem = drawing.writer, request.problem
    answer = writer.in_our_tokens(problem.task, answer)
    return Sample(
        id=sample_id(session.config.run.seed, drawing.stage.iteration, request.purpose, problem.id, None, answer.index),
        problem_id=problem.id,
        iteration=drawing.stage.iteration,
        step=request.purpose,
        index=answer.index,
        prompt_ids=writer.read_by_us(request),
        response_ids=answer.ids,
        text=answer.text,
        finish_reason=finish_reason(session, request, answer),
        policy=writer.name,
        sampler=writer.sampler.kind,
        origin=writer.origin,
        ids_from=answer.ids_from,
        seed=request.seeds[answer.index],
        logprobs=answer.logprobs,
        segments=answer.segments or None,
    )


def finish_reason(session: Session, request: Request, answer: Completion) -> FinishReason:
    """As a sample records it: a response that ends in open reasoning was cut short, whatever ended it."""
    return (
        "length" if unclosed(request.text, answer.text, session.config.model.chat.reasoning) else answer.finish_reason
    )
