"""Which checkpoint of a run is meant: of an iteration that is finished, by default the best one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.artifacts import RunDir
from selftrain.compose import ConfigError, read_tree
from selftrain.errors import RunError
from selftrain.files import read_json
from selftrain.planning.best import best_iteration
from selftrain.registry import nearest


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a run."""

    folder: Path
    learner: str
    iteration: int
    why: str
    """Why this iteration, in words."""


def finished(run: RunDir) -> list[int]:
    """Iterations whose checkpoint is fitted and evaluated."""
    return [number for number in run.iterations() if (run.iteration(number) / "evaluate.done").exists()]


def choose(run: RunDir, learner: str, wanted: int | None) -> Checkpoint:
    """The checkpoint of an iteration; by default of the best on validation, else of the last.

    Raises:
        RunError: no iteration is finished.
        ConfigError: there is no such learner or iteration, or it made nothing.
    """
    config, done = read_tree(run.config), finished(run)
    if learner not in config["learners"]:
        raise ConfigError(f"--learner {learner}: the run has no such learner ({nearest(learner, config['learners'])})")
    if not done:
        raise RunError(f"{run.root}: no iteration is finished; run the same command again to go on")
    if wanted is not None and wanted not in done:
        raise ConfigError(f"--iteration {wanted}: not finished in {run.root}; finished: {', '.join(map(str, done))}")
    if wanted is not None:
        number, why = wanted, "chosen by hand"
    elif best := best_iteration(metrics_of(run, done), config):
        number, why = best[0], f"the best by {best[1]}"
    else:
        number, why = done[-1], "the last one; no validation split was evaluated"
    folder = checkpoint_folder(run, learner, number)
    if folder is None:
        raise ConfigError(
            f"iteration {number} of {run.root} ({why}) has no checkpoint of '{learner}': it is the model the run "
            "started from; choose a later one with --iteration"
        )
    return Checkpoint(folder, learner, number, why)


def checkpoint_folder(run: RunDir, learner: str, iteration: int) -> Path | None:
    """Where the checkpoint a learner has after an iteration lies; None where it is not of this run."""
    made = run.iteration(iteration) if iteration else run.warmup
    places = [made / learner / "checkpoint", *([] if iteration else [run.start])]
    return next((path for path in places if path.exists()), None)


def metrics_of(run: RunDir, iterations: Sequence[int]) -> list[dict[str, Any]]:
    return [row for number in iterations for row in read_json(run.iteration(number) / "metrics.json")]
