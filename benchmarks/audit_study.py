"""How often the interval of an audit holds the truth: verdicts with planted mistakes, drawn and corrected many times.

At each setting, populations of responses with a planted pass rate are judged by a verifier with planted rates of false
positives and negatives; half of the mistakes, and a tenth of the rest, look odd. Of each, k are audited without error,
as `selftrain audit` draws them. Counted is how often the interval over problems holds the planted pass rate, the one
without it the share that is right in that very population, and those of both rates what they are in the population.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

from common import save

from selftrain.auditing.design import ACCEPTED, ODD_FROM, SMALL, allocate, kind_of
from selftrain.auditing.estimates import Audit, Stratum, audit, with_spread

AUDITED = (50, 100, 200, 400)
FALSE_POSITIVE = (0.0, 0.02, 0.05, 0.1)
FALSE_NEGATIVE = (0.0, 0.05, 0.1, 0.3)
PASS = (0.1, 0.3, 0.5, 0.7, 0.9)
BAND = (0.93, 0.97)
ODD = {True: 0.5, False: 0.1}
"""Share that looks odd, of mistaken verdicts and of the others."""


def population(random: Any, n: int, k: int, rate: float, fp: float, fn: float) -> dict[str, tuple[int, int]]:
    """Size, and how many are right, by stratum."""
    right = random.binomial(n, rate)
    accepted = {True: right - random.binomial(right, fn), False: random.binomial(n - right, fp)}
    rejected = {True: right - accepted[True], False: n - right - accepted[False]}
    found: dict[str, tuple[int, int]] = {}
    for name, side, mistaken in (("right", accepted, False), ("wrong", rejected, True)):
        odd = {truth: random.binomial(count, ODD[truth == mistaken]) for truth, count in side.items()}
        if sum(odd.values()) < SMALL or k < ODD_FROM:
            odd = dict.fromkeys(odd, 0)
        for kind, counts in ((f"{name}, odd", odd), (name, {t: side[t] - odd[t] for t in side})):
            if total := sum(counts.values()):
                found[f"t: {kind}"] = (int(total), int(counts[True]))
    return found


def audited(random: Any, found: dict[str, tuple[int, int]], k: int) -> list[Stratum]:
    drawn = allocate({name: size for name, (size, _) in found.items()}, k)
    return [
        Stratum(
            name,
            size,
            kind_of(name) in ACCEPTED,
            drawn[name],
            int(random.hypergeometric(right, size - right, drawn[name])),
        )
        for name, (size, right) in found.items()
    ]


def holds(result: Audit, within: Audit, found: dict[str, tuple[int, int]], rate: float) -> Iterator[float]:
    """Whether each interval holds what it is about."""
    whole = sum(size for size, _ in found.values())
    right = {ok: sum(r for name, (_, r) in found.items() if (kind_of(name) in ACCEPTED) == ok) for ok in (True, False)}
    wrong = {
        ok: sum(s - r for name, (s, r) in found.items() if (kind_of(name) in ACCEPTED) == ok) for ok in (True, False)
    }
    truths = [
        (result.corrected, rate),
        (within.corrected, sum(right.values()) / whole),
        (result.false_positive, wrong[True] / (sum(wrong.values()) or 1)),
        (result.false_negative, right[False] / (sum(right.values()) or 1)),
    ]
    for estimate, truth in truths:
        yield float(estimate.low - 1e-12 <= truth <= estimate.high + 1e-12)


def setting(n: int, repeats: int, *, k: int, fp: float, fn: float, rate: float, seed: int = 0) -> dict[str, Any]:
    """Shares of intervals that hold, and mean width and bias of the corrected pass@1."""
    import numpy as np

    random = np.random.default_rng([seed, k, round(1000 * fp), round(1000 * fn), round(1000 * rate)])
    sums, width, bias = np.zeros(4), 0.0, 0.0
    for _ in range(repeats):
        found = population(random, n, k, rate, fp, fn)
        drawn = audited(random, found, k)
        within = audit(drawn)
        over = with_spread(within.corrected, spread_over_problems_of(found, drawn))
        result = within._replace(corrected=over)
        sums += list(holds(result, within, found, rate))
        width += (result.corrected.high - result.corrected.low) / repeats
        bias += (result.corrected.mean - rate) / repeats
    names = ("pass", "pass_within", "false_positive", "false_negative")
    shares = {name: round(float(value), 4) for name, value in zip(names, sums / repeats, strict=True)}
    return {"k": k, "fp": fp, "fn": fn, "rate": rate, **shares, "width": round(width, 4), "bias": round(bias, 5)}


def study(n: int, repeats: int) -> list[dict[str, Any]]:
    """A line per setting."""
    grid = product(AUDITED, FALSE_POSITIVE, FALSE_NEGATIVE, PASS)
    return [setting(n, repeats, k=k, fp=fp, fn=fn, rate=rate) for k, fp, fn, rate in grid]


def spread_over_problems_of(found: dict[str, tuple[int, int]], drawn: list[Stratum]) -> float:
    """One response a problem: p (1 - p) / N, without a list of N problems."""
    p = sum(s.size * s.share for s in drawn) / (n := sum(size for size, _ in found.values()))
    between = sum(s.size * (s.share - p) ** 2 for s in drawn) / (n - 1)
    return (between + sum(s.size * s.share * (1 - s.share) for s in drawn) / n) / n


def summary(lines: list[dict[str, Any]], name: str) -> dict[str, Any]:
    values = [line[name] for line in lines]
    return {
        "settings": len(values),
        "mean": round(sum(values) / len(values), 4),
        "lowest": min(values),
        "highest": max(values),
        "in_band": sum(BAND[0] <= value <= BAND[1] for value in values),
    }


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    results: dict[str, Any] = {"repeats": repeats}
    for n in (500, 5000):
        lines = study(n, repeats)
        for planted, chosen in (
            ("both rates above 0", [x for x in lines if x["fp"] and x["fn"]]),
            ("a rate of 0", [x for x in lines if not (x["fp"] and x["fn"])]),
        ):
            for k in AUDITED:
                own = [x for x in chosen if x["k"] == k]
                results[f"n={n}, {planted}, k={k}"] = {name: summary(own, name) for name in ("pass", "pass_within")}
        results[f"n={n}, below band"] = [x for x in lines if x["pass"] < BAND[0] or x["pass_within"] < BAND[0]]
        results[f"n={n}, rates"] = {name: summary(lines, name) for name in ("false_positive", "false_negative")}
    save("audit", results)


if __name__ == "__main__":
    main()
