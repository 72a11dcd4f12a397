"""How many responses a verifier may fail to judge before the run stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import RLock

from selftrain.errors import RunError
from selftrain.types import STATUSES, UNJUDGED, Status, Verdict


class TooManyErrors(RunError):
    """The verifier could not judge too many of the responses."""


def count_statuses(verdicts: Iterable[Verdict]) -> dict[Status, int]:
    """How many verdicts have each of the five statuses."""
    counts = Counter(verdict.status for verdict in verdicts)
    return {status: counts[status] for status in STATUSES}


@dataclass
class ErrorBudget:
    """Stops a run whose verifier cannot judge too large a share of the responses. From any thread, several at once."""

    rate: float = 0.2
    """Largest share of ``error`` and ``timeout`` together."""
    after: int = 50
    """Number of verdicts before which nothing is said."""
    counts: Counter[Status] = field(default_factory=Counter)
    reason: str | None = None
    """Of the last verdict that is none, and by whom."""
    _lock: RLock = field(default_factory=RLock, repr=False, compare=False)

    def watch(self, verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
        """Pass verdicts on, counted.

        Raises:
            TooManyErrors: the share is above ``rate``.
        """
        for verdict in verdicts:
            self.add(verdict)
            yield verdict

    def add(self, verdict: Verdict) -> None:
        """Count one verdict; raises as ``watch`` does."""
        with self._lock:
            self.counts[verdict.status] += 1
            if verdict.status not in UNJUDGED:
                return
            self.reason = f"{verdict.verifier}: {verdict.reason}"
            if self.counts.total() >= self.after:
                self.check()

    def add_counted(self, counts: Mapping[Status, int]) -> None:
        """Count verdicts of an earlier process; raises nothing."""
        with self._lock:
            self.counts.update(counts)

    def check(self) -> None:
        """Look at the share whatever the number of verdicts; raises as ``watch`` does."""
        with self._lock:
            failed, judged = self.counts["error"] + self.counts["timeout"], self.counts.total()
        if failed > self.rate * judged:
            raise TooManyErrors(
                f"the verifier could not judge {failed} of {judged} responses "
                f"({self.counts['error']} errors, {self.counts['timeout']} timeouts; last: {self.reason}): "
                f"mend it, or give it more time or memory (reward.verify), then run the same command again: no sample "
                f"is lost (allowed share: {self.rate:g})"
            )
