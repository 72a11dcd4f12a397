"""Where a stage runs: in this process, or in a child that exits and frees its memory."""

from __future__ import annotations

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
from selftrain.session import Interrupted, Session
from selftrain.workers import Worker


def light(stage: Stage, session: Session) -> bool:
    """Whether a stage loads no model."""
    asked = session.config.monitor.kl or score_references(session.config)
    return stage.name == "verify" or (stage.name == "score" and not asked)


def in_place(session: Session, stage: Stage, work: Callable[[], Iterator[Event]]) -> Iterator[Event]:
    """The events of a stage, from wherever it runs."""
    if session.config.launch.place == "inline" or light(stage, session):
        for event in work():
            yield from closing(session, event) if isinstance(event, StageFinished) else [event]
        return
    python = interpreter(session.config.launch, stage.name)
    tree, root = to_tree(session.config), str(session.run.root)
    with Worker("selftrain.stages.place:serve", tree, root, output=True, python=python) as worker:
        worker.wait_ready()
        worker.send((stage.name, stage.iteration))
        while (event := worker.receive()) is not None:
            if event == "interrupted":
                raise Interrupted
            yield event


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
        except Interrupted:
            yield "interrupted"
            return
    for event in finished:  # Its engine ends with the stage, and that takes time too.
        yield from closing(session, event)
    yield None
