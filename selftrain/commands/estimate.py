"""`selftrain estimate`: what a config will take before anything runs, or what a run took beside what was expected."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.artifacts import RunDir
from selftrain.commands.opening import existing, prepare_libraries, root_of
from selftrain.config import ConfigError, load_config

if TYPE_CHECKING:
    from selftrain.checks.estimate import Asked
    from selftrain.schema import RunConfig

ABOUT = """Samples, tokens, memory of a GPU, disk, time and cost of a config, stage by stage. Nothing is downloaded but
tokenizer, shape and data, and no weights are read. Of a finished run: what its stages took beside that."""
EXAMPLES = """examples:
  selftrain estimate configs/quickstart.yaml --probe        time by a few responses and steps on this machine
  selftrain estimate configs/rest_em_math.yaml --hardware H100 --price 2.5 --response-tokens 600
  selftrain estimate my.yaml --sample-tokens-per-s 30000 --train-tokens-per-s 12000 grow.draft.n=64
  selftrain estimate my.yaml --shape Qwen/Qwen2.5-7B        a known shape, where the hub cannot be reached
  selftrain estimate runs/quickstart --response-tokens 20   after the run: tokens and time, and their ratios
"""


def arguments(command: argparse.ArgumentParser) -> None:
    command.usage = "selftrain estimate CONFIG|RUN [key=value ...] [options]"
    command.description = ABOUT
    command.add_argument("config", type=Path, help="YAML file, or the directory of a run")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="override a key, such as grow.draft.n=64")
    number = command.add_argument
    number("--response-tokens", type=_positive, metavar="N", help="mean tokens of a response (default: max_tokens)")
    number("--accepted", type=_share, default=0.5, metavar="SHARE", help="of samples that are right (0.5)")
    number("--prompt-tokens", type=_positive, metavar="N", help="tokens of a prompt (default: as they are)")
    number("--shape", metavar="WHAT", help="a config.json, its folder, or a known name, in place of model.path")
    number("--probe", action="store_true", help="measure speeds here: a few responses, a few steps")
    number("--hardware", metavar="GPU", help="H100, A100 ..., or a YAML file with flops, memory, bandwidth ...")
    number("--gpus", type=int, metavar="N", help="that are paid for (default: those launch uses)")
    number("--sample-tokens-per-s", type=_positive, metavar="N", help="tokens drawn per second, all GPUs together")
    number("--train-tokens-per-s", type=_positive, metavar="N", help="tokens a fit reads per second, likewise")
    number("--score-tokens-per-s", type=_positive, metavar="N", help="tokens scored per second (default: 3 x a fit's)")
    number("--price", type=_positive, metavar="X", help="of a GPU-hour")


def main(options: argparse.Namespace) -> int:
    run = existing(options.config) if options.config.is_dir() else None
    config = load_config(run.config if run else options.config, options.overrides)
    prepare_libraries()
    from selftrain.checks.estimate import estimate
    from selftrain.report.estimates import against, lines
    from selftrain.session import Session

    asked = _asked(options)
    if options.probe:
        asked = _probed(config, asked)
    with Session(config, run or RunDir(root_of(config.run))) as session:
        found = estimate(session, asked)
        if run is None:
            print("\n".join(lines(found, asked.assumed, options.price)))
        else:
            print("\n".join(against(found.works, found, *_taken(run))))
    return 0


def _asked(options: argparse.Namespace) -> Asked:
    from selftrain.checks.estimate import Asked
    from selftrain.checks.workload import Assumed
    from selftrain.estimating.hardware import hardware
    from selftrain.estimating.speed import Speeds

    if options.gpus is not None and options.gpus < 1:
        raise ConfigError(f"--gpus: must be at least 1, got {options.gpus}")
    return Asked(
        Assumed(options.response_tokens, options.accepted, options.prompt_tokens),
        options.shape,
        Speeds(options.sample_tokens_per_s, options.train_tokens_per_s, options.score_tokens_per_s),
        hardware(options.hardware) if options.hardware else None,
        options.gpus,
    )


def _probed(config: RunConfig, asked: Asked) -> Asked:
    """With the speeds of this machine, where none are given; and the length of responses, where the policy that will
    write them is there already."""
    from selftrain.checks.check import check
    from selftrain.checks.probe import probe
    from selftrain.estimating.speed import Speeds
    from selftrain.session import Session

    with tempfile.TemporaryDirectory(prefix="selftrain-probe-") as folder:
        own = replace(config, run=replace(config.run, reuse=False, budget=None))
        with Session(own, RunDir(Path(folder))) as session:
            check(session)
            found = probe(session)
    given = asked.speeds
    speeds = Speeds(given.sample or found.speeds.sample, given.train or found.speeds.train, given.score)
    assumed = asked.assumed
    if assumed.response is None and found.response and not config.warmup and config.model.path is not None:
        assumed = replace(assumed, response=found.response)
    return replace(asked, speeds=speeds, assumed=assumed)


def _taken(run: RunDir) -> tuple[dict[str, int], dict[str, float]]:
    """Tokens and seconds by stage."""
    from selftrain.spending.seconds import by_stage, seconds
    from selftrain.spending.tokens import spent, summed

    return summed({number: spent(run, number) for number in run.iterations()}), by_stage(seconds(run))


def _positive(text: str) -> float:
    return _number(text, lambda value: value > 0, "more than 0")


def _share(text: str) -> float:
    return _number(text, lambda value: 0 <= value <= 1, "a share, from 0 to 1")


def _number(text: str, holds: Any, says: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not holds(value):
        raise argparse.ArgumentTypeError(f"must be {says}, got {text}")
    return value
