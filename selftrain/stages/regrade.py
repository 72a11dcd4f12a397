"""What judging again changed: compared with the verdicts that were set aside, and written beside the new ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.events import Event, Notice
from selftrain.files import write_json
from selftrain.regrading import Ruling, lines, regrading, why
from selftrain.session import Session
from selftrain.types import Problem

GROW, SPLITS = "regraded-grow.json", "regraded-*-*.json"
"""Reports on the samples of Grow, and on those of evaluation by task and split, in the folder of an iteration."""
COLUMNS = ("status", "answer", "reason", "verifier")


def regraded_grow(session: Session, iteration: int) -> Iterator[Event]:
    """Compare the verdicts on the samples of Grow with those set aside, where these very samples were judged before."""
    folder = session.run.iteration(iteration)
    before = _former(session.run, folder / "verdicts", unless=folder / "samples")
    if before is None:
        return
    asked = _asked(folder / "samples")
    problems = session.problems.by_id
    old, new = (_rulings(place, asked, problems) for place in (before, folder / "verdicts"))
    yield from _report(session, folder / GROW, f"iteration {iteration}, samples of Grow", old, new)


def regraded_split(session: Session, iteration: int, task: str, split: str) -> Iterator[Event]:
    """Compare a file of evaluation with the one set aside, as far as it holds the same responses."""
    folder = session.run.iteration(iteration)
    path = folder / "evaluation" / f"{task}-{split}.parquet"
    before = _former(session.run, path)
    if before is None:
        return
    old, new = (_evaluated(file, task) for file in (before, path))
    same = {key: ruling for key, (ruling, text) in old.items() if key in new and new[key][1] == text}
    now = {key: new[key][0] for key in same}
    target = folder / f"regraded-{task}-{split}.json"
    yield from _report(session, target, f"iteration {iteration}, {task}/{split}", same, now)


def _report(
    session: Session, path: Path, what: str, old: Mapping[str, Ruling], new: Mapping[str, Ruling]
) -> Iterator[Event]:
    table = regrading(old, new)
    verifiers = table["verifiers"]
    if verifiers["before"] == verifiers["after"] and not table["flips"]:
        return  # Nothing was judged otherwise, or nothing could be compared.
    write_json(path, table)
    yield Notice(f"judged again: {what} ({path.relative_to(session.run.root)})", "info")
    for line in (*lines(table), *why(table)):
        yield Notice(f"  {line}", "info")


def _former(run: RunDir, path: Path, unless: Path | None = None) -> Path | None:
    """What stood at a path before it was last set aside; None where ``unless`` was set aside with it."""
    place = path.relative_to(run.root)
    shelves = sorted((run.root / "redone").glob("*"), reverse=True)
    found = next((shelf for shelf in shelves if (shelf / place).exists()), None)
    if found is None or (unless is not None and (found / unless.relative_to(run.root)).exists()):
        return None
    return found / place


def _asked(samples: Path) -> dict[str, str]:
    """Problem by sample."""
    pairs = (records.columns(part, "id", "problem_id") for part in records.parts(samples))
    return {key: problem for ids, problems in pairs for key, problem in zip(ids, problems, strict=True)}


def _rulings(folder: Path, asked: Mapping[str, str], problems: Mapping[str, Problem]) -> dict[str, Ruling]:
    found: dict[str, Ruling] = {}
    for part in records.parts(folder):
        for key, status, answer, reason, verifier in zip(*records.columns(part, "sample_id", *COLUMNS), strict=True):
            if key in asked:
                found[key] = Ruling(status, answer, reason, verifier, problems[asked[key]].task, asked[key])
    return found


def _evaluated(path: Path, task: str) -> dict[str, tuple[Ruling, str]]:
    columns = records.columns(path, "id", "problem_id", "text", *COLUMNS)
    return {
        key: (Ruling(status, answer, reason, verifier, task, problem), text)
        for key, problem, text, status, answer, reason, verifier in zip(*columns, strict=True)
    }
