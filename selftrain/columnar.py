"""Columns in Arrow's format, as ``pa.array`` makes them, but without pandas: half a second no command must wait for."""

from __future__ import annotations

from array import array
from collections.abc import Sequence, Sized
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

STRING, INT, LONG, FLOAT, DOUBLE, BOOL, JSON = "string", "int32", "int64", "float32", "float64", "bool", "json"
CODES = {"int32": "i", "int64": "q", "float": "f", "double": "d"}
"""Arrow's names of numbers, and those of the module `array`."""
DIGITS = bytes.maketrans(b"\0\1", b"01")


def arrow_type(text: str) -> pa.DataType:
    import pyarrow as pa

    if text == JSON:
        return pa.string()
    inner = text.removeprefix("list<").removesuffix(">")
    return pa.list_(pa.type_for_alias(inner)) if inner != text else pa.type_for_alias(text)


def arrow_array(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    """A column.

    Raises:
        OverflowError: pyarrow's own, of a number that is none of this type.
    """
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
        texts = ["" if value is None else value for value in values] if gaps else values
        whole = "".join(texts)
        if whole.isascii():
            return [_offsets(texts), whole.encode()], []
        encoded = [text.encode("utf-8", "replace") for text in texts]
        return [_offsets(encoded), b"".join(encoded)], []
    lists = [() if value is None else value for value in values] if gaps else values
    return [_offsets(lists)], [arrow_array(list(chain.from_iterable(lists)), type_.value_type)]


def _offsets(parts: Sequence[Sized]) -> array[int]:
    return array("i", accumulate(map(len, parts), initial=0))


def _bits(flags: Sequence[object]) -> bytes:
    """Eight to a byte, the first in its lowest bit."""
    digits = bytes(map(bool, reversed(flags))).translate(DIGITS)
    return int(digits or b"0", 2).to_bytes(len(flags) // 8 + 1, "little")
