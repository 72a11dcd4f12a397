"""Grow, verify, select over scripted samples: does time grow with the samples alone, and memory not at all?

10,000 problems with 1, 10 and 100 samples each. Each size runs in a process of its own, one after the other.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from common import fresh, save

from selftrain.artifacts import RunDir
from selftrain.config import check_tree
from selftrain.session import Session
from selftrain.stages.examples import select
from selftrain.stages.grow import grow
from selftrain.stages.score import score
from selftrain.stages.start import start

PROBLEMS = 10_000
SIZES = (10_000, 100_000, 1_000_000)


def measure(samples: int) -> dict[str, float]:
    tree = {
        "run": {"reuse": False},
        "model": {
            "architecture": {
                "model_type": "llama",
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
            },
            "alphabet": "0123456789+-*= #",
        },
        "tasks": {
            "arithmetic": {"sizes": {"train": PROBLEMS, "val": 0, "test": 0, "demonstrations": 0, "transfer": 0}}
        },
        "grow": {"draft": {"n": samples // PROBLEMS, "sampler": "scripted"}},
        "learners": {"policy": {"examples": {"own": {"from": "draft", "verdict": "right", "cap": 10}}}},
    }
    with tempfile.TemporaryDirectory() as folder, Session(check_tree(tree), RunDir(Path(folder))) as session:
        for _ in start(session):
            pass
        assert session.problems.all("train") and session.tokenizer and session.verifiers
        seconds: dict[str, float] = {}
        for name, work in (("grow and verify", grow), ("score", score)):
            began = time.perf_counter()
            for _ in work(session, 1):
                pass
            seconds[name] = time.perf_counter() - began
        began = time.perf_counter()
        kept = select(session, 1, "policy")["kept"]
        seconds["select"] = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"samples": samples, "kept": kept, "peak_mb": memory, "seconds": sum(seconds.values()), **seconds}


def main() -> None:
    rows = [fresh(__file__, size) for size in SIZES]
    small, middle, large = (row["seconds"] for row in rows)
    slope = ((large - middle) / (SIZES[2] - SIZES[1])) / ((middle - small) / (SIZES[1] - SIZES[0]))
    memory = rows[2]["peak_mb"] / rows[1]["peak_mb"]
    save("scale", {"rows": rows, "slope_ratio": round(slope, 3), "memory_ratio": round(memory, 3)})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
