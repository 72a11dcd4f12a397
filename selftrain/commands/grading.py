"""What `selftrain verify` shows: progress, counts of verdicts, where two verifiers agree."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from selftrain.types import STATUSES, UNJUDGED, Status, Verdict

SHOWN = 5
"""Reasons that are shown of what could not be judged, and rows of those two verifiers disagree about."""
REASON_CHARACTERS = 120
SAME_VALUE = 1e-9
EVERY_SECONDS = 0.2


@dataclass
class Count:
    """The verdicts of one verifier."""

    name: str
    statuses: Counter[Status] = field(default_factory=Counter)
    value: float = 0.0
    """Sum over what was judged."""
    first: dict[tuple[Status, str], Any] = field(default_factory=dict)
    """Id of the first response that could not be judged for a reason; for the first few reasons."""
    failed: Counter[tuple[Status, str]] = field(default_factory=Counter)
    """How many could not be judged for these."""

    def add(self, identifier: Any, verdict: Verdict) -> None:
        self.statuses[verdict.status] += 1
        self.value += verdict.value or 0.0
        if verdict.status in UNJUDGED:
            why = verdict.status, _short(verdict.reason)
            if why in self.first or len(self.first) < SHOWN:
                self.first.setdefault(why, identifier)
                self.failed[why] += 1

    def lines(self) -> list[str]:
        total = self.statuses.total()
        rows = [
            f"{status:<10}{self.statuses[status]:>10,}  {_share(self.statuses[status], total)}" for status in STATUSES
        ]
        judged = total - self.statuses["error"] - self.statuses["timeout"]
        mean = f"mean value of what was judged: {self.value / judged:.4f}" if judged else "nothing was judged"
        told = [self._failed(*why) for why in self.first]
        head = [f"what {self.name} could not judge, by the first reasons:"] if told else []
        return [f"{self.name}: {total:,} responses", *rows, mean, *head, *told]

    def _failed(self, status: Status, reason: str) -> str:
        others = self.failed[status, reason] - 1
        return f"  {status} on {self.first[status, reason]}{f' and {others:,} more' if others else ''}: {reason}"


@dataclass
class Agreement:
    """How often two verifiers say the same: right, not right, or not judged."""

    own: str
    other: str
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    same: int = 0
    values: int = 0
    """Responses on which they say the same, but give another value."""
    shown: list[str] = field(default_factory=list)

    def add(self, identifier: Any, own: Verdict, other: Verdict) -> None:
        pair = kind(own), kind(other)
        self.pairs[pair] += 1
        if same(own, other):
            self.same += 1
            return
        self.values += pair[0] == pair[1]
        if len(self.shown) < SHOWN:
            self.shown.append(f"  {identifier}: {self.own} {_brief(own)}; {self.other} {_brief(other)}")

    def lines(self) -> list[str]:
        kinds = ("right", "not right", "not judged")
        head = f"{self.own} (down) against {self.other} (across)"
        width = max(len(one) for one in kinds) + 2
        table = [" " * width + "".join(f"{one:>12}" for one in kinds)]
        table += [
            f"{down:<{width}}" + "".join(f"{self.pairs[down, across]:>12,}" for across in kinds) for down in kinds
        ]
        total = self.pairs.total()
        values = f", {self.values:,} of them only about the value" if self.values else ""
        told = f"they agree on {self.same:,} of {total:,} ({_share(self.same, total)}) and disagree on "
        return [head, *table, f"{told}{total - self.same:,}{values}", *self.shown]


def kind(verdict: Verdict) -> str:
    if verdict.status in UNJUDGED:
        return "not judged"
    return "right" if verdict.status == "right" else "not right"


def same(own: Verdict, other: Verdict) -> bool:
    """Whether two verdicts come to the same; wrong and unparsed do, where they give the same value."""
    return kind(own) == kind(other) and abs((own.value or 0.0) - (other.value or 0.0)) <= SAME_VALUE


class Progress:
    """A line on standard error that says how far it is, on a terminal only; a context manager."""

    def __init__(self, total: int) -> None:
        self._total, self._began, self._next = total, time.monotonic(), 0.0
        self._live = sys.stderr.isatty()
        self._done = 0

    def __enter__(self) -> Progress:
        return self

    def step(self, count: Count) -> None:
        self._done += 1
        now = time.monotonic()
        if self._live and now >= self._next:
            self._next = now + EVERY_SECONDS
            failed = count.statuses["error"] + count.statuses["timeout"]
            right, pace = _share(count.statuses["right"], self._done), self._done / max(now - self._began, 1e-9)
            told = f"{self._done:,} of {self._total:,}, {right} right, {failed:,} not judged, {pace:,.0f} a second"
            self._write(told)

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:5.1f} %" if whole else "    - %"


def _brief(verdict: Verdict) -> str:
    credit = "" if verdict.value is None else f" {verdict.value:.3g}"
    answer = f" {_short(verdict.answer)}" if verdict.answer is not None else ""
    reason = f" ({_short(verdict.reason)})" if verdict.reason else ""
    return f"{verdict.status}{credit}{answer}{reason}"


def _short(text: str | None) -> str:
    """One line that any terminal can show."""
    start = (text or "")[:REASON_CHARACTERS]
    return "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in start)[:REASON_CHARACTERS]
