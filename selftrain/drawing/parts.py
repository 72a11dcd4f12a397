"""How a work list is cut into parts, and the note that keeps every process of a stage to the same cut.

Parts and journals name a request by its place in the work list, so all that is on disk means something beside the
same list alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from selftrain.errors import StaleStage
from selftrain.files import read_json, write_json
from selftrain.sampling.base import Request


def by_length(requests: Iterable[Request]) -> list[Request]:
    """By prompt length: samplers batch like with like, so a part is finished soon after it is begun.

    Those of one length by problem and purpose: the order of tasks and files means nothing.
    """
    return sorted(requests, key=lambda request: (len(request.prompt_ids), request.problem.id, request.purpose))


def planned(path: Path, work: Sequence[Request], part_size: int, stage: str) -> list[list[int]]:
    """The parts of a work list as the stage was begun with them, also where ``part_size`` has changed since.

    Args:
        path: of the note.
        stage: label, for the message.

    Raises:
        StaleStage: it was begun with another work list.
    """
    asked = digest(work)
    if not path.exists():
        write_json(path, {"part_size": part_size, "asked": asked}, later=True)
    plan = read_json(path)
    if plan.get("asked") != asked:
        raise StaleStage(
            f"{path}: the samples there answer other problems, prompts or seeds than {stage} would ask for now (did "
            f"the data of a task change?); put them back, choose another run.name, or redo it with --redo {stage}"
        )
    return cut(work, int(plan["part_size"]))


def digest(work: Sequence[Request]) -> str:
    """Stands for what a work list asks, in its order."""
    found = hashlib.sha256()
    for request in work:
        found.update(repr((request.problem.id, request.purpose, request.prompt_ids, request.seeds)).encode())
    return found.hexdigest()[:16]


def cut(requests: Sequence[Request], size: int) -> list[list[int]]:
    """Groups of whole problems, of about ``size`` samples each; they follow from the whole work list."""
    groups: list[list[int]] = [[]]
    filled = 0
    for index, wanted in enumerate(requests):
        if filled and filled + len(wanted.seeds) > size:
            groups.append([])
            filled = 0
        groups[-1].append(index)
        filled += len(wanted.seeds)
    return groups
