"""Stages that run under an interpreter of their own: engines and trainers may ask for different versions of torch."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import version
from pathlib import Path

from selftrain.schema import Launch

STAGES = ("start", "warmup", "head", "grow", "improve", "score", "evaluate")
"""Kinds of stages that load a model: what stands before the ``-`` of a stage's name."""
ASKED = "import json, importlib.metadata as m, selftrain.workers; print(json.dumps(m.version('selftrain')))"
SECONDS = 60


def interpreter(launch: Launch, stage: str) -> str | None:
    """Under which a stage runs; None for this one."""
    named = launch.python.get(stage) or launch.python.get(stage.partition("-")[0])
    return None if named is None else str(Path(named).expanduser())


def unfit(python: str) -> str | None:
    """Why an interpreter cannot run a stage; None where it can."""
    if not Path(python).expanduser().is_file():
        return f"there is no '{python}'"
    try:
        command = [str(Path(python).expanduser()), "-c", ASKED]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"'{python}' does not run: {error}"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return f"'{python}' has no selftrain that works: {last[:200]}"
    theirs, ours = json.loads(done.stdout), version("selftrain")
    return None if theirs == ours else f"'{python}' has selftrain {theirs}, and this is {ours}; install the same"
