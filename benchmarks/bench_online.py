"""How much of a PRIME step is not sampling, scoring or updating?

Iterations of configs/prime_arithmetic.yaml, the first and the last left out. Sampling is the drawing of tokens; scoring
the log-probabilities under the process reward model, the reference and the policy; updating the optimizer steps of both
learners. All else counts as overhead: loading and saving of weights, records, marks, judging that is waited for,
advantages, selection.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench_overhead import Spent, timed
from common import fresh, save

CONFIG = Path(__file__).parent.parent / "configs" / "prime_arithmetic.yaml"
ITERATIONS = 14
SCORED = 3
"""Models that score each iteration after the first: process reward model, reference, policy."""


def measure(overrides: list[str]) -> dict[str, Any]:
    from selftrain import cli, loop
    from selftrain.sampling.transformers import TransformersSampler
    from selftrain.training import engine, fit, scoring

    spent: Spent = defaultdict(float)
    calls: list[int] = []
    for name in ("_grow", "_completions"):
        setattr(TransformersSampler, name, timed(spent, "sampling", getattr(TransformersSampler, name)))
    # What every way to log-probabilities goes through: of rewards, of references and of the policy before its step.
    scoring.score_batches = timed(spent, "scoring", counted(calls, scoring.score_batches))
    engine.TorchEngine.step = timed(spent, "updating", engine.TorchEngine.step)  # type: ignore[method-assign]
    fit._lay_out = timed(spent, "updating", fit._lay_out)
    marks: dict[int, dict[str, float]] = {}
    stages: Spent = defaultdict(float)
    loop.finish = watched(loop.finish, marks, spent, stages)
    with tempfile.TemporaryDirectory() as folder:
        given = [f"run.folder={folder}", "track.live=none", f"loop.iterations={ITERATIONS}", "loop.evaluate_every=1000"]
        assert cli.main(["run", str(CONFIG), *given, *overrides]) == 0
    assert len(calls) >= SCORED * (ITERATIONS - 1), f"only {len(calls)} passes over a batch were seen as scoring"
    whole = {name: marks[ITERATIONS][name] - marks[2][name] for name in marks[ITERATIONS]}
    known = {name: seconds for name, seconds in whole.items() if name in ("sampling", "scoring", "updating")}
    overhead = whole["clock"] - sum(known.values())
    steps = ITERATIONS - 2
    return {
        "iterations": steps,
        "seconds per iteration": whole["clock"] / steps,
        **{name: seconds / steps for name, seconds in known.items()},
        "overhead": overhead / steps,
        "share": overhead / whole["clock"],
        "stages": {name: seconds / ITERATIONS for name, seconds in stages.items()},
    }


def counted(calls: list[int], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a note of how many examples each call was given."""

    def wrapper(model: Any, examples: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(len(examples))
        return function(model, examples, *args, **kwargs)

    return wrapper


def watched(
    finish: Callable[..., Iterator[Any]], marks: dict[int, dict[str, float]], spent: Spent, stages: Spent
) -> Callable[..., Iterator[Any]]:
    """The loop's own function, with what the clock says whenever an iteration begins."""

    def wrapper(session: Any, stage: Any, work: Any) -> Iterator[Any]:
        began = time.perf_counter()
        if stage.name == "grow":
            marks[stage.iteration] = {"clock": began, **spent}
        yield from finish(session, stage, work)
        if stage.iteration:
            stages[stage.name] += time.perf_counter() - began

    return wrapper


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--measure":
        print(json.dumps(measure(sys.argv[2:])))
    else:
        save("online", fresh(__file__, "--measure", *sys.argv[1:]))
