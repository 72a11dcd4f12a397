"""What stands for a file, a folder or a value: digests, of large files remembered from one process to the next."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

LARGE_BYTES = 1 << 28
"""Files above this size (weights) take seconds to read: their digests are kept in the user's cache."""


def value_digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def contents_digest(path: Path) -> str:
    """Stands for a file, or for all files of a folder by name."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    looks = ((file, file.stat()) for file in files)
    return _contents_digest(path, tuple((file, look.st_size, look.st_mtime_ns) for file, look in looks))


@lru_cache
def _contents_digest(root: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    """Asked for by every stage; read once in a process."""
    return value_digest([[file.relative_to(root).as_posix(), size, remembered_digest(file)] for file, size, _ in files])


def remembered_digest(path: Path) -> str:
    """That of the file, every byte of it; a large one is read again only where its size, time or inode has changed."""
    look = path.stat()
    if look.st_size <= LARGE_BYTES:
        return file_digest(path)
    known = _cache() / value_digest([str(path.resolve()), look.st_size, look.st_mtime_ns, look.st_ino])
    with contextlib.suppress(OSError):
        return known.read_text()
    found = file_digest(path)
    with contextlib.suppress(OSError):  # A home that cannot be written to costs the reading, nothing else.
        known.parent.mkdir(parents=True, exist_ok=True)
        temporary = known.with_name(f".{known.name}.{os.getpid()}.tmp")
        temporary.write_text(found)
        os.replace(temporary, known)
    return found


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selftrain" / "digests"
