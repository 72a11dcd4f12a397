"""Methods at equal cost: what each comes to between the sizes that were run, how far that is from self-consistency, and
the tables of docs/search_study.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from selftrain.intervals import mean, mean_interval, paired_test

LEVELS = (128, 256, 512, 1024)
"""Total tokens for one problem at which methods are compared."""
MAJORITY = "self-consistency"

Values = dict[str, float]
"""By problem, the chance to be right."""


class Point(NamedTuple):
    """A method at one size."""

    size: str
    policy_tokens: float
    value_tokens: float
    seconds: float
    """All of them for one problem."""
    right: Values

    @property
    def tokens(self) -> float:
        return self.policy_tokens + self.value_tokens


Curves = dict[str, list[Point]]
"""By method, from small to large."""
Cost = Callable[[Point], float]


def listed(curves: Curves) -> dict[str, list[dict[str, Any]]]:
    """Curves of one seed with their intervals over problems."""
    return {
        method: [
            {
                "size": one.size,
                "policy_tokens": round(one.policy_tokens, 1),
                "value_tokens": round(one.value_tokens, 1),
                "seconds": round(one.seconds, 5),
                "right": [round(value, 4) for value in mean_interval(list(one.right.values()))],
            }
            for one in points
        ]
        for method, points in curves.items()
    }


def together(seeds: Mapping[int, Curves]) -> dict[str, Any]:
    """Over seeds: the curves, and all methods at equal tokens and at equal time, against self-consistency."""
    every = list(seeds.values())
    pooled = {method: [_pooled([one[method][i] for one in every]) for i in range(len(points))]
              for method, points in every[0].items()}  # fmt: skip
    own = pooled[MAJORITY]
    longest = math.log2(own[-1].seconds)
    times = [2.0 ** (longest - steps) for steps in (3, 2, 1, 0)]
    return {
        "curves": listed(pooled),
        "equal tokens": dict(compared(seeds, LEVELS, lambda point: point.tokens)),
        "equal time": dict(compared(seeds, times, lambda point: point.seconds)),
    }


def _pooled(points: Sequence[Point]) -> Point:
    """One size of a method over seeds, whose problems are the same: the mean of each problem."""
    right = {key: mean([point.right[key] for point in points]) for key in points[0].right}
    drawn, read = mean([one.policy_tokens for one in points]), mean([one.value_tokens for one in points])
    return Point(points[0].size, drawn, read, mean([one.seconds for one in points]), right)


def compared(
    seeds: Mapping[int, Curves], levels: Sequence[float], cost: Cost
) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """By level and method: accuracy and its interval over problems, the paired difference from self-consistency, and
    that of each seed."""
    for level in levels:
        at = {seed: {name: at_cost(points, level, cost) for name, points in one.items()} for seed, one in seeds.items()}
        found: dict[str, dict[str, Any]] = {}
        for method in next(iter(at.values())):
            values = [one[method] for one in at.values()]
            plain = [one[MAJORITY] for one in at.values()]
            if any(value is None for value in (*values, *plain)):
                continue
            mine, theirs = _over(values), _over(plain)
            found[method] = {"right": [round(value, 4) for value in mean_interval(list(mine.values()))]}
            if method != MAJORITY:
                test = paired_test(theirs, mine)
                found[method] |= {key: float(f"{value:.4g}") for key, value in test._asdict().items()}
                found[method]["by seed"] = [
                    round(mean(list(a.values())) - mean(list(b.values())), 4)
                    for a, b in zip(values, plain, strict=True)
                    if a is not None and b is not None
                ]
        yield f"{level:.4g}", found


def _over(seeds: Sequence[Values | None]) -> Values:
    known = [one for one in seeds if one is not None]
    return {key: mean([one[key] for one in known]) for key in known[0]}


def at_cost(points: Sequence[Point], level: float, cost: Cost) -> Values | None:
    """What a method comes to at a cost, between the two sizes around it by the logarithm of theirs; None outside."""
    ordered = sorted(points, key=cost)
    for low, high in pairwise(ordered):
        if cost(low) <= level <= cost(high):
            share = math.log(level / cost(low)) / math.log(cost(high) / cost(low)) if cost(high) > cost(low) else 0.0
            return {key: (1 - share) * value + share * high.right[key] for key, value in low.right.items()}
    return None


def tables(result: Mapping[str, Any]) -> list[str]:
    """As the page holds them, in Markdown."""
    whole, lines = result["together"], list[str]()
    for what, unit in (("equal tokens", "tokens"), ("equal time", "s")):
        levels = whole[what]
        methods = [name for name in whole["curves"] if any(name in own for own in levels.values())]
        lines += [f"| {what} | {' | '.join(f'{level} {unit}' for level in levels)} |", "|---" * (len(levels) + 1) + "|"]
        lines += [f"| {name} | {' | '.join(_cell(own.get(name)) for own in levels.values())} |" for name in methods]
        lines.append("")
    lines += ["| method | size | policy tokens | value tokens | ms | right % |", "|---|---|---|---|---|---|"]
    for method, points in whole["curves"].items():
        for one in points:
            right, low, high = (100 * value for value in one["right"])
            lines.append(
                f"| {method} | {one['size']} | {one['policy_tokens']:,.0f} | {one['value_tokens']:,.0f} | "
                f"{1000 * one['seconds']:.1f} | {right:.1f} [{low:.1f}, {high:.1f}] |"
            )
    return lines


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    right = f"{100 * found['right'][0]:.1f}"
    if "difference" not in found:
        return right
    return f"{right} ({100 * found['difference']:+.1f} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}])"
