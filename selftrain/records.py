"""Records as Parquet files: columns, writing and reading in parts."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from selftrain.columnar import BOOL, DOUBLE, FLOAT, INT, JSON, LONG, STRING, arrow_array, arrow_type
from selftrain.files import replacing
from selftrain.types import Example, Problem, Sample, Score, TokenScores, TreeNode, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = "1"

COLUMNS: dict[type, dict[str, str]] = {
    Problem: {
        "id": STRING,
        "task": STRING,
        "split": STRING,
        "question": STRING,
        "answer": JSON,
        "demonstration": STRING,
        "difficulty": DOUBLE,
        "metadata": JSON,
    },
    Sample: {
        "id": STRING,
        "problem_id": STRING,
        "iteration": INT,
        "step": STRING,
        "index": INT,
        "parent_id": STRING,
        "prompt_ids": f"list<{INT}>",
        "response_ids": f"list<{INT}>",
        "loss_mask": f"list<{BOOL}>",
        "logprobs": f"list<{FLOAT}>",
        "finish_reason": STRING,
        "policy": STRING,
        "sampler": STRING,
        "origin": STRING,
        "ids_from": STRING,
        "seed": LONG,
        "segments": f"list<{INT}>",
        "text": STRING,
    },
    Score: {
        "sample_id": STRING,
        "source": STRING,
        "valid": BOOL,
        "reward": FLOAT,
        "step_ends": f"list<{INT}>",
        "step_rewards": f"list<{FLOAT}>",
        "token_rewards": f"list<{FLOAT}>",
        "members": f"list<{FLOAT}>",
        "model": STRING,
    },
    Example: {
        "id": STRING,
        "sample_id": STRING,
        "problem_id": STRING,
        "source": STRING,
        "prompt_ids": f"list<{INT}>",
        "response_ids": f"list<{INT}>",
        "loss_mask": f"list<{BOOL}>",
        "weight": FLOAT,
        "label": FLOAT,
        "advantages": f"list<{FLOAT}>",
        "targets": f"list<{FLOAT}>",
        "old_logprobs": f"list<{FLOAT}>",
        "reference_logprobs": f"list<{FLOAT}>",
        "pair_id": STRING,
        "role": STRING,
        "eos_added": BOOL,
    },
    TreeNode: {
        "tree_id": STRING,
        "problem_id": STRING,
        "node_id": INT,
        "parent": INT,
        "depth": INT,
        "ids": f"list<{INT}>",
        "text": STRING,
        "prior": FLOAT,
        "value": FLOAT,
        "visits": INT,
        "value_sum": DOUBLE,
        "state": STRING,
        "reason": STRING,
        "sample_id": STRING,
        "mc": FLOAT,
    },
    TokenScores: {"key": STRING, "logprobs": f"list<{FLOAT}>"},
    Verdict: {
        "status": STRING,
        "value": FLOAT,
        "answer": STRING,
        "reason": STRING,
        "seconds": FLOAT,
        "verifier": STRING,
        "by": STRING,
    },
}
"""Column types by record; a verdict's rows also carry ``sample_id``, those of an evaluation a sample and its verdict.
What is ``json`` is text as it is, and anything else as JSON."""
ADDED = frozenset({"by", "advantages", "targets", "old_logprobs", "reference_logprobs", "pair_id", "role"})
"""Columns that files of earlier versions lack: nothing stands in them."""


class Look(NamedTuple):
    """What tells a file from every other, wherever it was moved and however often it is linked."""

    device: int
    inode: int
    size: int
    changed: int
    """Nanoseconds."""


class Written:
    """The parts this process wrote last, in memory: what one stage wrote the next ones read, column by column.

    Args:
        room: bytes of all that is kept; what was kept longest is forgotten first, and a larger part is not kept.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._size = 0
        self._tables: dict[Look, pa.Table] = {}
        self._lock = threading.Lock()  # Verdicts are written by a thread of their own.

    def keep(self, path: Path, table: pa.Table) -> None:
        """Take in what lies at a path now."""
        if table.nbytes > self._room:
            return
        with self._lock:
            self._tables[_look(path)] = table
            self._size += table.nbytes
            while self._size > self._room:
                self._size -= self._tables.pop(next(iter(self._tables))).nbytes

    def of(self, path: Path) -> pa.Table | None:
        """All columns of a part; None where it is to be read: another process wrote it, or changed it since.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return self._tables.get(_look(path))


WRITTEN = Written(room=1 << 25)
"""32 MiB: the parts of several small iterations; those of a large one are read where they are needed."""


def _look(path: Path) -> Look:
    found = os.stat(path)
    return Look(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def write(path: Path, kind: type, records: Sequence[Any], **extra: Sequence[Any]) -> None:
    """One part: all records of a kind, with further columns given whole: those of a verdict, or strings."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Sequence[Any]] = {}
    for name, type_ in COLUMNS[kind].items():
        values = list(map(attrgetter(name), records))
        columns[name] = [_text(value) for value in values] if type_ == JSON else values
    types = {name: arrow_type(text) for name, text in COLUMNS[kind].items()} | {
        name: arrow_type(COLUMNS[Verdict].get(name, STRING)) for name in extra
    }
    arrays = {name: arrow_array(values, types[name]) for name, values in {**extra, **columns}.items()}
    table = pa.table(arrays).replace_schema_metadata({"selftrain": SCHEMA_VERSION, "record": kind.__name__})
    with replacing(path, later=True) as temporary:
        pq.write_table(table, temporary)
    WRITTEN.keep(path, table)


