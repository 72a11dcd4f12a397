"""What a person sees of a run: tables, the live view on a pipe and on a terminal, the HTML report."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import threading
import xml.dom.minidom
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, TextIO

import pytest

from selftrain.events import Evaluated, Event, Finished, Notice, Plan, Progress, StageFinished, StageStarted
from selftrain.report.chart import Series, line_chart, picture
from selftrain.report.html import write_report
from selftrain.report.live import LiveView, duration
from selftrain.report.tables import compare_table, iterations_table, status_table


def row(iteration: int, share: float, *, split: str = "test", **more: Any) -> dict[str, Any]:
    metrics: dict[str, Any] = {"iteration": iteration, "task": "arithmetic", "split": split, "n_problems": 500}
    for name, value in (("pass@1", share), ("avg@8", share - 0.05), ("maj@8", share + 0.05)):
        metrics |= {name: value, f"{name}_low": value - 0.04, f"{name}_high": value + 0.04}
    return metrics | {"truncated": 0.012, "unparsed": 0.0, "errors": 0.0, "by_difficulty": {}} | more


def paired(difference: float, p: float) -> dict[str, dict[str, float]]:
    return {"pass@1": {"difference": difference, "low": 0.0, "high": 1.0, "p": p}}


ROWS = [
    row(1, 0.528, vs_start=paired(0.068, 0.0004), vs_previous=paired(0.068, 0.0004)),
    row(0, 0.46),
    row(2, 0.61, vs_start=paired(0.15, 1e-9), vs_previous=paired(-0.003, 0.8)),
]


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def test_the_table_of_iterations_says_what_changed_and_how_sure_that_is() -> None:
    lines = iterations_table(ROWS).splitlines()
    assert lines[0] == "arithmetic / test, 500 problems"
    names = [
        "iteration",
        "pass@1 %",
        "avg@8 %",
        "maj@8 %",
        "truncated %",
        "unparsed %",
        "since start",
        "since previous",
    ]
    assert cells(lines[1]) == names
    assert cells(lines[3]) == ["0", "46.0 [42.0, 50.0]", "41.0 [37.0, 45.0]", "51.0", "1.2", "0.0", "-", "-"]
    assert cells(lines[4])[-2:] == ["+6.8 p=0.0004", "+6.8 p=0.0004"]
    assert cells(lines[5])[-2:] == ["+15.0 p<0.0001", "-0.3 p=0.8"]
    assert [cells(line)[0] for line in lines[7:]] == names
    assert all(line.endswith(".") for line in lines[7:])
    assert max(map(len, lines)) <= 120


def test_every_split_has_its_own_table_and_the_legend_stands_once() -> None:
    text = iterations_table([row(0, 0.5, split="val"), row(0, 0.4), row(1, 0.6, split="val")])
    assert re.findall(r"^arithmetic / (\w+)", text, re.M) == ["val", "test"]
    assert text.count("0 is the model the loop started from.") == 1
    assert "since start" not in text


def test_a_checkpoint_alone_has_no_iteration() -> None:
    lines = iterations_table([row(0, 0.46)], alone=True).splitlines()
    assert cells(lines[1])[0] == "pass@1 %" and cells(lines[3])[0] == "46.0 [42.0, 50.0]"
    assert "iteration" not in "".join(lines) and "started from" not in "".join(lines)


def test_failed_verdicts_show_as_soon_as_there_are_any() -> None:
    assert "errors" not in iterations_table([row(0, 0.5)])
    lines = iterations_table([row(0, 0.5), row(1, 0.5, errors=0.0001)]).splitlines()
    assert [cells(line)[-1] for line in (lines[1], lines[3], lines[4])] == ["errors %", "0.0", "<0.1"]


def test_without_greedy_responses_the_change_is_that_of_the_average() -> None:
    sampled = {"iteration": 1, "task": "t", "split": "test", "n_problems": 1, "avg@4": 0.5}
    lines = iterations_table([sampled | {"vs_start": {"avg@4": {"difference": 0.1, "p": 1.0}}}]).splitlines()
    assert cells(lines[3]) == ["1", "50.0", "+10.0 p=1"]


def test_two_runs_are_compared_at_their_last_iterations_on_what_both_have() -> None:
    b = [row(0, 0.46), row(1, 0.7), row(1, 0.9, split="val")]
    text = compare_table(ROWS, b, names=("base", "new"), tests={"arithmetic/test": {"pass@1": {"p": 0.002}}})
    assert "base at iteration 2 (500 problems) and new at iteration 1 (500 problems)" in text
    table = {cells(line)[0]: cells(line)[1:] for line in text.splitlines() if "%" in line}
    assert table["pass@1 %"] == ["61.0 [57.0, 65.0]", "70.0 [66.0, 74.0]", "+9.0 p=0.002"]
    assert table["avg@8 %"][-1] == "+9.0"
    assert "/ val" not in text


def test_runs_with_nothing_in_common_say_what_each_has() -> None:
    text = compare_table([row(0, 0.5)], [row(0, 0.5, split="val")])
    assert text == "nothing to compare: A was evaluated on arithmetic/test; B on arithmetic/val"


def test_status_lists_the_stages_of_each_iteration() -> None:
    lines = status_table({1: {"grow": "done", "improve": "3 of 12 parts"}, 0: {"evaluate": "done"}}).splitlines()
    assert cells(lines[0]) == ["iteration", "grow", "improve", "evaluate"]
    assert [cells(line) for line in lines[2:]] == [["0", "-", "-", "done"], ["1", "done", "3 of 12 parts", "-"]]


def test_nothing_to_show_is_said() -> None:
    assert iterations_table([]) == "no iteration has been evaluated yet"
    assert status_table({}) == "no stage has started yet"


class Clock:
    """Seconds that pass when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def grow(done: int, **more: Any) -> Progress:
    return Progress(1, "grow", done, 4000, **more)


