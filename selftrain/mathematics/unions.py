"""Unions of intervals and points, compared as sets."""

from __future__ import annotations

from selftrain.mathematics.forms import Interval, Union
from selftrain.mathematics.nodes import Node
from selftrain.mathematics.same import Domain, rough, same


def same_union(gold: Union, answer: Union, domain: Domain) -> bool:
    """
    Raises:
        Undecided
    """
    left, right = _merged(gold), _merged(answer)
    if len(left) != len(right):
        return False
    return all(
        one.closed == other.closed and same(one.low, other.low, domain) and same(one.high, other.high, domain)
        for one, other in zip(left, right, strict=True)
    )


def _merged(union: Union) -> list[Interval]:
    """From left to right, with what touches joined; as written where the ends are not numbers."""
    parts = [Interval(part, part, (True, True)) if isinstance(part, Node) else part for part in union.parts]
    ends = {id(part): (rough(part.low), rough(part.high)) for part in parts}
    if any(end is None for pair in ends.values() for end in pair):
        return parts
    parts.sort(key=lambda part: (ends[id(part)][0] or 0.0, not part.closed[0]))
    found: list[Interval] = []
    for part in parts:
        low, high = ends[id(part)]
        if low is None or high is None or low > high:
            continue
        last = found[-1] if found else None
        last_high = rough(last.high) if last else None
        if last is None or last_high is None or low > last_high:
            found.append(part)
        elif low < last_high or last.closed[1] or part.closed[0]:
            found[-1] = _joined(last, part, last_high, high)
        else:
            found.append(part)
    return found


def _joined(last: Interval, part: Interval, last_high: float, high: float) -> Interval:
    closed_low = last.closed[0] or (part.closed[0] and rough(part.low) == rough(last.low))
    if high > last_high:
        return Interval(last.low, part.high, (closed_low, part.closed[1]))
    closed_high = last.closed[1] or (high == last_high and part.closed[1])
    return Interval(last.low, last.high, (closed_low, closed_high))
