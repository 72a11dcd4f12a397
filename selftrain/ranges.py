"""Ranges of numeric options, stated in the type of the field: ``n: Count = 8`` is an int from 1 on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints


@dataclass(frozen=True)
class Range:
    """Where a number means something; NaN and infinity never do."""

    says: str
    holds: Callable[[float], bool]


Count = Annotated[int, Range("must be at least 1", lambda value: value >= 1)]
MOST_SAMPLES = 1 << 16
Draws = Annotated[int, Range(f"must be from 1 to {MOST_SAMPLES:,}", lambda value: 1 <= value <= MOST_SAMPLES)]
"""Samples of a problem: each is a request of its own, listed before the first is made."""
DrawsOrNone = Annotated[int, Range(f"must be from 0 to {MOST_SAMPLES:,}", lambda value: 0 <= value <= MOST_SAMPLES)]
Size = Annotated[int, Range("must be at least 0", lambda value: value >= 0)]
NotNegative = Annotated[float, Range("must be at least 0", lambda value: value >= 0)]
Positive = Annotated[float, Range("must be more than 0", lambda value: value > 0)]
Share = Annotated[float, Range("is a share, from 0 to 1", lambda value: 0 <= value <= 1)]
Mass = Annotated[float, Range("must be more than 0 and at most 1", lambda value: 0 < value <= 1)]
BelowOne = Annotated[float, Range("must be at least 0 and less than 1", lambda value: 0 <= value < 1)]
BelowHalf = Annotated[float, Range("must be at least 0 and less than 0.5", lambda value: 0 <= value < 0.5)]
SleepLevel = Annotated[int, Range("must be 0, 1 or 2", lambda value: 0 <= value <= 2)]
Finite = Annotated[float, Range("must be a finite number", lambda value: True)]


def violations(owner: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Dotted place and complaint of every number outside its range, in a dataclass and in those it holds."""
    if isinstance(owner, Mapping):
        for key, value in owner.items():
            yield from violations(value, f"{place}.{key}")
    elif dataclasses.is_dataclass(owner) and not isinstance(owner, type):
        hints = get_type_hints(type(owner), include_extras=True)
        for field in dataclasses.fields(owner):
            value, below = getattr(owner, field.name), f"{place}.{field.name}".lstrip(".")
            bounds = _range(hints[field.name])
            yield from violations(value, below) if bounds is None else _outside(value, bounds, below)


def _range(hint: Any) -> Range | None:
    """That of a field, also where it stands inside ``| None``, a dict or a tuple."""
    found = [part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Range)]
    return found[0] if found else next(filter(None, map(_range, get_args(hint))), None)


def _outside(value: Any, bounds: Range, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _outside(entry, bounds, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _outside(entry, bounds, place)
    elif value is not None and not (math.isfinite(value) and bounds.holds(value)):
        yield place, f"{bounds.says}, got {value:g}"
