"""Judging that goes on while samples are drawn: verdicts as they arrive, files part by part."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from selftrain import records
from selftrain.judging import Request as Judgement
from selftrain.sampling.base import Completion, Request
from selftrain.stages.ledger import Ledger
from selftrain.stages.session import Session
from selftrain.stages.verify import judge_part, verdicts_folder
from selftrain.types import Verdict
from selftrain.verification import ErrorBudget

Key = tuple[str, str]
"""Problem and step of samples, which lie in one part together."""


class Judging:
    """A context manager; where sampling ends early, the judgements it is at are the last.

    Judges as many answers at once as there are verifier workers; one more thread writes the parts.
    """

    def __init__(self, session: Session, iteration: int, budget: ErrorBudget) -> None:
        self.enough: int | None = None
        self._session, self._iteration, self._budget = session, iteration, budget
        self._judges = ThreadPoolExecutor(session.config.launch.verify_workers, "judge")
        self._writer = ThreadPoolExecutor(1, "verdicts")
        self._verdicts: defaultdict[Key, dict[int, tuple[Future[list[Verdict]], int]]] = defaultdict(dict)
        self._unsettled: dict[Future[list[Verdict]], list[tuple[int, int]]] = {}

    def __enter__(self) -> Judging:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self._judges, self._writer):
            pool.shutdown(cancel_futures=True)

    def arrived(self, work: Sequence[Request], completions: Sequence[Completion]) -> None:
        if not completions:
            return
        asked = [self._session.asked(work[c.request].purpose) for c in completions]
        requests = [
            self._session.judgement(work[c.request].problem, c.text, prompters)
            for c, prompters in zip(completions, asked, strict=True)
        ]
        future = self._judges.submit(self._judge, requests)
        if self.enough is not None:
            self._unsettled[future] = [(c.request, c.index) for c in completions]
        for position, c in enumerate(completions):
            self._verdicts[work[c.request].problem.id, work[c.request].purpose][c.index] = (future, position)

    def settle(self, ledger: Ledger, wait: bool = False) -> list[int]:
        """As `Watcher.settle`; where verdicts decide nothing yet, one that cannot be had stops no sample from being
        written."""
        settled = [future for future in self._unsettled if wait or future.done()]
        touched = []
        for future in settled:
            places = self._unsettled.pop(future)
            for (request, index), verdict in zip(places, future.result(), strict=True):
                ledger.judge(request, index, verdict.status == "right")
                touched.append(request)
        return touched

    def part(self, path: Path, fresh: bool) -> Future[Counter[str]]:
        """Write the verdicts of a part of samples; of one that an earlier process wrote, judge what it did not."""
        if fresh:
            return self._writer.submit(self._write, path)
        return self._writer.submit(judge_part, self._session, self._iteration, path, self._budget)

    def _judge(self, requests: list[Judgement]) -> list[Verdict]:
        return list(self._budget.watch(self._session.verifiers.judge(requests)))

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