def read(path: Path, kind: type) -> list[Any]:
    """The records of one part."""
    return list(rows(path, kind))


def rows(path: Path, kind: type, chosen: Sequence[bool] | None = None) -> Iterator[Any]:
    """The records of one part.

    Args:
        chosen: which of them, a flag for each; None for all.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    table = _read(path, names)
    if chosen is not None:
        table = table.filter(arrow_array(chosen, arrow_type(BOOL)))
    yield from map(kind, *(_values(table.column(name)) for name in names))


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Lists as tuples."""
    values: list[Any] = column.to_pylist()
    if column.null_count == len(column) or not hasattr(column.type, "value_type"):
        return values
    return [None if value is None else tuple(value) for value in values]


def count(path: Path) -> int:
    """Rows of a part."""
    from pyarrow.parquet import read_metadata

    return int(read_metadata(path).num_rows)


def column(path: Path, name: str) -> list[Any]:
    return columns(path, name)[0]


def columns(path: Path, *names: str) -> list[list[Any]]:
    """Values of some columns of a part, row by row the same record."""
    table = _read(path, names)
    return [table.column(name).to_pylist() for name in names]


def lengths(path: Path, name: str) -> list[int]:
    """Of the lists in a column of a part, without reading them into Python."""
    import pyarrow.compute as pc

    found: list[int] = pc.list_value_length(_read(path, (name,)).column(name)).to_pylist()
    return found


def has(path: Path, name: str) -> bool:
    """Whether a part has a column."""
    from pyarrow.parquet import read_schema

    return name in read_schema(path).names


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of a part; pyarrow's own ``read_table`` imports pandas, which a command must not wait for."""
    table = WRITTEN.of(path)
    if table is not None:
        table = table.select([name for name in columns if name in table.column_names])
    else:
        from pyarrow.parquet import ParquetFile

        with ParquetFile(path) as file:
            table = file.read(columns=list(columns))
    for name in ADDED.difference(table.column_names).intersection(columns):
        table = table.append_column(name, arrow_array([None] * len(table), arrow_type(STRING)))
    return table


def parts(folder: Path, prefix: str = "") -> list[Path]:
    """Finished parts of a folder, in order."""
    return sorted(folder.glob(f"{prefix}*.parquet"))


def write_parts(folder: Path, prefix: str, kind: type, records: Iterable[Any], size: int) -> int:
    """Write a stream as numbered parts; the number of records."""
    part: list[Any] = []
    count = number = 0
    for record in records:
        part.append(record)
        count += 1
        if len(part) == size:
            write(folder / f"{prefix}-{number:05d}.parquet", kind, part)
            part, number = [], number + 1
    if part:
        write(folder / f"{prefix}-{number:05d}.parquet", kind, part)
    return count


def _text(value: Any) -> str | None:
    return value if isinstance(value, str | None) else json.dumps(value, sort_keys=True)
