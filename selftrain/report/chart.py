"""Lines by iteration, or by number of samples, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 312, 48, 16, 34, 36
KINDS = "abcd"
"""Style classes of the lines, in order."""

COLOURS = """
:root { color-scheme: light dark; --text: #1c2330; --soft: #5b6575; --line: #d9dee6; --page: #fff; --panel: #f5f7fa;
  --a: #2563c9; --b: #c2570c; --c: #17803d; --d: #8a3ab9; --good: #17803d; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ef; --soft: #9aa4b5; --line: #333b48; --page: #14181f;
  --panel: #1c222c; --a: #7aa7ff; --b: #ffa561; --c: #5fd38a; --d: #d6a2f5; --good: #5fd38a; --bad: #ff8a80; } }
"""
STYLE = """
svg { width: 100%; max-width: 720px; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--soft); } .grid { stroke: var(--line); } .line { fill: none; stroke-width: 2.5; }
.a { stroke: var(--a); } .b { stroke: var(--b); stroke-dasharray: 6 4; } .whisker { stroke-dasharray: none; }
.c { stroke: var(--c); } .d { stroke: var(--d); stroke-dasharray: 2 4; }
.band { opacity: .16; } .band.a, circle.a { fill: var(--a); } .band.b, circle.b { fill: var(--b); }
.band.c, circle.c { fill: var(--c); } .band.d, circle.d { fill: var(--d); }
.band, circle.a, circle.b, circle.c, circle.d { stroke: none; }
"""

Point = tuple[int, float, float, float]
"""Where it stands on the horizontal axis, value, low, high."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart: shares in [0, 1]."""

    name: str
    points: tuple[Point, ...]


def line_chart(series: Sequence[Series], label: str, axis: str = "iteration", *, doubling: bool = False) -> str:
    """Shares by iteration as inline SVG: a line, its points and its 95 % band for each series, four at most.

    The vertical axis spans whole tens of percent around what is shown; hovering over a point tells its numbers.

    Args:
        axis: what the horizontal axis counts.
        doubling: twice as many are one step on it, and each number that occurs has its mark.
    """
    points = [point for one in series for point in one.points]
    places = sorted({point[0] for point in points})
    first, last = places[0], places[-1]
    bottom = min(0.9, int(10 * min(point[2] for point in points)) / 10)
    top = min(1.0, (int(10 * max(point[3] for point in points)) + 1) / 10)
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def along(place: int) -> float:
        return math.log2(place) if doubling else place

    def x(place: int) -> float:
        span = along(last) - along(first)
        return LEFT + inner_width * ((along(place) - along(first)) / span if span else 0.5)

    def y(share: float) -> float:
        return TOP + inner_height * (top - share) / (top - bottom)

    marks = places if doubling else list(range(first, last + 1, (last - first) // 10 + 1))
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    parts += _axes(x, y, (axis, marks), (round(10 * bottom), round(10 * top)))
    for one, kind in zip(series, KINDS, strict=False):
        parts += _line(one, kind, x, y, axis)
    for index, (one, kind) in enumerate(zip(series, KINDS, strict=False)):
        at = LEFT + 120 * index
        parts.append(f'<line class="line {kind}" x1="{at}" x2="{at + 28}" y1="12" y2="12"/>')
        parts.append(f'<text x="{at + 34}" y="16">{escape(one.name)}</text>')
    return "".join([*parts, "</svg>"])


def picture(chart: str) -> str:
    """A chart as a file of its own, which a page shows as an image."""
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
    paper = f'<style>{COLOURS}{STYLE}</style><rect width="{WIDTH}" height="{HEIGHT}" fill="var(--page)"/>'
    opening, _, rest = chart.partition(">")
    return f"{frame}{opening.removeprefix('<svg ')}>{paper}{rest}\n"


def _axes(
    x: Callable[[int], float],
    y: Callable[[float], float],
    horizontal: tuple[str, Sequence[int]],
    tens: tuple[int, int],
) -> list[str]:
    parts = []
    for ten in range(tens[0], tens[1] + 1):
        height = y(ten / 10)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{height + 4:.1f}" text-anchor="end">{10 * ten} %</text>')
    axis, marks = horizontal
    for mark in marks:
        parts.append(f'<text x="{x(mark):.1f}" y="{HEIGHT - 18}" text-anchor="middle">{mark}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 2}" text-anchor="middle">{axis}</text>')
    return parts


def _line(series: Series, kind: str, x: Callable[[int], float], y: Callable[[float], float], axis: str) -> list[str]:
    points = sorted(series.points)
    edge = [(at, high) for at, _, _, high in points] + [(at, low) for at, _, low, _ in reversed(points)]
    parts = [f'<polygon class="band {kind}" points="{" ".join(f"{x(at):.1f},{y(v):.1f}" for at, v in edge)}"/>']
    middle = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value, _, _ in points)
    parts.append(f'<polyline class="line {kind}" points="{middle}"/>')
    if len(points) == 1:  # a band of one point has no width
        at, _, low, high = points[0]
        ends = f'y1="{y(low):.1f}" y2="{y(high):.1f}"'
        parts.append(f'<line class="line whisker {kind}" x1="{x(at):.1f}" x2="{x(at):.1f}" {ends}/>')
    for at, value, low, high in points:
        told = f"{series.name}, {axis} {at}: {100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        circle = f'<circle class="{kind}" cx="{x(at):.1f}" cy="{y(value):.1f}" r="4">'
        parts.append(f"{circle}<title>{escape(told)}</title></circle>")
    return parts
