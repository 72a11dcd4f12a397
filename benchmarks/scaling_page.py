"""Write the tables of docs/scaling.md anew, by the functions that `selftrain estimate` uses and the last result of
bench_bottlenecks.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

from common import RESULTS

from selftrain.estimating.scaling import table, tables
from selftrain.estimating.shapes import known, shape_of

PAGE = Path(__file__).resolve().parent.parent / "docs" / "scaling.md"
SERIAL = ("work list", "queue", "writer", "manifest")


def made() -> dict[str, str]:
    """Tables by name."""
    result = json.loads((RESULTS / "bottlenecks.json").read_text())
    few, many = result["microseconds_per_sample"]
    small, large = (shape_of(known(name)) for name in ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-32B"))
    found = tables(small, large, sum(many[name] for name in SERIAL) / 1e6)
    body = [[name, f"{few[name]:.1f}", f"{many[name]:.1f}", f"{result['ratios'][name]:.2f}"] for name in SERIAL]
    body.append(["all", *(f"{sum(row[name] for name in SERIAL):.1f}" for row in (few, many)), f"{result['ratio']:.2f}"])
    head = ["microseconds per sample", f"{few['samples']:,}", f"{many['samples']:,}", "ratio"]
    return {**found, "bottlenecks": table(head, body)}


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