STARTED = StageStarted(1, "grow", 4000, "samples")
FINISHED = StageFinished(1, "grow", 61.7, "1,600 of 4,000 right", False)


def plain(events: Sequence[tuple[float, Event]]) -> list[str]:
    """Lines written to a pipe when each event comes that many seconds after the one before."""
    stream, clock = io.StringIO(), Clock()
    with LiveView(stream, clock=clock) as view:
        for seconds, event in events:
            clock.now += seconds
            view.show(event)
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
    return stream.getvalue().splitlines()


def test_a_pipe_gets_plain_lines_and_progress_every_five_seconds() -> None:
    counts = {"right": 400, "wrong": 500, "error": 100}
    progress = [(1.0, grow(100 * i, tokens=6000 * i, counts=counts, values={"loss": 0.25})) for i in range(1, 13)]
    assert plain([(0, STARTED), (0, grow(0)), *progress, (0, FINISHED)]) == [
        "iteration 1 grow started: 4,000 samples",
        "iteration 1 grow: 500/4,000 samples, 100 samples/s, 6,000 tokens/s, 40.0 % right, loss 0.25, 35 s left",
        "iteration 1 grow: 1,000/4,000 samples, 100 samples/s, 6,000 tokens/s, 40.0 % right, loss 0.25, 30 s left",
        "iteration 1 grow done in 1:02: 1,600 of 4,000 right",
    ]


def test_a_resumed_stage_is_not_credited_with_what_it_found() -> None:
    lines = plain([(0, STARTED), (0, grow(3000, tokens=10**6)), (10, grow(3100, tokens=10**6 + 50)), (0, FINISHED)])
    assert lines[1] == "iteration 1 grow: 3,100/4,000 samples, 10 samples/s, 5 tokens/s, 1:30 left"


def test_rates_follow_a_change_of_speed() -> None:
    slow = [(10.0, grow(10 * i)) for i in range(1, 5)]
    fast = [(10.0, grow(40 + 1000 * i)) for i in range(1, 4)]
    assert "100 samples/s" in plain([(0, STARTED), (0, grow(0)), *slow, *fast])[-2]


