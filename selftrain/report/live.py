"""What a person sees while a run goes on: a live area on a terminal, plain lines everywhere else.

Both are fed the same events. The live area (rich) shows the stages under way; what stays true is printed once, above.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from selftrain.events import (
    ALONE,
    Evaluated,
    Event,
    Finished,
    Handover,
    Notice,
    Plan,
    Progress,
    StageFinished,
    StageStarted,
)
from selftrain.report.forgetting import nats, nats_change
from selftrain.report.protocols import scores_line
from selftrain.report.tables import change, estimate, metric_name
from selftrain.types import STATUSES

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

WINDOW = 30.0
"""Seconds over which rates are averaged."""


@dataclass(slots=True)
class StageState:
    """Where one stage under way stands, and the recent points its rates are measured from."""

    started: StageStarted
    since: float
    latest: Progress | None = None
    points: deque[tuple[float, int, int]] = field(default_factory=deque)
    """(seconds, done, tokens), oldest first."""
    printed: float = 0.0

    def add(self, progress: Progress, now: float) -> None:
        self.latest = progress
        self.points.append((now, progress.done, progress.tokens))
        while len(self.points) > 2 and self.points[1][0] <= now - WINDOW:
            self.points.popleft()

    @property
    def total(self) -> int | None:
        return self.latest.total if self.latest and self.latest.total is not None else self.started.total

    def rates(self) -> tuple[float, float]:
        """Units and tokens per second; 0 before two points in time are known."""
        if not self.points or self.points[-1][0] <= self.points[0][0]:
            return 0.0, 0.0
        (start, done, tokens), (end, now_done, now_tokens) = self.points[0], self.points[-1]
        return (now_done - done) / (end - start), (now_tokens - tokens) / (end - start)

    def parts(self) -> list[str]:
        """``1,200/4,000 samples``, rates, acceptance, values, time left: what is known, in this order."""
        if self.latest is None:
            return []
        done, total, (units, tokens) = self.latest.done, self.total, self.rates()
        parts = [f"{done:,}{f'/{total:,}' if total is not None else ''} {self.started.unit}"]
        if units > 0:
            parts.append(f"{number(units)} {self.started.unit}/s")
        if tokens > 0:
            parts.append(f"{number(tokens)} tokens/s")
        parts += [f"{100 * share:.1f} % right" for share in acceptance(self.latest.counts)]
        parts += [f"{name} {value:.4g}" for name, value in self.latest.values.items()]
        if units > 0 and total is not None and total > done:
            parts.append(f"{duration((total - done) / units)} left")
        return parts


class LiveView:
    """Shows events as they come; use as a context manager, hand each event to ``show``.

    A stage still under way when the view closes (a failure, an interrupt) leaves a line that says how far it came.

    Args:
        stream: where to write; standard output by default. A live area is drawn only where it is a terminal that can
            move the cursor; elsewhere every line is written whole and flushed, progress every ``interval`` seconds.
        plain: lines on a terminal too.
        clock: seconds, for rates.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        plain: bool = False,
        interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._plain = plain
        self._interval = interval
        self._clock = clock
        self._stages: dict[tuple[int, str], StageState] = {}
        self._live: Live | None = None

    def __enter__(self) -> LiveView:
        if not self._plain and self._stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
            self._live = self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        for state in self._stages.values():
            self._print(f"{label(state.started)} stopped{''.join(f' at {part}' for part in state.parts()[:1])}")
        self._stages.clear()

    def show(self, event: Event) -> None:
        match event:
            case StageStarted():
                self._stages[event.iteration, event.stage] = StageState(event, self._clock(), printed=self._clock())
                if self._live is None:
                    total = f": {event.total:,} {event.unit}" if event.total is not None else ""
                    self._print(f"{label(event)} started{total}")
            case Progress():
                self._progress(event)
            case StageFinished():
                self._stages.pop((event.iteration, event.stage), None)
                if self._live is not None:
                    self._live.refresh()  # else printing repaints the area as it last was, with the finished stage
                self._print(finished_line(event))
            case _:
                for line in lines_of(event):
                    self._print(line)

    def _progress(self, event: Progress) -> None:
        state = self._stages.get((event.iteration, event.stage))
        if state is None:
            return
        now = self._clock()
        state.add(event, now)
        if self._live is None and now - state.printed >= self._interval:
            state.printed = now
            self._print(f"{label(event)}: {', '.join(state.parts())}")

    def _print(self, line: str) -> None:
        """One permanent line, never cut and never read as markup."""
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
        else:
            self._stream.write(f"{line}\n")
            self._stream.flush()

    def _open(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        live = Live(
            console=Console(file=self._stream), get_renderable=self._render, transient=True, refresh_per_second=4
        )
        live.start()
        return live

    def _render(self) -> RenderableType:
        """The stages under way. Runs in the thread that repaints, hence the copy."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(width=16)
        table.add_column(overflow="fold")
        for state in list(self._stages.values()):
            done = state.latest.done if state.latest else 0
            bar = ProgressBar(total=state.total, completed=done, width=16, pulse=state.latest is None)
            text = [duration(self._clock() - state.since), *state.parts()]
            table.add_row(label(state.started), bar, ", ".join(text))
        return table


def lines_of(event: Any) -> list[str]:
    """The permanent lines of an event that is not about a stage."""
    match event:
        case Plan():
            return list(event.lines)
        case Notice():
            return [f"warning: {event.text}" if event.level == "warning" else event.text]
        case Evaluated():
            return [evaluated_line(event, row) for row in event.rows]
        case Handover():  # The closing line of its stage tells it.
            return []
        case Finished():
            return [f"finished: {event.reason}", f"everything is in {event.run_dir}"]
    raise TypeError(f"not an event: {event!r}")


def label(event: StageStarted | Progress | StageFinished) -> str:
    return event.stage if event.stage in ALONE else f"iteration {event.iteration} {event.stage}"


def finished_line(event: StageFinished) -> str:
    """One line that stays when a stage is over."""
    if event.skipped:
        return f"{label(event)} was already done"
    return f"{label(event)} done in {duration(event.seconds)}{f': {event.summary}' if event.summary else ''}"


def evaluated_line(event: Evaluated, row: Mapping[str, Any]) -> str:
    """``iteration 1 arithmetic/test: pass@1 52.8 % [48.4, 57.1], avg@8 ..., since start +6.8 p=0.0003``."""
    name = f"{row['task']}/{row['split']}"
    if "protocol" in row:
        return f"iteration {event.iteration} {name}, {row['protocol']}: {scores_line(row)}"
    if "nll" in row:
        since = nats_change(row, "vs_start")
        return f"iteration {event.iteration} {name}: nll {nats(row)}{f', since start {since}' if since else ''}"
    names = [metric for metric in ("pass@1", metric_name([row], "avg")) if metric in row]
    parts = [f"{metric} {_with_unit(estimate(row, metric))}" for metric in names]
    tested = {**event.tests.get(name, {}), **row}
    since = change(tested, "vs_start", names[0]) if names else ""
    return f"iteration {event.iteration} {name}: {', '.join(parts)}{f', since start {since}' if since else ''}"


def _with_unit(text: str) -> str:
    value, _, interval = text.partition(" ")
    return f"{value} % {interval}".rstrip()


def acceptance(counts: Mapping[str, int]) -> list[float]:
    """Share of right ones among everything judged so far; empty where nothing was."""
    judged = sum(counts.get(status, 0) for status in STATUSES)
    return [counts.get("right", 0) / judged] if judged else []


def duration(seconds: float) -> str:
    """``0.4 s``, ``41 s``, ``3:05`` minutes or ``1:02:07`` hours."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number(value: float) -> str:
    """Three digits, or thousands with separators: ``0.42``, ``8.3``, ``13,204``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
