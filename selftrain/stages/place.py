"""Where a stage runs: in this process, or in a child that exits and frees its memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from selftrain.artifacts import RunDir, Stage
from selftrain.config import check_tree, to_tree
from selftrain.events import Event, Handover, Notice, StageFinished
from selftrain.planning.interpreters import interpreter
from selftrain.planning.references import score_references
from selftrain.schema import Launch, Ray, RunConfig
from selftrain.session import Interrupted, Session
from selftrain.workers import Start, Worker

FITS = ("warmup", "improve")
"""Kinds of stages that fit a learner: what stands before the ``-`` of their names."""


def light(stage: Stage, session: Session) -> bool:
    """Whether a stage loads no model."""
    asked = session.config.monitor.kl or score_references(session.config)
    return stage.name == "verify" or (stage.name == "score" and not asked)


def in_place(session: Session, stage: Stage, work: Callable[[], Iterator[Event]]) -> Iterator[Event]:
    """The events of a stage, from wherever it runs."""
    launch = session.config.launch
    if launch.place == "inline" or light(stage, session):
        return ended(session, work())
    if launch.place == "processes":
        start = partial(Worker, python=interpreter(launch, stage.name))
        return _apart(session, stage, start, session.config)
    if not fits_alone(stage, launch):
        return ended(session, work())
    return ended(session, _placed(session, stage))


def fits_alone(stage: Stage, launch: Launch) -> bool:
    """Whether a stage is a fit in its own process; others only ask processes of theirs."""
    return stage.name.partition("-")[0] in FITS and launch.train.engine == "torch"


def _placed(session: Session, stage: Stage) -> Iterator[Event]:
    """A fit on some node, which it has for itself."""
    assert session.cluster is not None
    session.free_for_training()
    (start,) = session.cluster.spread(1, 1)
    own = replace(session.config.launch, place="inline", ray=Ray(), score_processes=1)
    yield from _apart(session, stage, start, replace(session.config, launch=own))


def _apart(session: Session, stage: Stage, start: Start, config: RunConfig) -> Iterator[Event]:
    tree, root = to_tree(config), str(session.run.root)
    with contextlib.closing(start("selftrain.stages.place:serve", tree, root, output=True)) as worker:
        worker.receive()
        worker.send((stage.name, stage.iteration))
        while (event := worker.receive()) is not None:
            if isinstance(event, Interrupted):
                raise event
            yield event


def ended(session: Session, events: Iterator[Event]) -> Iterator[Event]:
    for event in events:
        yield from closing(session, event) if isinstance(event, StageFinished) else [event]


def closing(session: Session, finished: StageFinished) -> Iterator[Event]:
    """The end of a stage, with what was done with engines meanwhile."""
    handover = session.handed_over()
    for why in handover.failures:
        yield Notice(f"an engine failed, and another took its place: {why}", "warning")
    if words := handover.in_words():
        yield Handover(finished.iteration, finished.stage, handover.seconds, handover.shared)
        finished = replace(finished, summary="; ".join(filter(None, (finished.summary, words))))
    yield finished


def serve(tree: dict[str, Any], root: str) -> Callable[[tuple[str, int]], Iterator[Any]]:
    """Start-up of the child; it answers the name of a stage by its events and a None."""
    return partial(_events, tree, root)


def _events(tree: dict[str, Any], root: str, wanted: tuple[str, int]) -> Iterator[Any]:
    from selftrain.stages.order import iteration_stages, preparation

    finished: list[StageFinished] = []
    with Session(check_tree(tree), RunDir(Path(root))) as session:
        listed = [*preparation(session), *iteration_stages(session, wanted[1])]
        work = next(work for stage, work in listed if (stage.name, stage.iteration) == wanted)
        try:
            for event in work():
                if isinstance(event, StageFinished):
                    finished.append(event)
                else:
                    yield event
        except Interrupted as interrupted:
            yield interrupted
            return
    for event in finished:  # Its engine ends with the stage, and that takes time too.
        yield from closing(session, event)
    yield None