def test_lines_of_everything_else() -> None:
    rows = (row(1, 0.528, vs_start=paired(0.068, 0.0004)),)
    assert plain(
        [
            (0, Plan(("will sample", "will train"))),
            (0, Notice("disk is nearly full", "warning")),
            (0, Notice("seeds are derived", "info")),
            (0, StageFinished(0, "evaluate", 0.0, "", True)),
            (0, Evaluated(1, rows, {})),
            (0, Finished("runs/x", "3 iterations done")),
        ]
    ) == [
        "will sample",
        "will train",
        "warning: disk is nearly full",
        "seeds are derived",
        "iteration 0 evaluate was already done",
        "iteration 1 arithmetic/test: pass@1 52.8 % [48.8, 56.8], avg@8 47.8 % [43.8, 51.8], since start +6.8 p=0.0004",
        "finished: 3 iterations done",
        "everything is in runs/x",
    ]


def test_tests_may_come_beside_the_rows() -> None:
    tests = {"arithmetic/test": {"vs_start": paired(0.1, 0.5)}}
    assert plain([(0, Evaluated(1, (row(1, 0.5),), tests))])[0].endswith("since start +10.0 p=0.5")


def test_an_interrupted_stage_says_how_far_it_came() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), LiveView(stream) as view:
        view.show(STARTED)
        view.show(grow(1200))
        raise KeyboardInterrupt
    assert stream.getvalue().splitlines()[-1] == "iteration 1 grow stopped at 1,200/4,000 samples"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (9.96, "10 s"), (59.4, "59 s"), (59.7, "1:00"), (185, "3:05"), (3727, "1:02:07")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Screen:
    """The few control sequences rich uses for its live area, and nothing else: an unknown one fails the test."""

    def __init__(self, width: int) -> None:
        self.width, self.lines, self.line, self.column = width, [""], 0, 0
        self.received = ""

    def feed(self, text: str) -> None:
        self.received += text
        for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\s\S]", text):
            if token == "\r":
                self.column = 0
            elif token == "\n":
                self._down()
            elif token[0] != "\x1b":
                self._put(token)
            elif token == "\x1b[2K":
                self.lines[self.line] = ""
            elif token.endswith("A"):
                self.line -= int(token[2:-1])
            else:
                assert token[-1] in "mhl", repr(token)

    def _put(self, character: str) -> None:
        if self.column == self.width:
            self._down()
            self.column = 0
        text = self.lines[self.line].ljust(self.column)
        self.lines[self.line] = text[: self.column] + character + text[self.column + 1 :]
        self.column += 1

    def _down(self) -> None:
        self.line += 1
        if self.line == len(self.lines):
            self.lines.append("")


