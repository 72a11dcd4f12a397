"""Where a stage runs: in this process, or in a child that exits and frees its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from selftrain.artifacts import RunDir, Stage
from selftrain.config import check_tree, to_tree
from selftrain.events import Event
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
        yield from work()
        return
    with Worker("selftrain.stages.place:serve", to_tree(session.config), str(session.run.root), output=True) as worker:
        worker.wait_ready()
        worker.send((stage.name, stage.iteration))
        while (event := worker.receive()) is not None:
            if event == "interrupted":
                raise Interrupted
            yield event


def serve(tree: dict[str, Any], root: str) -> Callable[[tuple[str, int]], Iterator[Any]]:
    """Start-up of the child; it answers the name of a stage by its events and a None."""
    return partial(_events, tree, root)


def _events(tree: dict[str, Any], root: str, wanted: tuple[str, int]) -> Iterator[Any]:
    from selftrain.stages.order import iteration_stages, preparation

    with Session(check_tree(tree), RunDir(Path(root))) as session:
        listed = [*preparation(session), *iteration_stages(session, wanted[1])]
        work = next(work for stage, work in listed if (stage.name, stage.iteration) == wanted)
        try:
            yield from work()
        except Interrupted:
            yield "interrupted"
            return
    yield None
