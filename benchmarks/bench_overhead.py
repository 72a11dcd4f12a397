"""How much of the quickstart is not sampling, verifying, training or evaluating?

Imports, model loading and saving, process starts, reading and writing count as overhead. The run is the real command in
a process of its own; four functions are timed from outside, and what they do not cover is the overhead. Judging that
runs beside sampling is hidden by it and counted nowhere.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import fresh, save

Spent = defaultdict[str, float]
"""Seconds by name."""

CONFIG = Path(__file__).parent.parent / "configs" / "quickstart.yaml"


def timed(spent: Spent, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return function(*args, **kwargs)  # The judging of Grow runs beside its sampling.
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] += time.perf_counter() - began

    return wrapper


def measure(overrides: list[str]) -> dict[str, Any]:
    spent: Spent = defaultdict(float)
    began = time.time()
    from selftrain import cli

    after_cli = time.time()
    from selftrain.sampling.transformers import TransformersSampler
    from selftrain.stages import evaluate, judged

    for name in ("_grow", "_completions"):
        setattr(TransformersSampler, name, timed(spent, "sampling", getattr(TransformersSampler, name)))
    # In Grow it runs beside sampling, in another thread, and costs nothing; of an evaluation it is all that is counted.
    judged.verdicts_of = timed(spent, "verifying", judged.verdicts_of)
    for name in ("summarise", "compare"):
        setattr(evaluate, name, timed(spent, "evaluating", getattr(evaluate, name)))
    _time_training(spent)
    known = _time_overhead()
    known["imports"] = time.time() - after_cli
    with tempfile.TemporaryDirectory() as folder:
        assert cli.main(["run", str(CONFIG), f"run.folder={folder}", "track.live=none", *overrides]) == 0
    total = time.time() - began
    overhead = total - sum(spent.values())
    known["other"] = overhead - sum(known.values())
    return {"seconds": total, **spent, "overhead": overhead, "share": overhead / total, "of it": dict(known)}


def _time_overhead() -> Spent:
    """The larger pieces of the overhead; imports inside them count there."""
    from selftrain import records
    from selftrain.commands import run
    from selftrain.models import checkpoint
    from selftrain.stages import improve
    from selftrain.verification import VerifierPool

    known: Spent = defaultdict(float)
    run.check_once = timed(known, "checks before the run", run.check_once)  # type: ignore[attr-defined]
    checkpoint.load_model = timed(known, "loading models", checkpoint.load_model)
    checkpoint.save = timed(known, "saving checkpoints", checkpoint.save)
    records.write = timed(known, "writing records", records.write)
    improve.select = timed(known, "selecting examples", improve.select)  # type: ignore[attr-defined]
    VerifierPool.__enter__ = timed(known, "starting verifiers", VerifierPool.__enter__)  # type: ignore[method-assign]
    return known


def _time_training(spent: Spent) -> None:
    from selftrain.training import fit
    from selftrain.training.engine import TorchEngine

    TorchEngine.step = timed(spent, "training", TorchEngine.step)  # type: ignore[method-assign]
    fit._lay_out = timed(spent, "training", fit._lay_out)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--measure":
        print(json.dumps(measure(sys.argv[2:])))
    else:
        save("overhead", fresh(__file__, "--measure", *sys.argv[1:]))
