"""`selftrain export`: a checkpoint that needs nothing else."""

from __future__ import annotations

import argparse
from pathlib import Path

from selftrain.artifacts import RunDir
from selftrain.commands.opening import holds_fit, prepare_libraries
from selftrain.config import ConfigError, load_config
from selftrain.errors import RunError

EXAMPLES = """examples:
  selftrain export runs/quickstart model                  the newest policy
  selftrain export runs/quickstart model --iteration 2
  selftrain export runs/mine/iteration_0001/policy/checkpoint model --dtype bfloat16
"""


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "source", type=Path, metavar="RUN_OR_CHECKPOINT", help="run directory, or folder of a checkpoint"
    )
    command.add_argument("target", type=Path, metavar="TARGET", help="folder that does not exist yet")
    command.add_argument("--iteration", type=int, help="of a run: whose policy (default: the newest)")
    command.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of the weights (default: as stored, of an adapter as its base)",
    )


def main(options: argparse.Namespace) -> int:
    prepare_libraries()
    source = _checkpoint(options.source, options.iteration)
    if options.target.exists():
        raise ConfigError(f"{options.target} exists; name a folder that does not")
    from selftrain.files import replacing
    from selftrain.models.export import export as write

    try:
        with replacing(options.target) as folder:
            difference = write(source, folder, options.dtype)
    except ValueError as error:
        raise RunError(f"{source} was not exported: {error}") from error
    print(f"{options.target}: {source}, complete and checked; logits differ by {difference:.1g} of the largest")
    return 0


def _checkpoint(source: Path, iteration: int | None) -> Path:
    """A checkpoint itself, or that of a run's policy after an iteration."""
    if iteration is None and holds_fit(source):
        return source / "checkpoint"
    if (source / "config.yaml").exists():
        from selftrain.planning.plan import Stages
        from selftrain.planning.settings import POLICY

        run = RunDir(source)
        stages = Stages(load_config(run.config), run)
        done = [0, *(i for i in run.iterations() if (run.iteration(i) / f"improve-{POLICY}.done").exists())]
        chosen = max(done) if iteration is None else iteration
        if chosen not in done:
            raise ConfigError(
                f"--iteration {chosen}: {source} has no policy of it; there are {', '.join(map(str, done))}"
            )
        return stages.checkpoint(POLICY, chosen)
    if iteration is not None:
        raise ConfigError(f"--iteration {iteration}: {source} is no run directory, it has no config.yaml")
    if not any((source / name).exists() for name in ("config.json", "adapter_config.json")):
        raise ConfigError(f"{source} is neither a run directory nor a checkpoint")
    return source
