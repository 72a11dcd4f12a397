"""How files come to be: under a temporary name, synced, renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY = ".*.tmp"
"""What files are called until they are whole; a killed process leaves some behind."""
SYNCED_TOGETHER = 8


@contextmanager
def replacing(path: Path, later: bool = False, beside: Collection[Path] = ()) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place, whole and synced, when the block ends well.

    Works for files and for folders; a folder that stood there before is removed at the last moment.

    Args:
        later: the new name is synced later: that of what a stage writes once for all, before its mark
            (`selftrain.artifacts.Stage.finish`). Until then a power cut may take it away; a kill never does.
        beside: further files and folders that are synced before ``path`` is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _aside(path), _aside(path, ".old")
    remove(temporary)
    remove(old)
    try:
        yield temporary
        sync([temporary, *temporary.rglob("*"), *beside])
        if path.is_dir():
            os.replace(path, old)  # Removed under another name: what is half removed is never taken for the whole.
        os.replace(temporary, path)
        if not later:
            sync([path.parent])
        remove(old)
    finally:
        remove(temporary)


def discard(path: Path) -> None:
    """Remove a file or a folder; killed meanwhile, what is left of it does not have its name."""
    if path.exists():
        os.replace(path, aside := _aside(path))
        remove(aside)


def _aside(path: Path, more: str = "") -> Path:
    """The name of what is not whole; matches `TEMPORARY`."""
    return path.with_name(f".{path.name}.{os.getpid()}{more}.tmp")


def write_text(path: Path, text: str, later: bool = False, beside: Collection[Path] = ()) -> None:
    with replacing(path, later, beside) as temporary:
        temporary.write_text(text)


def write_json(path: Path, value: Any, later: bool = False, beside: Collection[Path] = ()) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n", later, beside)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def place(source: Path, target: Path) -> None:
    """Give a file a second name; where the file system has no such thing, a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(paths: Collection[Path]) -> None:
    """Wait until the disk holds these files, or the names in these folders.

    All at once where there are several: file systems write what is asked for together together, in a fifth of the time.
    """
    if len(paths) == 1:
        _sync(*paths)
        return
    from concurrent.futures import ThreadPoolExecutor  # Here: few commands write folders, and all wait for imports.

    with ThreadPoolExecutor(SYNCED_TOGETHER) as pool:
        for _ in pool.map(_sync, paths):
            pass


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
