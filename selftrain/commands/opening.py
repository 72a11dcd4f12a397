"""What several commands begin with: their arguments, their libraries, the run directory."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftrain.artifacts import RunDir, Stage
from selftrain.checks.here import Lacks, refuse
from selftrain.config import ConfigError, read_tree, to_yaml
from selftrain.files import write_json, write_text
from selftrain.machine import environment
from selftrain.schema import Run
from selftrain.train_config import TrainRun, is_fit
from selftrain.types import Problem

LONGEST_NAME = 200
"""Bytes; file systems take 255, and what is written beside is called a little longer."""
COLLECT_AFTER = (100_000, 50, 100)
"""Allocations, and collections of the younger generation, after which Python looks for cycles."""


def config_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", type=Path, help="YAML file")
    command.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="override a key, such as run.seed=1"
    )


def prepare_libraries() -> None:
    """Settings made before the libraries below are loaded: no bars or advice that would drown our own."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Records are tuples of plain values and never form cycles; looking for some after every 700 of them takes a third
    # of the time to read them, and a seventh of the imports.
    gc.set_threshold(*COLLECT_AFTER)


def root_of(run: Run | TrainRun) -> Path:
    """The folder of a run, directly below ``run.folder``.

    Raises:
        ConfigError: it cannot be one.
    """
    name = run.name
    if not name or name.startswith(".") or Path(name).name != name or len(os.fsencode(name)) > LONGEST_NAME:
        raise ConfigError(
            f"run.name: {name!r} is no name of a folder below run.folder; write one without '/' that does not begin "
            f"with a dot, of {LONGEST_NAME} bytes at most"
        )
    root = Path(run.folder) / name
    there = next(place for place in (root, *root.parents) if place.exists())
    if not there.is_dir():
        raise ConfigError(f"run.folder, run.name: {there} is a file; choose another place for the run")
    return root


def existing(root: Path) -> RunDir:
    if not (root / "config.yaml").exists():
        raise ConfigError(f"{root} is no run directory: it has no config.yaml")
    if holds_fit(root):
        raise ConfigError(
            f"{root} is a fit without a loop (selftrain train), it has no iterations; look at {root}/log.jsonl, or "
            f"evaluate {root}/checkpoint"
        )
    return RunDir(root)


def holds_fit(root: Path) -> bool:
    """Whether a folder is that of `selftrain train`."""
    return (root / "config.yaml").exists() and is_fit(read_tree(root / "config.yaml"))


def check_sort(run: RunDir, *, fit: bool) -> None:
    """Raises ConfigError where a folder holds a run and is to hold a fit, or the other way round."""
    if run.config.exists() and holds_fit(run.root) != fit:
        other = "a run (selftrain run)" if fit else "a fit (selftrain train)"
        raise ConfigError(f"{run.root} holds {other}; choose another run.name")


def check_once(session: Any, lacks: Lacks = refuse) -> None:
    """All checks, unless this very config was checked when the run began: a resumed run starts at once.

    Args:
        lacks: is told what this machine does not have.
    """
    path = session.run.config
    check_sort(session.run, fit=False)
    if path.exists() and path.read_text() == to_yaml(session.config):
        from selftrain.checks.placing import check_place

        check_place(session)  # Whether a cluster answers is of this moment.
        return
    from selftrain.checks.check import check

    check(session, lacks)


def begin(session: Any) -> None:
    from selftrain import records

    folder, text = session.run, to_yaml(session.config)
    folder.remove_temporaries()
    if session.cluster is not None:
        session.cluster.check_shares(folder.root)
    # A kill may have come between the two files.
    if not folder.config.exists() or folder.config.read_text() != text or not folder.problems.exists():
        records.write(folder.problems, Problem, list(session.problems.by_id.values()))
    write_text(folder.config, text)
    if not (folder.root / "environment.json").exists():
        from selftrain.sandbox.levels import strongest

        write_json(folder.root / "environment.json", {**environment(), "sandbox": strongest() or "none"})


def redone(session: Any, labels: Sequence[str]) -> list[str]:
    """A line of a dry run: what ``--redo`` would set aside."""
    done = [stage.label for stage in _dependants(session, labels) if stage.mark.exists()]
    return [f"--redo sets aside: {', '.join(done) or 'nothing yet'}"] if labels else []


def set_aside(session: Any, labels: Sequence[str]) -> None:
    from selftrain.stages.order import outputs

    stages = _dependants(session, labels)
    again = {stage.label for stage in stages}
    aside = session.run.set_aside([*(path for stage in stages for path in outputs(stage, again)), session.run.metrics])
    print(f"set aside: {aside}" if aside else "nothing to redo yet")


def _dependants(session: Any, labels: Sequence[str]) -> list[Stage]:
    from selftrain.loop import dependants, every_stage

    return dependants(every_stage(session), labels)


def journal_line(event: Any) -> str:
    record = {"time": round(time.time(), 3), "event": type(event).__name__, **dataclasses.asdict(event)}
    return json.dumps(record, default=str) + "\n"
