"""How many programs a second does the verifier of code judge, and is it right about them?

All reference programs of HumanEval and MBPP, at every level of isolation this machine has, by two judges at once as two
verifier workers are; then the same programs returning None, and with their first comparison flipped.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import save

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from broken import first_comparison_flipped, returning_none
from test_code_tasks import references

from selftrain.sandbox import levels
from selftrain.types import Problem, Verdict
from selftrain.verifiers.unit_tests import UnitTests

JUDGES = 2
SECONDS = 30.0
"""For each program: the slowest reference program takes seconds of processor time, on a busy machine many of them."""

FLIPPED_SECONDS = 3.0
"""For each that may run for ever."""


def judged(programs: list[tuple[Problem, str]], seconds: float = SECONDS) -> tuple[dict[str, Any], list[Verdict]]:
    verifier = UnitTests(seconds=seconds)
    verifier(*programs[0])  # Starts the sandbox.
    began = time.perf_counter()
    with ThreadPoolExecutor(JUDGES) as threads:
        verdicts = list(threads.map(lambda pair: verifier(*pair), programs))
    took = time.perf_counter() - began
    counts = Counter[str](verdict.status for verdict in verdicts)
    return {"programs": len(programs), "seconds": took, "per_second": len(programs) / took, **counts}, verdicts


def measure() -> dict[str, Any]:
    programs = references()
    found: dict[str, Any] = {"load before": os.getloadavg()[0], "judges": JUDGES, "levels": {}}
    for level in reversed(levels.LEVELS):
        if (lacking := levels.trial(level)) is not None:
            found["levels"][level] = lacking
            continue
        levels.strongest = lambda level=level: level  # type: ignore[misc]
        found["levels"][level], verdicts = judged(programs)
        for (problem, _), verdict in zip(programs, verdicts, strict=True):
            if verdict.status != "right":
                print(level, problem.id, verdict.status, verdict.reason, file=sys.stderr)
    strong = next(level for level in reversed(levels.LEVELS) if levels.trial(level) is None)
    levels.strongest = lambda: strong
    found["returning None"], _ = judged([(problem, returning_none(text)) for problem, text in programs])
    flipped = [(problem, first_comparison_flipped(text)) for problem, text in programs]
    kept = [(problem, text) for problem, text in flipped if text is not None]
    found["first comparison flipped"], _ = judged(kept, FLIPPED_SECONDS)
    return found


if __name__ == "__main__":
    if "SELFTRAIN_DATA" not in os.environ:
        print("bench_code: set SELFTRAIN_DATA to the folder of real data (CONTRIBUTING.md)")
    else:
        save("code", measure())
