"""Judging that goes on while samples are drawn: verdicts as they arrive, files part by part."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from selftrain import records
from selftrain.budget import ErrorBudget
from selftrain.drawing.ledger import Ledger
from selftrain.drawing.sampled import finish_reason
from selftrain.judging import Request as Judgement
from selftrain.planning.settings import counts_texts
from selftrain.sampling.base import Completion, Place, Request
from selftrain.selection import ENDED
from selftrain.session import Session
from selftrain.stages.verify import judge_part, verdicts_folder
from selftrain.types import Verdict

TOGETHER = 64
"""Answers judged as one piece of work at most: verdicts are to be had before the last of many is there."""

Key = tuple[str, str]
"""Problem and step of samples, which lie in one part together."""


class Unsettled(NamedTuple):
    """An answer whose verdict may make later ones superfluous."""

    place: Place
    ended: bool
    """Whether it came to its end: a truncated one is never taught, so a right one is not enough."""
    text: str | None
    """Where equal texts count once."""


class Judging:
    """A context manager; where sampling fails or is stopped, no judgement is waited for.

    Judges as many answers at once as there are verifier workers; one more thread writes the parts.
    """

    def __init__(self, session: Session, iteration: int, budget: ErrorBudget) -> None:
        self.enough: int | None = None
        self._distinct = False
        self._session, self._iteration, self._budget = session, iteration, budget
        # Made here, by one thread: all that judge share it.
        self._verifiers = session.verifiers
        self._judges = ThreadPoolExecutor(session.config.launch.verify_workers, "judge")
        self._writer = ThreadPoolExecutor(1, "verdicts")
        self._verdicts: defaultdict[Key, dict[int, tuple[Future[list[Verdict]], int]]] = defaultdict(dict)
        self._unsettled: dict[Future[list[Verdict]], list[Unsettled]] = {}

    def __enter__(self) -> Judging:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is not None:
            self._verifiers.stop()
        for pool in (self._judges, self._writer):
            pool.shutdown(cancel_futures=True)

    def begin(self, step: str) -> None:
        """What arrives from now on belongs to this step of Grow."""
        self.enough = self._session.config.grow[step].enough
        self._distinct = counts_texts(self._session.config, step)

    def arrived(self, work: Sequence[Request], completions: Sequence[Completion]) -> None:
        for start in range(0, len(completions), TOGETHER):
            self._arrived(work, completions[start : start + TOGETHER])

    def _arrived(self, work: Sequence[Request], completions: Sequence[Completion]) -> None:
        asked = [self._session.asked(work[c.request].purpose) for c in completions]
        requests = [
            self._session.judgement(work[c.request].problem, c.text, prompters)
            for c, prompters in zip(completions, asked, strict=True)
        ]
        future = self._judges.submit(self._judge, requests)
        if self.enough is not None:
            self._unsettled[future] = [self._counted(work[c.request], c) for c in completions]
        for position, c in enumerate(completions):
            self._verdicts[work[c.request].problem.id, work[c.request].purpose][c.index] = (future, position)

    def _counted(self, request: Request, answer: Completion) -> Unsettled:
        ended = finish_reason(self._session, request, answer) in ENDED
        return Unsettled((answer.request, answer.index), ended, answer.text.strip() if self._distinct else None)

    def settle(self, ledger: Ledger, wait: bool = False) -> list[int]:
        """As `Watcher.settle`; where verdicts decide nothing yet, one that cannot be had stops no sample from being
        written."""
        settled = [future for future in self._unsettled if wait or future.done()]
        touched = []
        for future in settled:
            answers = self._unsettled.pop(future)
            for (place, ended, text), verdict in zip(answers, future.result(), strict=True):
                ledger.judge(*place, ended and verdict.status == "right", text)
                touched.append(place[0])
        return touched

    def part(self, path: Path, fresh: bool) -> Future[Counter[str]]:
        """Write the verdicts of a part of samples; of one that an earlier process wrote, judge what it did not."""
        if fresh:
            return self._writer.submit(self._write, path)
        return self._writer.submit(judge_part, self._session, self._iteration, path, self._budget)

    def _judge(self, requests: list[Judgement]) -> list[Verdict]:
        return list(self._budget.watch(self._verifiers.judge(requests)))

    def _write(self, path: Path) -> Counter[str]:
        ids, *places = records.columns(path, "id", "problem_id", "step", "index")
        verdicts = []
        for problem, step, index in zip(*places, strict=True):
            future, position = self._verdicts[problem, step][index]
            verdicts.append(future.result()[position])
        for problem, step, _ in zip(*places, strict=True):
            self._verdicts.pop((problem, step), None)
        records.write(verdicts_folder(self._session, self._iteration) / path.name, Verdict, verdicts, sample_id=ids)
        return Counter(verdict.status for verdict in verdicts)
