"""``loop.keep``: checkpoints of older iterations, and what they were scored by, leave the disk."""

from __future__ import annotations

from selftrain.artifacts import REMOVED, removed
from selftrain.config import to_tree
from selftrain.files import remove, write_json
from selftrain.planning.best import best_iteration
from selftrain.planning.settings import evaluated
from selftrain.session import Session
from selftrain.stages.evaluate import metrics_of
from selftrain.stages.logprobs import LOGPROBS
from selftrain.stages.resident import STATE, last_saved


def thin_out(session: Session, iteration: int) -> None:
    """Remove checkpoints, optimizer states and log-probabilities but those of the newest iterations, of the best one,
    and of the one a killed run would go on from."""
    keep = session.config.loop.keep
    if keep is None:
        return
    needed = {best_so_far(session, iteration), last_saved(session), *range(iteration - keep + 1, iteration + 1)}
    for number in range(1, iteration):
        if number not in needed:
            _remove(session, number)


def _remove(session: Session, iteration: int) -> None:
    folder = session.run.iteration(iteration)
    places = [f"{name}/{what}" for name in session.config.learners for what in ("checkpoint", STATE)]
    places.append(LOGPROBS)
    if sorted(removed(folder)) == sorted(places):
        return
    write_json(folder / REMOVED, places)  # First: what is half removed is not missed.
    for place in places:
        remove(folder / place)


def best_so_far(session: Session, iteration: int) -> int | None:
    numbers = [number for number in range(iteration + 1) if evaluated(session.config, number)]
    rows = [row for number in numbers for row in metrics_of(session, number)]
    best = best_iteration(rows, to_tree(session.config))
    return best[0] if best else None
