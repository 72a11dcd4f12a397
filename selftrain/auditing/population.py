"""The judged responses of an iteration that an audit is about: evaluated answers of a split, or what Grow drew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.auditing.design import Judged
from selftrain.digests import file_digest
from selftrain.errors import RunError
from selftrain.types import Status

GROWN = "train"
"""The split whose responses are the samples of Grow."""
GREEDY = "greedy"
RESPONSE = ("id", "problem_id", "step", "text", "finish_reason")
VERDICT = ("status", "answer", "reason", "verifier", "by")


class Asked(NamedTuple):
    """A problem, as a person reads it."""

    task: str
    question: str
    gold: str


class Population(NamedTuple):
    """Responses an audit is about."""

    members: list[Judged]
    asked: dict[str, Asked]
    """By problem id."""
    of: str
    """``greedy`` answers, ``sampled`` ones, or samples of ``grow``."""
    mark: str
    """Stands for these responses and these verdicts."""
    verifiers: list[str]


def population(run: RunDir, iteration: int, split: str) -> Population:
    """Read it.

    Raises:
        RunError: the stage that judges them is not done, or evaluated nothing of this split.
    """
    folder = run.iteration(iteration)
    stage = "verify" if split == GROWN else "evaluate"
    mark = folder / f"{stage}.done"
    if not mark.exists():
        raise RunError(f"iteration {iteration} has no finished stage '{stage}', whose verdicts could be audited")
    ids, task, question, gold = records.columns(run.problems, "id", "task", "question", "answer")
    rows = zip(ids, task, question, gold, strict=True)
    asked = {key: Asked(task, question, gold or "") for key, task, question, gold in rows}
    rows_of = list(_grown(folder) if split == GROWN else _evaluated(folder, split))
    if not rows_of:
        known = ", ".join(sorted({path.stem.rpartition("-")[2] for path in _files(folder)})) or "none"
        raise RunError(
            f"iteration {iteration} has no judged responses of split '{split}' (evaluated: {known}; {GROWN})"
        )
    agreed = _agreement(rows_of)
    steps = {row.step for row in rows_of}
    used = [row for row in rows_of if row.step == GREEDY] if GREEDY in steps and split != GROWN else rows_of
    members = [
        Judged(
            *(row.id, row.problem_id, asked[row.problem_id].task, row.status, row.answer, row.reason, row.text),
            gold=asked[row.problem_id].gold,
            finish_reason=row.finish_reason,
            by_judge=row.by == "judge",
            agreed=_agrees(agreed, row),
        )
        for row in used
    ]
    of = "grow" if split == GROWN else "sampled" if used is rows_of else GREEDY
    return Population(members, asked, of, file_digest(mark)[:8], sorted({row.verifier for row in used}))


class Row(NamedTuple):
    """What is read of a response."""

    id: str
    problem_id: str
    step: str
    text: str
    finish_reason: str
    status: Status
    answer: str | None
    reason: str | None
    verifier: str
    by: str | None


def _grown(folder: Path) -> Iterator[Row]:
    for part in records.parts(folder / "samples"):
        columns = [*records.columns(part, *RESPONSE), *records.columns(folder / "verdicts" / part.name, *VERDICT)]
        yield from map(Row._make, zip(*columns, strict=True))


def _files(folder: Path) -> list[Path]:
    """Evaluated splits; files of protocols hold verdicts of another harness and have no such column."""
    return [path for path in records.parts(folder / "evaluation") if records.has(path, "reason")]


def _evaluated(folder: Path, split: str) -> Iterator[Row]:
    for path in _files(folder):
        if path.stem.endswith(f"-{split}"):
            yield from map(Row._make, zip(*records.columns(path, *RESPONSE, *VERDICT), strict=True))


def _agreement(rows: list[Row]) -> dict[str, tuple[str, int]]:
    """By problem: the most frequent answer of three responses or more, and how many gave it."""
    votes: dict[str, Counter[str]] = {}
    for row in rows:
        if row.answer is not None:
            votes.setdefault(row.problem_id, Counter())[row.answer] += 1
    return {key: found.most_common(1)[0] for key, found in votes.items() if found.total() > 2}


def _agrees(agreed: dict[str, tuple[str, int]], row: Row) -> bool | None:
    """Whether others give the same answer most often; None where hardly two agree on any."""
    answer, count = agreed.get(row.problem_id, ("", 0))
    return None if count < 2 or row.answer is None else row.answer == answer
