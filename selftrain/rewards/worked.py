"""Values of worked solutions and of steps that do not belong there: D_V0 of ReST-MCTS* (Zhang et al. 2024).

A worked solution of K steps is worth k / K after step k: the paper's ``v_k = v_{k-1} + (1 - v_{k-1}) / m`` for good
steps, with ``m`` steps to go from the state before. A wrong step takes away: ``v = max(0, v_{k-1} - (1 - v_{k-1}) /
m)``, with ``m`` of the state before it as the authors' code counts it: its steps to the answer, and one.

Simplified: a step of another solution stands for a wrong one, which it nearly always is; nothing follows it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import NamedTuple

Steps = tuple[tuple[int, ...], ...]


class Worked(NamedTuple):
    """A solution by its steps: token ids and text of each."""

    ids: Steps
    texts: tuple[str, ...]


class Valued(NamedTuple):
    """A response and what its steps are worth."""

    ids: tuple[int, ...]
    targets: tuple[float, ...]
    """One per id: NaN but where a step ends."""


def worked_values(steps: int) -> tuple[float, ...]:
    """After each step of a worked solution."""
    return tuple((place + 1) / steps for place in range(steps))


def mistake_value(before: int, steps: int) -> float:
    """After a wrong step that follows ``before`` good ones of a solution of so many steps."""
    parent, distance = before / steps, steps - before + 1
    return max(0.0, parent - (1.0 - parent) / distance)


def cut(ids: Sequence[int], texts: Sequence[str], ends: Sequence[int]) -> Worked:
    """A solution from its tokens, their texts, and the exclusive ends of its steps."""
    spans = list(pairwise((0, *ends)))
    return Worked(
        tuple(tuple(ids[start:end]) for start, end in spans), tuple("".join(texts[start:end]) for start, end in spans)
    )


def valued(steps: Steps, values: Sequence[float]) -> Valued:
    """A response of these steps."""
    targets = (target for step, value in zip(steps, values, strict=True) for target in _at_end(step, value))
    return Valued(tuple(token for step in steps for token in step), tuple(targets))


def right(solution: Worked) -> Valued:
    """The solution itself."""
    return valued(solution.ids, worked_values(len(solution.ids)))


def mistaken(solutions: Sequence[Worked], place: int, rng: Random) -> Valued | None:
    """One of the solutions up to a step that stands in place of its own, of another solution and with another text.

    A last step is replaced by a last one, since an answer is told apart from a step by how it looks; None where no
    other solution has a step that differs.
    """
    own = solutions[place]
    count = len(own.ids)
    before = rng.randrange(count)
    last, text = before == count - 1, own.texts[before].strip()
    first = rng.randrange(len(solutions))
    for turn in range(len(solutions)):
        other = (first + turn) % len(solutions)
        theirs = solutions[other]
        pool = [len(theirs.ids) - 1] if last else [*range(len(theirs.ids) - 1)]
        fitting = [step for step in pool if theirs.texts[step].strip() not in ("", text)]
        if other != place and fitting:
            step = theirs.ids[rng.choice(fitting)]
            values = (*worked_values(count)[:before], mistake_value(before, count))
            return valued((*own.ids[:before], step), values)
    return None


def last_only(response: Valued) -> Valued:
    """Of a model that is read at the last token alone."""
    return Valued(response.ids, (*(math.nan for _ in response.ids[1:]), response.targets[-1]))


def _at_end(step: tuple[int, ...], value: float) -> tuple[float, ...]:
    return (*(math.nan for _ in step[1:]), value)
