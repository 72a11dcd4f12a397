"""Which problems an iteration of Grow asks: all, or a number shared among the tasks by weight.

Each task goes through its problems in a seeded order, and through all of them before any comes again. Where an
iteration begins follows from its number, so a resumed run asks what an undisturbed one would have asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from selftrain.seeds import derive
from selftrain.session import Session
from selftrain.types import Problem


def problems_of(session: Session, iteration: int, prompts: int | None) -> list[Problem]:
    """The train problems asked in an iteration, counted from 1."""
    tasks = (name for name in session.config.tasks if name not in session.problems.watched)
    pools = {name: session.problems.of(name, "train") for name in tasks}
    if prompts is None:
        return [problem for pool in pools.values() for problem in pool]
    seed, parts, ids = session.config.run.seed, shares_of(session, prompts), session.problems.train_ids
    return [
        pool[place]
        for name, pool in pools.items()
        for place in stretch(ids[name], (iteration - 1) * parts[name], iteration * parts[name], f"{seed}/{name}")
    ]


def shares_of(session: Session, prompts: int) -> dict[str, int]:
    """How many of so many problems are of each task that is learnt from."""
    tasks, watched = session.config.tasks.items(), session.problems.watched
    return shares({name: task.weight for name, task in tasks if name not in watched}, prompts)


def shares(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """``total`` divided by weight, largest remainders first, so that the parts add up to it."""
    whole = sum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    parts = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: parts[name] - exact[name])
    for name in by_remainder[: total - sum(parts.values())]:
        parts[name] += 1
    return parts


def stretch(ids: tuple[str, ...], start: int, end: int, name: str) -> list[int]:
    """Places in a pool from ``start`` to ``end`` of the endless list that goes through it again and again, newly mixed.

    Where that reaches from one round into the next, a place of both is there once.
    """
    found: list[int] = []
    for round_ in range(start // len(ids), -(-end // len(ids))):
        first = round_ * len(ids)
        found += order(ids, name, round_)[max(start - first, 0) : end - first]
    return list(dict.fromkeys(found))


@lru_cache(maxsize=64)
def order(ids: tuple[str, ...], name: str, round_: int) -> list[int]:
    """Places in the order of a round; every iteration of an online run asks for the same few, several times."""
    return sorted(range(len(ids)), key=lambda place: derive(name, round_, ids[place]))
