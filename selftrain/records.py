"""Records as Parquet files: columns, writing and reading in parts."""

from __future__ import annotations

import dataclasses
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.files import replacing
from selftrain.types import Example, Problem, Sample, Score, TokenScores, TreeNode, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = "1"

STRING, INT, LONG, FLOAT, DOUBLE, BOOL, JSON = "string", "int32", "int64", "float32", "float64", "bool", "json"
CODES = {"int32": "i", "int64": "q", "float": "f", "double": "d"}
"""Arrow's names of numbers, and those of the module `array`."""
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


def write(path: Path, kind: type, records: Sequence[Any], **extra: Sequence[Any]) -> None:
    """One part: all records of a kind, with further columns given whole: those of a verdict, or strings."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Sequence[Any]] = {}
    for name, type_ in COLUMNS[kind].items():
        values = [getattr(record, name) for record in records]
        columns[name] = [_text(value) for value in values] if type_ == JSON else values
    types = {name: _arrow(text) for name, text in COLUMNS[kind].items()} | {
        name: _arrow(COLUMNS[Verdict].get(name, STRING)) for name in extra
    }
    arrays = {name: _array(values, types[name]) for name, values in {**extra, **columns}.items()}
    table = pa.table(arrays).replace_schema_metadata({"selftrain": SCHEMA_VERSION, "record": kind.__name__})
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


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
        table = table.filter(_array(chosen, _arrow(BOOL)))
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


def values(path: Path, name: str) -> int:
    """How many values the lists of a column hold in all."""
    return sum(len(chunk.flatten()) for chunk in _read(path, [name]).column(name).chunks)


def has(path: Path, name: str) -> bool:
    """Whether a part has a column."""
    from pyarrow.parquet import read_schema

    return name in read_schema(path).names


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of a part; pyarrow's own ``read_table`` imports pandas, which a command must not wait for."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        table = file.read(columns=list(columns))
    for name in ADDED.difference(table.column_names).intersection(columns):
        table = table.append_column(name, _array([None] * len(table), _arrow(STRING)))
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


def _arrow(text: str) -> pa.DataType:
    import pyarrow as pa

    if text == JSON:
        return pa.string()
    inner = text.removeprefix("list<").removesuffix(">")
    return pa.list_(pa.type_for_alias(inner)) if inner != text else pa.type_for_alias(text)


def _array(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    """A column; like ``pa.array``, which imports pandas, half a second that a command must not wait for."""
    import pyarrow as pa

    known = [value is not None for value in values] if None in values else None
    if not values or (known and not any(known)):
        return pa.nulls(len(values), type_)
    try:
        buffers, children = _buffers(values, type_, gaps=known is not None)
    except OverflowError:  # More text than one column holds, or a number that is none of this type.
        return pa.array(values, type_)
    valid = pa.py_buffer(_bits(known)) if known else None
    return pa.Array.from_buffers(type_, len(values), [valid, *map(pa.py_buffer, buffers)], children=children)


def _buffers(values: Sequence[Any], type_: pa.DataType, gaps: bool) -> tuple[list[Any], list[pa.Array]]:
    """What Arrow's columnar format holds beside the bits that say what is null, and the column within a column."""
    if str(type_) in CODES:
        return [array(CODES[str(type_)], [0 if value is None else value for value in values] if gaps else values)], []
    if str(type_) == BOOL:
        return [_bits(values)], []
    if str(type_) == STRING:
        # A response may hold lone surrogates; Parquet strings are UTF-8.
        texts = [b"" if value is None else value.encode("utf-8", "replace") for value in values]
        return [_offsets(texts), b"".join(texts)], []
    lists = [() if value is None else value for value in values]
    return [_offsets(lists)], [_array(list(chain.from_iterable(lists)), type_.value_type)]


def _offsets(parts: Sequence[Sized]) -> array[int]:
    return array("i", accumulate(map(len, parts), initial=0))


def _bits(flags: Sequence[object]) -> bytes:
    """Eight to a byte, the first in its lowest bit."""
    digits = "".join("1" if flag else "0" for flag in reversed(flags))
    return int(digits or "0", 2).to_bytes(len(flags) // 8 + 1, "little")
