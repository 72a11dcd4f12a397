"""Problems that are learnt from because they are solved neither too often nor too seldom (Cui et al. 2025, "Process
Reinforcement through Implicit Rewards", section 3.3; Yu et al. 2025, "DAPO", section 3.2).

Who is accepted follows from the verdicts on disk and the order in which problems are asked, so it is the same for every
stage that asks, and after a kill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

from selftrain import records
from selftrain.drawing.allocate import problems_of, shares_of
from selftrain.schema import Accept, Grow
from selftrain.selection import ENDED
from selftrain.session import Session
from selftrain.types import UNJUDGED, Problem


def rounds(session: Session, iteration: int, step: Grow) -> list[list[Problem]]:
    """The problems of an iteration: all at once, or ``prompts`` by ``prompts``, as many as ``accept`` may need.

    A problem that comes again, where the pool is small, is asked once.
    """
    if step.accept is None:
        return [problems_of(session, iteration, step.prompts)]
    seen: set[str] = set()
    found = []
    for number in range((iteration - 1) * step.accept.oversample, iteration * step.accept.oversample):
        fresh = [one for one in problems_of(session, number + 1, step.prompts) if one.id not in seen]
        seen.update(one.id for one in fresh)
        found.append(fresh)
    return [problems for problems in found if problems]


def accepted(session: Session, iteration: int, name: str) -> set[str] | None:
    """Ids of the problems of a step that are learnt from, ``prompts`` at most; None where all are."""
    step = session.config.grow[name]
    if step.accept is None or step.prompts is None:
        return None
    fit = fitting(session, iteration, name, step.accept)
    return shared_out(fit, shares_of(session, step.prompts))


def shared_out(fit: Sequence[Problem], parts: Mapping[str, int]) -> set[str]:
    """Ids of the first problems of each task, up to its part; of the first others, where a task has too few."""
    chosen = {one.id for task, part in parts.items() for one in islice((p for p in fit if p.task == task), part)}
    others = (problem.id for problem in fit if problem.id not in chosen)
    return chosen | set(islice(others, sum(parts.values()) - len(chosen)))


def enough_accepted(session: Session, iteration: int, name: str) -> bool:
    """Whether every task has its share of the problems that are learnt from."""
    step = session.config.grow[name]
    if step.accept is None or step.prompts is None:
        return True
    found = Counter(problem.task for problem in fitting(session, iteration, name, step.accept))
    return all(found[task] >= part for task, part in shares_of(session, step.prompts).items())


def fitting(session: Session, iteration: int, name: str, rule: Accept) -> list[Problem]:
    """All problems asked so far that the rule lets in, in the order in which they were asked."""
    right, judged, cut = tallies(session, iteration, name)
    return [
        problem
        for problems in rounds(session, iteration, session.config.grow[name])
        for problem in problems
        if within(rule, right[problem.id], judged[problem.id], cut[problem.id])
    ]


def tallies(session: Session, iteration: int, name: str) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """By problem: right samples, judged ones, and truncated ones."""
    folder = session.run.iteration(iteration)
    right: Counter[str] = Counter()
    judged: Counter[str] = Counter()
    cut: Counter[str] = Counter()
    for part in records.parts(folder / "samples", f"{name}-"):
        problems, reasons = records.columns(part, "problem_id", "finish_reason")
        statuses = records.column(folder / "verdicts" / part.name, "status")
        judged.update(problem for problem, status in zip(problems, statuses, strict=True) if status not in UNJUDGED)
        right.update(problem for problem, status in zip(problems, statuses, strict=True) if status == "right")
        cut.update(problem for problem, reason in zip(problems, reasons, strict=True) if reason not in ENDED)
    return right, judged, cut


def within(rule: Accept, right: int, judged: int, cut: int) -> bool:
    """Whether a problem is accepted; one sample alone has nothing to be compared with."""
    if judged < 2 or (cut and rule.truncated == "drop"):
        return False
    low, high = rule.accuracy
    return low <= right / judged <= high
