"""Tokens of a run by stage, from what lies on disk: drawn by samplers, and read by fits.

What was drawn and not kept (`enough` samples were right) is not on disk, and what another run drew is: so the count is
the same after a kill as without one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.digests import file_digest
from selftrain.files import read_json, write_json

NOTE = "spent.json"
IDS = "response_ids"
Tokens = dict[str, int]
"""By stage, as marks name it."""


def spent(run: RunDir, iteration: int) -> Tokens:
    """Of an iteration; of iteration 0 with the warm-ups."""
    folder = run.iteration(iteration)
    evaluation = folder / "evaluation"
    found = {"grow": drawn(folder), "evaluate": held(evaluation) + _searched(evaluation)}
    found |= {f"improve-{log.parent.name}": read_by(log) for log in sorted(folder.glob("*/log.jsonl"))}
    if not iteration:
        found |= {f"warmup-{log.parent.name}": read_by(log) for log in sorted(run.warmup.glob("*/log.jsonl"))}
    return {stage: tokens for stage, tokens in found.items() if tokens}


def noted(run: RunDir, iteration: int) -> Tokens:
    """The same of a finished iteration, counted once: a note beside its marks holds it as long as they stay."""
    folder = run.iteration(iteration)
    marks = [*folder.glob("*.done"), *(run.warmup.glob("*/*.done") if not iteration else ())]
    digests = {mark.relative_to(run.root).as_posix(): file_digest(mark)[:16] for mark in sorted(marks)}
    note = folder / NOTE
    if note.exists() and (held := read_json(note))["marks"] == digests:
        return dict(held["tokens"])
    found = spent(run, iteration)
    write_json(note, {"marks": digests, "tokens": found})
    return found


def drawn(folder: Path) -> int:
    """In Grow: tokens of the responses; of a search, all that its trees drew."""
    total = 0
    for part in records.parts(folder / "samples"):
        tree = folder / "trees" / f"{part.stem}.json"
        total += _cost(tree) if tree.exists() else sum(records.lengths(part, IDS))
    return total


def read_by(log: Path) -> int:
    """Tokens that a fit has read, by its log."""
    return sum(int(json.loads(line)["tokens"]) for line in log.read_text().splitlines())


def summed(found: Mapping[int, Tokens]) -> Tokens:
    """Over iterations, by stage."""
    total: Tokens = {}
    for tokens in found.values():
        for stage, count in tokens.items():
            total[stage] = total.get(stage, 0) + count
    return total


def held(folder: Path) -> int:
    """Tokens of the responses in the files of a folder."""
    return sum(sum(records.lengths(part, IDS)) for part in records.parts(folder) if records.has(part, IDS))


def _searched(evaluation: Path) -> int:
    """All that the trees of its searches drew."""
    return sum(map(_cost, evaluation.glob("search/*/trees/*.json")))


def _cost(tree: Path) -> int:
    return int(read_json(tree)["spent"]["policy_tokens"])
