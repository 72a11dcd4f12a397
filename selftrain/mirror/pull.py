"""Stages that a mirror has and the run's folder lacks: files first, each held to its digest, then the mark."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.artifacts import REMOVED, RunDir, Stage, removed
from selftrain.digests import file_digest
from selftrain.errors import RunError, StaleStage
from selftrain.events import Event, Progress, StageFinished, StageStarted
from selftrain.files import replacing
from selftrain.mirror.places import kept, log_of, place_of
from selftrain.mirror.store import KEY, Store

AT_ONCE = 8
"""Files that are downloaded together."""
NAME = "pull"
"""What the view calls it."""


@dataclass(frozen=True)
class Held:
    """What a mirror held when it was looked at."""

    store: Store
    files: Mapping[str, int]
    """Size in bytes, by place."""
    marks: Mapping[str, bytes]

    def taken(self, run: RunDir, stage: Stage) -> dict[str, Any] | None:
        """The mark of a stage that this run can go on with; None where there is none.

        One that was set aside here, or that stands on something else than what this run has, is not: it is an older
        try, and will be replaced.
        """
        place = place_of(run, stage.mark)
        content = self.marks.get(place)
        if content is None or any(aside.read_bytes() == content for aside in run.root.glob(f"redone/*/{place}")):
            return None
        try:
            written: dict[str, Any] = json.loads(content)
        except ValueError:
            return None  # Half of one: its writer was killed.
        return written if written["inputs"] == dict(stage.inputs) else None


def pull(
    held: Held,
    run: RunDir,
    stages: Iterable[Stage],
    redone: Collection[str],
    lying: Callable[[Stage], list[Path]],
    check_stop: Callable[[], None],
) -> Iterator[Event]:
    """Bring what is there and is not here, stage by stage.

    Args:
        stages: in their order, each made when it is asked for: what one depends on is known once those before it are
            here.
        redone: labels of stages that will be set aside, and need not fit the config.
        lying: where the files of a stage lie; what a kill left there is set aside.
        check_stop: raises where the run was asked to stop.

    Raises:
        StaleStage: a stage was done with other settings.
        RunError: a mark's files are missing, or are not those it was written for.
    """
    count, size, began = 0, 0, time.monotonic()
    for stage in stages:
        written = None if stage.mark.exists() else held.taken(run, stage)
        if written is None:
            continue
        if stage.label not in redone and (differing := stage.differing(written)):
            raise StaleStage(
                f"{KEY}: {held.store.url}: iteration {stage.iteration}, stage '{stage.name}' was done with other "
                f"settings: {', '.join(differing)}; set them back, choose another run.name and mirror, or redo it with "
                f"--redo {stage.label}"
            )
        if not count:
            yield StageStarted(0, NAME, None, "files")
        run.set_aside([path for path in lying(stage) if path != stage.folder])
        for file in _stage(held, run, stage, written):
            check_stop()
            count, size = count + 1, size + file.stat().st_size
            yield Progress(0, NAME, count, None)
    if count:
        seconds = time.monotonic() - began
        yield StageFinished(0, NAME, seconds, f"{count} files, {size / 1e6:,.1f} MB from {held.store.url}", False)


def _stage(held: Held, run: RunDir, stage: Stage, written: Mapping[str, Any]) -> Iterator[Path]:
    """The files of a stage as they arrive, its mark last."""
    outputs = kept(written["outputs"], _removed(held, run, stage.folder))
    for name, (size, _) in outputs.items():
        place = place_of(run, stage.folder / name)
        if held.files.get(place) != size:
            raise _torn(held, stage, place, "is missing" if place not in held.files else "has another size")
    wanted = [(stage.folder / name, digest) for name, (_, digest) in outputs.items()]
    if (log := log_of(stage.mark)) is not None and place_of(run, log) in held.files:
        wanted.append((log, None))
    with ThreadPoolExecutor(AT_ONCE, NAME) as pool:
        yield from pool.map(lambda one: _fetch(held, run, stage, *one), wanted)
    with replacing(stage.mark) as temporary:
        temporary.write_bytes(held.marks[place_of(run, stage.mark)])


def _fetch(held: Held, run: RunDir, stage: Stage, file: Path, digest: str | None) -> Path:
    place = place_of(run, file)
    with replacing(file) as temporary:
        if not held.store.get(place, temporary):
            raise _torn(held, stage, place, "is missing")
        if digest is not None and file_digest(temporary) != digest:
            raise _torn(held, stage, place, "is not the file that it was marked with")
    return file


def _torn(held: Held, stage: Stage, place: str, what: str) -> RunError:
    return RunError(
        f"{KEY}: {held.store.url}: {place} {what}, while iteration {stage.iteration}, stage '{stage.name}' is marked "
        f"as done there; put it back, or remove {stage.mark.parent.name}/{stage.mark.name} there and the stage is done "
        "again"
    )


def _removed(held: Held, run: RunDir, folder: Path) -> list[str]:
    """What was removed on purpose there is not missed here."""
    note = folder / REMOVED
    if note.exists() or place_of(run, note) not in held.files:
        return removed(folder)
    with replacing(note) as temporary:
        held.store.get(place_of(run, note), temporary)
    return removed(folder)
