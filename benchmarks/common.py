"""What the benchmarks share: one result file per script, and runs in fresh processes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from selftrain.report.chart import picture

RESULTS = Path(__file__).parent / "results"
PICTURES = Path(__file__).parent.parent / "docs" / "pictures"


def save(name: str, result: dict[str, Any]) -> None:
    """Write and print a result beside the script."""
    RESULTS.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "machine": platform.machine()}
    text = json.dumps({"benchmark": name, "on": machine, **result}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)


def draw(name: str, chart: str) -> None:
    """Keep a chart where the pages of the documentation show it."""
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / f"{name}.svg").write_text(picture(chart))


def fresh(script: str, *arguments: object) -> dict[str, Any]:
    """The JSON object a script prints last, run in a process of its own."""
    done = subprocess.run([sys.executable, script, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
