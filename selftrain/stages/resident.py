"""Learners that go on from iteration to iteration: where their optimizer's state lies, and trainers that stay.

With ``launch.keep: run`` a trainer stays in memory, and the state is written every ``loop.save_every`` iterations; a
stage in a process of its own writes it each time. After a kill the run goes on from the last iteration whose state is
there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.errors import RunError
from selftrain.events import Event, Notice
from selftrain.files import replacing
from selftrain.schema import Learner
from selftrain.session import Session

if TYPE_CHECKING:
    from selftrain.training.fit import Fit

STATE = "optimizer"


def going_on(session: Session, iteration: int, learner: str, asked: Fit) -> Fit:
    """A fit that goes on where the learner's last one ended, as far as its config says.

    Raises:
        RunError: its optimizer's state is not there any more.
    """
    from selftrain.training.fit import Resident

    chosen = session.config.learners[learner]
    if chosen.init != "previous":
        return asked
    at, resident = session.trainers.pop(learner, (None, None))
    here = at == asked.source
    if resident is not None and not here:
        resident.close()
    if stays(session):
        asked = replace(asked, resident=resident if here else Resident())
    if chosen.optim.state == "keep":
        before = state_file(session, iteration - 1, learner)
        if iteration > 1 and not here and not before.exists():
            raise RunError(
                f"iteration {iteration}: {before} is missing, where the optimizer of '{learner}' goes on; redo the "
                f"iteration before with --redo {iteration - 1}/improve-{learner}"
            )
        asked = replace(
            asked,
            span=(chosen.optim.steps or 1) * session.config.loop.iterations,
            state=before if iteration > 1 and not here else None,
        )
    return asked


def stays(session: Session) -> bool:
    return session.config.launch.keep == "run" and session.config.launch.place == "inline"


def saved(session: Session, iteration: int) -> bool:
    """Whether an iteration writes the state of optimizers that go on."""
    loop = session.config.loop
    return not stays(session) or iteration % loop.save_every == 0 or iteration == loop.iterations


def state_file(session: Session, iteration: int, learner: str) -> Path:
    return session.run.iteration(iteration) / learner / STATE


def kept_states(session: Session) -> list[str]:
    """Learners whose optimizer goes on."""
    return [name for name, learner in session.config.learners.items() if _goes_on(learner)]


def _goes_on(learner: Learner) -> bool:
    return learner.init == "previous" and learner.optim.state == "keep"


def roll_back(session: Session) -> Iterator[Event]:
    """Set aside the iterations after the last one from which every learner can go on."""
    learners = kept_states(session)
    begun = [number for number in session.run.iterations() if number > 0]
    if not learners or not begun:
        return
    whole = [n for n in begun if all(_fitted(session, n, name) and _saved(session, n, name) for name in learners)]
    last = max(whole, default=0)
    behind = [number for number in begun if number > last]
    # The next one may be under way: it begins with what is there, unless a fit of it is over.
    if any(number > last + 1 or any(_fitted(session, number, name) for name in learners) for number in behind):
        session.run.set_aside([session.run.iteration(number) for number in behind])
        yield Notice(f"goes on after iteration {last}, the last one with saved optimizers (loop.save_every)", "info")


def last_saved(session: Session) -> int:
    """The last iteration from which every learner can go on; 0: the start."""
    learners = kept_states(session)
    whole = (
        number
        for number in session.run.iterations()
        if number and all(_fitted(session, number, name) and _saved(session, number, name) for name in learners)
    )
    return max(whole, default=0)


def _fitted(session: Session, iteration: int, learner: str) -> bool:
    return (session.run.iteration(iteration) / f"improve-{learner}.done").exists()


def _saved(session: Session, iteration: int, learner: str) -> bool:
    return state_file(session, iteration, learner).exists()


def carry_on(session: Session, iteration: int, learner: str, source: Path, target: Path) -> None:
    """A learner keeps its checkpoint: its optimizer is where it was."""
    at, resident = session.trainers.pop(learner, (None, None))
    if at == source:
        session.trainers[learner] = (target, resident)
    elif resident is not None:
        resident.close()
    before = state_file(session, iteration - 1, learner)
    if learner in kept_states(session) and before.exists():
        with replacing(state_file(session, iteration, learner)) as copy:
            shutil.copytree(before, copy)
