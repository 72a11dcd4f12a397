"""Write the tables of docs/scaling.md anew, by the functions that `selftrain estimate` uses and the last results of
bench_bottlenecks.py and bench_weak_scaling.py."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

from common import RESULTS

from selftrain.estimating.scaling import table, tables
from selftrain.estimating.shapes import known, shape_of

PAGE = Path(__file__).resolve().parent.parent / "docs" / "scaling.md"
SERIAL = ("work list", "queue", "writer", "manifest")
WEAK = {"fit, ZeRO 2": ("training", "zero 2"), "fit, ZeRO 3": ("training", "zero 3"), "sampling": ("sampling",)}
"""Where the result of bench_weak_scaling.py has what the rows of its table tell."""


def made() -> dict[str, str]:
    """Tables by name."""
    result = json.loads((RESULTS / "bottlenecks.json").read_text())
    many = result["microseconds_per_sample"][1]
    small, large = (shape_of(known(name)) for name in ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-32B"))
    found = tables(small, large, sum(many[name] for name in SERIAL) / 1e6)
    scaled = RESULTS / "weak_scaling.json"
    measured = json.loads(scaled.read_text()) if scaled.exists() else None
    return {**found, "bottlenecks": bottlenecks(result), "weak scaling": weak(measured)}


def bottlenecks(result: Any) -> str:
    few, many = result["microseconds_per_sample"]
    body = [[name, f"{few[name]:.1f}", f"{many[name]:.1f}", f"{result['ratios'][name]:.2f}"] for name in SERIAL]
    body.append(["all", *(f"{sum(row[name] for name in SERIAL):.1f}" for row in (few, many)), f"{result['ratio']:.2f}"])
    return table(["microseconds per sample", f"{few['samples']:,}", f"{many['samples']:,}", "ratio"], body)


def weak(result: Any) -> str:
    """What two processes do in the time of one; ``result`` is None before it was measured."""
    body = []
    for name, keys in WEAK.items():
        row = ["not run"] * 5
        if result is not None:
            own = result[keys[0]]
            own = own[keys[1]] if keys[1:] else own
            speeds = [statistics.median(speed) for speed in own["tokens_per_second"].values()]
            ratios = [own[key] for key in ("two_to_one", "two_to_two_apart")]
            row = [f"{speed:,.0f}" for speed in speeds]
            row += [f"{one['median']:.2f} ({one['least']:.2f}-{one['most']:.2f})" for one in ratios]
        body.append([name, *row])
    return table(["tokens per second", "1 process", "2", "2 apart", "2 to 1", "2 to 2 apart"], body)


def filled(text: str, found: dict[str, str]) -> str:
    """A page with these tables behind its marks ``<!-- NAME -->``."""
    for name, own in found.items():
        head, mark, rest = text.partition(f"<!-- {name} -->\n\n")
        assert mark, name
        after = re.sub(r"^(\|.*\n)*", "", rest)
        text = f"{head}{mark}{own}\n{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(), made()))
