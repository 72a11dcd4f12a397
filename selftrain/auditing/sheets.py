"""The sheet a person fills, and the record of an audit that a run keeps: ``iteration_NNNN/audits/SPLIT-MARK.json``.

The record holds the design (sizes of strata, who was drawn) and the judgements that came back. Drawing again from the
same responses adds to it. What was judged stays true when the verifier changes, and is never removed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain.artifacts import RunDir
from selftrain.auditing.design import ODD_FROM, Judged, allocate, draw, strata
from selftrain.auditing.population import Population, population
from selftrain.config import ConfigError
from selftrain.digests import value_digest
from selftrain.files import read_json, write_json, write_text

FOLDER = "audits"
ANSWERS = {True: True, False: False, "right": True, "wrong": False}
"""What a person may write."""
Record = dict[str, Any]


def draw_sheet(run: RunDir, iteration: int, split: str, k: int, sheet: Path, *, verdicts: bool = False) -> Record:
    """Draw ``k`` responses that were not drawn before, write them to a sheet, and note the design in the run.

    Args:
        verdicts: show them, behind what is to be judged.

    Raises:
        ConfigError: the sheet exists, ``k`` is too small, or all are drawn.
        RunError: there is nothing to draw from.
    """
    if sheet.exists():
        raise ConfigError(f"{sheet} exists, and may hold judgements; name another file")
    found = population(run, iteration, split)
    path = run.iteration(iteration) / FOLDER / f"{split}-{found.mark}.json"
    known: Record | None = read_json(path) if path.exists() else None
    tasks = len({one.task for one in found.members})
    members = strata(found.members, apart=known["apart"] if known else k >= ODD_FROM * tasks)
    record = known or _fresh(iteration, split, found, members, apart=k >= ODD_FROM * tasks)
    before = Counter(record["drawn"].values())
    if before.total() == len(found.members):
        raise ConfigError(f"all {before.total()} responses of iteration {iteration}, {split}, are on sheets already")
    left = {name: [one for one in group if one.id not in record["drawn"]] for name, group in members.items()}
    try:
        wanted = allocate({name: len(group) for name, group in members.items()}, before.total() + k)
    except ValueError as error:
        raise ConfigError(f"--draw {k}: {error}") from error
    wanted = {name: min(max(0, count - before[name]), len(left[name])) for name, count in wanted.items()}
    seed = int(value_digest([found.mark, before.total()]), 16)
    drawn = draw(left, wanted, seed)
    record["drawn"] |= {one.id: name for name, one in drawn}
    totals = Counter(record["drawn"].values())
    rows = []
    for name, one in drawn:
        shown = {"stratum": name, "probability": round(totals[name] / len(members[name]), 6), **_verdict(one)}
        rows.append({**_row(run, path, one, found), **(shown if verdicts else {})})
    write_text(sheet, "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))
    write_json(path, record)
    return record


def _fresh(
    iteration: int, split: str, found: Population, members: Mapping[str, Sequence[Judged]], *, apart: bool
) -> Record:
    by_problem: dict[tuple[str, str], Counter[str]] = {}
    for name, group in members.items():
        for one in group:
            by_problem.setdefault((one.task, one.problem_id), Counter())[name] += 1
    patterns = Counter((task, tuple(sorted(counts.items()))) for (task, _), counts in by_problem.items())
    return {
        "iteration": iteration,
        "split": split,
        "of": found.of,
        "mark": found.mark,
        "apart": apart,
        "verifiers": found.verifiers,
        "strata": {name: len(group) for name, group in members.items()},
        "problems": [[task, dict(counts), times] for (task, counts), times in sorted(patterns.items())],
        "drawn": {},
        "human": {},
    }


def _row(run: RunDir, path: Path, one: Judged, found: Population) -> dict[str, Any]:
    asked = found.asked[one.problem_id]
    return {
        "audit": path.relative_to(run.root).as_posix(),
        "id": one.id,
        "task": one.task,
        "question": asked.question,
        "gold": asked.gold,
        "response": one.text,
        "human": None,
        "note": "",
    }


def _verdict(one: Judged) -> dict[str, Any]:
    return {"verdict": {"status": one.status, "answer": one.answer, "reason": one.reason}}


def read_sheets(run: RunDir, sheets: Sequence[Path]) -> list[Record]:
    """Take the judgements of filled sheets into the run; the records they belong to. Nothing is written on an error.

    Raises:
        ConfigError: a row cannot be read, is of another run, or says neither right nor wrong.
    """
    taken: dict[str, Record] = {}
    for sheet in sheets:
        if not sheet.is_file():
            raise ConfigError(f"no such sheet: {sheet}")
        for number, line in enumerate(sheet.read_text().splitlines(), 1):
            if line.strip():
                _take(run, taken, line, f"{sheet}, line {number}")
    for name, record in taken.items():
        write_json(run.root / name, record)
    return list(taken.values())


def _take(run: RunDir, taken: dict[str, Record], line: str, where: str) -> None:
    try:
        row = json.loads(line)
        name, key, human = row["audit"], row["id"], row["human"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{where}: no row of a sheet ({error!r}); write `human` only, and keep the rest") from error
    known = {path.relative_to(run.root).as_posix(): path for path in records_of(run)}
    if name not in taken:
        if name not in known:
            raise ConfigError(f"{where}: {run.root} has no audit '{name}'; it was drawn from another run")
        taken[name] = read_json(known[name])
    if key not in taken[name]["drawn"]:
        raise ConfigError(f"{where}: '{key}' was not drawn for {name}")
    if human is None:
        return
    if not isinstance(human, bool | str) or human not in ANSWERS:
        raise ConfigError(f"{where}: human is {human!r}; write true or false, or leave null what you cannot tell")
    taken[name]["human"][key] = ANSWERS[human]


def records_of(run: RunDir) -> list[Path]:
    """The records of all audits of a run, in order of iterations."""
    return sorted(run.root.glob(f"iteration_*/{FOLDER}/*.json"))