@contextmanager
def terminal(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """A real pseudo-terminal whose output is drawn on ``screen``."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(screen.width))
    master, slave = pty.openpty()
    received: list[bytes] = []

    def read() -> None:
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # Linux reports the closed other end this way
                return
            received.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with open(slave, "w", encoding="utf-8") as stream:
        yield stream
    reader.join(timeout=10)
    os.close(master)
    screen.feed(b"".join(received).decode())


@pytest.mark.parametrize("width", [40, 100])
def test_a_terminal_keeps_every_permanent_line_and_nothing_of_the_live_area(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(width)
    long = "a long notice with [brackets] " + "x" * 90 + " end"
    with terminal(screen, monkeypatch) as stream, LiveView(stream) as view:
        view.show(Plan(("will sample",)))
        view.show(STARTED)
        for step in range(1, 4):
            view.show(grow(1000 * step, tokens=60_000 * step, counts={"right": 1, "wrong": 1}, values={"loss": 0.5}))
            assert view._live is not None
            view._live.refresh()
            view.show(Notice(f"{step} {long}", "info"))
        view.show(FINISHED)
        view.show(StageStarted(1, "improve", None, "steps"))
        view.show(StageFinished(1, "improve", 3.0, "", False))
        view.show(Finished("runs/x", "done"))
    text = [
        "will sample",
        *(f"{step} {long}" for step in range(1, 4)),
        "iteration 1 grow done in 1:02: 1,600 of 4,000 right",
        "iteration 1 improve done in 3.0 s",
        "finished: done",
        "everything is in runs/x",
    ]
    wrapped = [line[at : at + width] for line in text for at in range(0, len(line), width)]
    assert [line for line in screen.lines if line] == wrapped
    assert "iteration 1 grow" not in screen.received.partition("grow done in")[2]


def test_a_terminal_shows_the_stage_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(120)
    with terminal(screen, monkeypatch) as stream:
        clock = Clock()
        view = LiveView(stream, clock=clock)
        view.__enter__()
        view.show(STARTED)
        view.show(grow(0))
        clock.now += 10
        view.show(grow(1000, tokens=60_000, counts={"right": 41, "wrong": 59}))
        assert view._live is not None
        view._live.transient = False
        view._live.refresh()
        view.__exit__(None, None, None)
    shown = next(line for line in screen.lines if "iteration 1 grow" in line)
    assert "10 s, 1,000/4,000 samples, 100 samples/s, 6,000 tokens/s, 41.0 % right, 30 s left" in shown


def test_a_terminal_that_cannot_move_the_cursor_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(80)
    with terminal(screen, monkeypatch) as stream:
        monkeypatch.setenv("TERM", "dumb")
        with LiveView(stream) as view:
            view.show(FINISHED)
    assert screen.lines[0] == "iteration 1 grow done in 1:02: 1,600 of 4,000 right"


def test_plain_lines_on_a_terminal_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(80)
    with terminal(screen, monkeypatch) as stream, LiveView(stream, plain=True) as view:
        view.show(STARTED)
        assert view._live is None
        view.show(FINISHED)
    assert screen.lines[:2] == [
        "iteration 1 grow started: 4,000 samples",
        "iteration 1 grow done in 1:02: 1,600 of 4,000 right",
    ]


class Page(HTMLParser):
    """Checks that elements nest, and collects tags, attributes and text."""

    VOID = ("meta", "!doctype")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


EVIL = "<script>alert(1)</script> & \"quoted\" <img src=x onerror='alert(2)'> \ud800"


def report(path: Path, **more: Any) -> str:
    arguments: dict[str, Any] = {
        "title": "quickstart",
        "rows": ROWS,
        "selection": {},
        "config_text": "a: 1",
        "samples": [],
    }
    write_report(path, **(arguments | more))
    return path.read_text(encoding="utf-8")


def test_the_report_is_one_well_formed_file_that_loads_and_runs_nothing(tmp_path: Path) -> None:
    samples = [{"iteration": 1, "problem_id": EVIL, "status": EVIL, "question": EVIL, "response": EVIL, "answer": None}]
    evil_row = row(0, 0.5) | {"task": EVIL}
    text = report(tmp_path / "r.html", title=EVIL, rows=[*ROWS, evil_row], config_text=EVIL, samples=samples)
    page = Page(text)
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href")]
    assert "http" not in text.replace("http-equiv", "")
    assert page.text.count("<script>alert(1)</script>") >= 6
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]


def test_the_report_tells_results_selection_samples_and_config(tmp_path: Path) -> None:
    levels = [
        row(0, 0.46, by_difficulty={"2": {"n": 9, "pass@1": 0.5}}),
        row(2, 0.61, by_difficulty={"2": {"n": 9, "pass@1": 0.75}}),
    ]
    text = report(
        tmp_path / "r.html",
        rows=[*levels, ROWS[0]],
        selection={1: {"kept": 900, "wrong": 2000, "over the cap": 100}, 2: {"kept": 1500, "duplicate": 1500}},
        acceptance={1: 0.4},
        config_text="loop: {iterations: 2}",
        samples=[{"iteration": 1, "problem_id": "arithmetic/train/7", "status": "right", "response": "3 + 4 = 7"}],
    )
    page = Page(text)
    assert "pass@1 went from 46.0 % at iteration 0 to 61.0 % at iteration 2 on 500 problems." in page.text
    body = [re.findall(r"<td>(.*?)</td>", line) for line in re.findall(r"<tr>(.*?)</tr>", text)]
    assert ["1", "3,000", "40.0", "900", "30.0", "2,000", "100", "0"] in body
    assert ["2", "3,000", "-", "1,500", "50.0", "0", "0", "1,500"] in body
    assert ["2", "9", "50.0", "75.0"] in body
    assert [
        "1",
        "52.8 [48.8, 56.8]",
        "47.8 [43.8, 51.8]",
        "57.8",
        "1.2",
        "0.0",
        "+6.8 p=0.0004",
        "+6.8 p=0.0004",
    ] in body
    assert '<span class="right">right</span>' in text
    assert "3 + 4 = 7" in page.text
    assert "<details><summary>Every setting</summary><pre>loop: {iterations: 2}</pre></details>" in text


def test_a_report_of_a_run_that_has_only_begun(tmp_path: Path) -> None:
    assert "No iteration has been evaluated yet." in Page(report(tmp_path / "r.html", rows=[])).text
    assert "pass@1 is 46.0 % on 500 problems at iteration 0." in Page(report(tmp_path / "r.html", rows=[ROWS[1]])).text


def test_a_report_is_replaced_whole(tmp_path: Path) -> None:
    first = report(tmp_path / "r.html")
    with pytest.raises(KeyError):
        report(tmp_path / "r.html", rows=[{"iteration": 1}])
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == first


def chart_points(svg: str, tag: str) -> list[list[tuple[float, float]]]:
    shapes = xml.dom.minidom.parseString(svg).getElementsByTagName(tag)
    pairs = [[pair.split(",") for pair in shape.getAttribute("points").split()] for shape in shapes]
    return [[(float(x), float(y)) for x, y in shape] for shape in pairs]


def test_the_chart_places_values_between_its_grid_lines() -> None:
    svg = line_chart([Series("pass@1", ((0, 0.4, 0.35, 0.45), (2, 0.6, 0.55, 0.65), (1, 0.5, 0.45, 0.55)))], "pass@1")
    document = xml.dom.minidom.parseString(svg)
    labels = {node.firstChild.data: float(node.getAttribute("y")) for node in document.getElementsByTagName("text")}  # type: ignore[union-attr]
    ticks = [labels[f"{ten} %"] - 4 for ten in (40, 50, 60)]
    (line,), (band,) = chart_points(svg, "polyline"), chart_points(svg, "polygon")
    assert [y for _, y in line] == pytest.approx(ticks, abs=0.11)
    assert line[1][0] == pytest.approx((line[0][0] + line[2][0]) / 2, abs=0.11)
    assert len(band) == 6
    assert band[0][1] < line[0][1] < band[-1][1]
    assert "pass@1, iteration 1: 50.0 % [45.0, 55.0]" in svg


def test_a_chart_as_a_file_of_its_own_brings_its_style() -> None:
    chart = line_chart([Series("pass@1", ((0, 0.4, 0.35, 0.45), (1, 0.5, 0.45, 0.55)))], "pass@1")
    (root,) = xml.dom.minidom.parseString(picture(chart)).getElementsByTagName("svg")
    (style,), (paper, *_) = root.getElementsByTagName("style"), root.getElementsByTagName("rect")
    assert root.getAttribute("xmlns") == "http://www.w3.org/2000/svg"
    assert ".band.a" in style.firstChild.data  # type: ignore[union-attr]
    assert paper.getAttribute("width") == root.getAttribute("width") == "720"
    assert len(root.getElementsByTagName("polyline")) == 1


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_single_point_at_any_height_stays_inside_the_chart(share: float) -> None:
    svg = line_chart([Series("pass@1", ((3, share, share, share),))], "pass@1")
    _, _, width, height = map(float, re.search(r'viewBox="(\S+) (\S+) (\S+) (\S+)"', svg).groups())  # type: ignore[union-attr]
    ((x, y),) = chart_points(svg, "polyline")[0]
    assert 0 < x < width
    assert 0 < y < height


def test_many_iterations_keep_a_readable_axis() -> None:
    svg = line_chart([Series("pass@1", tuple((i, 0.5, 0.4, 0.6) for i in range(593)))], "pass@1")
    assert len(re.findall(r'text-anchor="middle">\d+<', svg)) <= 11


def test_importing_the_report_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom selftrain.report import html, live\nprint(*({'rich', 'numpy', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
