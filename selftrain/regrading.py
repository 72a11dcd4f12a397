"""What another verifier changed: who flipped from what to what, why, and the change of the share of right answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from selftrain.types import Status

SHOWN = 3
"""Kinds of flips told in a line."""
Table = dict[str, Any]
"""What is written of a regrading: ``verifiers``, ``tasks`` and ``flips``, plain values."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """A verdict, as far as two are compared."""

    status: Status
    answer: str | None
    reason: str | None
    verifier: str
    task: str
    problem_id: str


@dataclass(frozen=True, slots=True)
class Flip:
    """One response whose status changed."""

    sample_id: str
    problem_id: str
    task: str
    before: Status
    after: Status
    answer_before: str | None
    answer_after: str | None
    reason_before: str | None
    reason_after: str | None


def regrading(before: Mapping[str, Ruling], after: Mapping[str, Ruling]) -> Table:
    """The report of a regrading, over the responses that both sides judged.

    Per task: ``n`` responses, how many flipped by ``before -> after``, the share that was and is right and its change,
    how many kept their status but not their answer. ``flips`` lists every flip, ``verifiers`` who judged.
    """
    both = [(key, before[key], after[key]) for key in after if key in before]
    flips = [_flip(key, old, new) for key, old, new in both if old.status != new.status]
    tasks = {task: _task([(old, new) for _, old, new in both if new.task == task]) for task in _tasks(after.values())}
    verifiers = {
        "before": sorted({old.verifier for _, old, _ in both}),
        "after": sorted({new.verifier for _, _, new in both}),
    }
    return {"verifiers": verifiers, "tasks": tasks, "flips": [asdict(flip) for flip in flips]}


def lines(table: Table) -> list[str]:
    """A line per task: ``arithmetic, 96 responses: 12 wrong -> right; right 40.6 % -> 53.1 % (+12.5)``."""
    return [_line(task, entry) for task, entry in table["tasks"].items() if entry["n"]]


def why(table: Table, shown: int = SHOWN) -> list[str]:
    """The commonest kinds of flips by old and new reason, with one example each."""
    kinds: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for flip in table["flips"]:
        key = (flip["task"], flip["before"], flip["after"], flip["reason_before"], flip["reason_after"])
        kinds.setdefault(key, []).append(flip)
    most = sorted(kinds.values(), key=len, reverse=True)
    rest = sum(map(len, most[shown:]))
    told = [_kind(group) for group in most[:shown]]
    return [*told, *([f"{rest:,} more of {len(most) - shown} other kinds"] if rest else [])]


def _tasks(rulings: Iterable[Ruling]) -> list[str]:
    return list(dict.fromkeys(ruling.task for ruling in rulings))


def _task(pairs: list[tuple[Ruling, Ruling]]) -> dict[str, Any]:
    n = len(pairs)
    flips = Counter(f"{old.status} -> {new.status}" for old, new in pairs if old.status != new.status)
    right = [sum(pair[side].status == "right" for pair in pairs) for side in (0, 1)]
    shares = [round(count / n, 6) if n else 0.0 for count in right]
    other = sum(old.status == new.status and old.answer != new.answer for old, new in pairs)
    return {
        "n": n,
        "flips": dict(flips.most_common()),
        "right_before": shares[0],
        "right_after": shares[1],
        "change": round(shares[1] - shares[0], 6),
        "other_answer": other,
    }


def _flip(key: str, old: Ruling, new: Ruling) -> Flip:
    return Flip(
        *(key, new.problem_id, new.task, old.status, new.status),
        *(old.answer, new.answer, old.reason, new.reason),
    )


def _line(task: str, entry: Mapping[str, Any]) -> str:
    flips = ", ".join(f"{count:,} {kind}" for kind, count in entry["flips"].items()) or "no verdict changed"
    before, after = 100 * entry["right_before"], 100 * entry["right_after"]
    return f"{task}, {entry['n']:,} responses: {flips}; right {before:.1f} % -> {after:.1f} % ({after - before:+.1f})"


def _kind(group: list[dict[str, Any]]) -> str:
    first = group[0]
    reasons = {side: first[f"reason_{side}"] for side in ("before", "after")}
    sides = " -> ".join(f"{first[side]} ({reason})" if reason else first[side] for side, reason in reasons.items())
    answers = first["answer_before"], first["answer_after"]
    shown = f", such as {answers[1] if answers[1] is not None else answers[0]!r:.60}" if any(answers) else ""
    return f"{len(group):,} {sides}{shown} [{first['problem_id']}]"
