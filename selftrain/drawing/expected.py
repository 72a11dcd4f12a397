"""How long responses will be, as far as earlier ones tell: replicas begin with the longest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from selftrain import records
from selftrain.planning.replicas import several
from selftrain.sampling.base import Request
from selftrain.schema import Component
from selftrain.session import Session


def expecting(session: Session, sampler: Component, work: Sequence[Request], parts: Iterable[Path]) -> list[Request]:
    """Requests with the mean length of earlier responses to their problem, else of those to their task; as they are
    where one engine draws all, which begins with the shortest prompts, so that parts are soon finished.

    Args:
        parts: files of samples that were drawn before; those that are not there tell nothing.
    """
    if not several(sampler, session.config.launch, session.cluster):
        return list(work)
    by_problem, by_task = mean_lengths(parts)
    return [replace(one, expected=by_problem.get(one.problem.id, by_task.get(one.problem.task))) for one in work]


def mean_lengths(parts: Iterable[Path]) -> tuple[dict[str, float], dict[str, float]]:
    """Tokens of a response, by problem and by task."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for part in parts:
        if part.exists():
            for problem, tokens in zip(
                records.column(part, "problem_id"), records.lengths(part, "response_ids"), strict=True
            ):
                found[problem].append(tokens)
    tasks: defaultdict[str, list[int]] = defaultdict(list)
    for problem, lengths in found.items():
        tasks[problem.partition("/")[0]] += lengths
    return _means(found), _means(tasks)


def _means(lengths: dict[str, list[int]]) -> dict[str, float]:
    return {name: fmean(own) for name, own in lengths.items()}


def drawn_before(session: Session, iteration: int, step: str) -> list[Path]:
    """The samples of a step in the iteration before."""
    return records.parts(session.run.iteration(iteration - 1) / "samples", f"{step}-")
