"""What a job is asked for, where the config does not say: one description for every kind of job file."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from selftrain.config import ConfigError
from selftrain.estimating.hardware import Hardware
from selftrain.estimating.launch import placed
from selftrain.planning.settings import sampler_of
from selftrain.planning.writers import remote
from selftrain.schema import Component, RunConfig

PLAIN = re.compile(r"[\w.@+,:/%=\[\]()&|*-]+")
"""What may stand in a line for the scheduler, which reads quotes in its own way."""
TIME = re.compile(r"\d+|\d+:\d{1,2}(:\d{1,2})?|\d+-\d{1,2}(:\d{1,2}){0,2}")
NAME = re.compile(r"[A-Za-z_]\w*")
MOST_GRACE = 65535
"""Seconds before its limit at which Slurm signals a job at most."""


@dataclass(frozen=True)
class Job:
    """What a job file says."""

    name: str
    words: tuple[str, ...]
    """Config and overrides, as `selftrain run` takes them."""
    folder: Path
    """Where their relative paths begin."""
    file: Path
    """Of the job itself."""
    nodes: int = 1
    gpus: int = 0
    """Of each node."""
    cpus: int = 1
    time: str = "24:00:00"
    grace: int = 600
    """Seconds before the time limit at which the run is asked to stop."""
    again: str = "requeue"
    """How it goes on after the time limit: ``requeue``, ``resubmit`` or ``no``."""
    options: tuple[str, ...] = ()
    """Further ones for the scheduler, such as ``--partition=gpu``."""
    environment: tuple[tuple[str, str], ...] = ()
    venv: str | None = None
    container: str | None = None
    setup: tuple[str, ...] = ()
    """Lines of shell, such as ``module load cuda``."""
    address: str = "http://127.0.0.1:8265"
    """Of a Ray cluster's job server."""

    def __post_init__(self) -> None:
        for what, value in {"--job-name": self.name, **{option: option for option in self.options}}.items():
            if not PLAIN.fullmatch(value):
                raise ConfigError(
                    f"{what}: a scheduler does not read '{value}' as it is meant; write it without blanks"
                )
        if not TIME.fullmatch(self.time):
            raise ConfigError(f"--time {self.time}: write it as 30 (minutes), 12:00:00 or 2-00:00:00")
        if self.grace > MOST_GRACE:
            raise ConfigError(f"--grace {self.grace}: Slurm signals at most {MOST_GRACE} seconds before a limit")
        if 0 < seconds_of(self.time) <= self.grace:
            raise ConfigError(
                f"--grace {self.grace}: with --time {self.time} the run is asked to stop as soon as it starts; "
                "lower it, or raise --time"
            )
        if not self.file.name.isprintable():
            raise ConfigError(f"--output {str(self.file)!r}: cannot stand in a line of the script; choose another name")
        for name, _ in self.environment:
            if not NAME.fullmatch(name):
                raise ConfigError(f"--env {name}: is no name of a variable; write NAME=VALUE")


def seconds_of(time: str) -> int:
    """A time limit as Slurm writes it; 0 is none."""
    days, dash, rest = time.rpartition("-")
    parts = [*map(int, rest.split(":"))]
    # The first number is hours behind days and where there are three, else minutes.
    hours, minutes, seconds = [*parts, 0, 0][:3] if dash or len(parts) == 3 else [0, *parts, 0][:3]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def own_name(config: RunConfig) -> str:
    """The run's, as a job and a file may be called."""
    return re.sub(r"[^\w.-]+", "-", config.run.name).strip("-") or "selftrain"


def gpus_of(config: RunConfig) -> int:
    """GPUs the config uses at once, on all machines; none for a small model that it describes itself."""
    if config.model.path is None:
        return 0
    others = max(config.launch.train.processes, config.launch.score_processes)
    return max([others, *(placed(config, own).gpus for own in _own_samplers(config))])


def _own_samplers(config: RunConfig) -> list[Component]:
    every = [sampler_of(config), *(step.sampler for step in config.grow.values())]
    return [own for own in every if not remote(own)]


def machines(config: RunConfig, nodes: int | None, each: int | None) -> tuple[int, int]:
    """Machines of a job, and GPUs of each: as asked for, else what holds all that the config uses.

    Raises:
        ConfigError: what is asked for holds less.
    """
    gpus = gpus_of(config)
    if each is None:
        # The ranks of one engine lie on one machine.
        engine = max((placed(config, own).tensor_parallel for own in _own_samplers(config)), default=1)
        each = min(gpus, Hardware.per_node) if nodes is None else max(ceil(gpus / nodes), min(gpus, engine))
    if nodes is None:
        nodes = max(1, ceil(gpus / each)) if each else 1
    if 0 < nodes * each < gpus:
        raise ConfigError(
            f"--gpus-per-node {each}: {nodes} x {each} GPUs for a config that uses {gpus} at once; ask for more, or "
            "lower launch.train.processes, launch.sample.replicas or tensor_parallel_size"
        )
    return nodes, each


def cpus_of(config: RunConfig, gpus: int) -> int:
    """Of each machine: one for each verifier, and four for every GPU's engine, its data and the run itself."""
    return config.launch.verify_workers + 4 * max(1, gpus)


def own_venv() -> str | None:
    """The virtual environment that this process runs in."""
    return sys.prefix if sys.prefix != sys.base_prefix else None


def preparation(job: Job) -> list[str]:
    """Lines of shell: folder, variables, and what makes `selftrain` a command."""
    lines = ["# Where relative paths of the config begin.", f"cd {shlex.quote(str(job.folder))} || exit 1", ""]
    if job.environment:
        lines += [*(f"export {name}={shlex.quote(value)}" for name, value in job.environment), ""]
    lines += job.setup
    if job.venv is not None:
        lines += [f"source {shlex.quote(f'{job.venv}/bin/activate')} || exit 1"]
    return [*lines, ""] if lines[-1] else lines


def inside(job: Job) -> str:
    """What stands before a command so that it runs in the job's container; with a blank behind it."""
    if job.container is None:
        return ""
    gpus = " --nv" if job.gpus else ""
    return f"apptainer exec{gpus} --bind {shlex.quote(str(job.folder))} {shlex.quote(job.container)} "


def command(job: Job, *more: str) -> str:
    """`selftrain run` of the job."""
    return f"{inside(job)}selftrain run {shlex.join([*job.words, *more])}"
