"""`selftrain launch`: a job file for a cluster, to read and submit."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from selftrain.commands.opening import config_arguments
from selftrain.config import ConfigError, load_config
from selftrain.files import write_text
from selftrain.jobs import ray, slurm
from selftrain.jobs.job import Job, cpus_of, machines, own_name, own_venv

EXAMPLES = """examples:
  selftrain launch --slurm configs/rest_em_math.yaml                    writes rest-em-math.sbatch; then: sbatch it
  selftrain launch --slurm my.yaml run.seed=1 --partition gpu --account proj --time 12:00:00 --gpus-per-node 4
  selftrain launch --slurm my.yaml --setup 'module load cuda' --venv ~/envs/selftrain --env HF_HOME=/scratch/hf
  selftrain launch --slurm my.yaml --nodes 4                            Ray inside the allocation, over its nodes
  selftrain launch --slurm my.yaml --container images/selftrain.sif     by apptainer
  selftrain launch --ray my.yaml --address http://head:8265             for a Ray cluster that runs already
"""

SLURM = ("partition", "account", "qos", "mem")
"""Options that go to sbatch as they are."""


def arguments(command: argparse.ArgumentParser) -> None:
    command.description = "Write a job file that runs a config on a cluster. Nothing is submitted."
    kind = command.add_mutually_exclusive_group(required=True)
    kind.add_argument("--slurm", action="store_true", help="a batch script for sbatch")
    kind.add_argument("--ray", action="store_true", help="a script for the job server of a Ray cluster")
    config_arguments(command)
    command.add_argument("--output", type=Path, metavar="FILE", help="default: the run's name with .sbatch or -ray.sh")
    command.add_argument(
        "--nodes", type=int, metavar="N", help="machines; several are one Ray cluster (default: what the GPUs need)"
    )
    command.add_argument("--gpus-per-node", type=int, metavar="N", help="default: what the config uses, 8 at most")
    command.add_argument("--cpus-per-task", type=int, metavar="N", help="default: verifiers, and 4 for each GPU")
    command.add_argument("--time", default="24:00:00", help="limit of one job; the run may take several (%(default)s)")
    command.add_argument(
        "--grace",
        type=int,
        default=600,
        metavar="SECONDS",
        help="how long before the limit the run is asked to stop: longer than one part takes (default: %(default)s)",
    )
    command.add_argument(
        "--again",
        choices=("requeue", "resubmit", "no"),
        default="requeue",
        help="how the job goes on after the limit (default: %(default)s)",
    )
    for name in SLURM:
        command.add_argument(f"--{name}", help="as sbatch takes it")
    command.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="any other, --sbatch=--exclusive"
    )
    command.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of the job")
    command.add_argument("--venv", metavar="FOLDER", help="virtual environment (default: the one this runs in)")
    command.add_argument("--container", metavar="IMAGE", help="run in it, by apptainer")
    command.add_argument("--setup", action="append", default=[], metavar="LINE", help="a line of shell before the run")
    command.add_argument("--address", default=Job.address, help="of a Ray cluster's job server (%(default)s)")


def main(options: argparse.Namespace) -> int:
    job = described(options)
    if job.file.exists():
        raise ConfigError(f"{job.file} is there already; name another file with --output, or remove it")
    write_text(job.file, ray.script(job) if options.ray else slurm.script(job))
    print(f"{job.file}: read it, then")
    print(f"  {'bash' if options.ray else 'sbatch'} {shlex.quote(str(job.file))}")
    return 0


def described(options: argparse.Namespace) -> Job:
    """The job; raises ConfigError for what cannot be meant."""
    config = load_config(options.config, options.overrides)
    name = own_name(config)
    for flag in ("nodes", "gpus_per_node", "cpus_per_task", "grace"):
        value = getattr(options, flag)
        if value is not None and value < (0 if flag == "gpus_per_node" else 1):
            raise ConfigError(f"--{flag.replace('_', '-')} {value}: must be at least 1")
    if options.ray and ((options.nodes or 1) > 1 or options.sbatch):
        raise ConfigError("--nodes, --sbatch: a Ray cluster has the machines it has; they belong to --slurm")
    nodes, gpus = machines(config, options.nodes, options.gpus_per_node)
    named = [f"--{flag}={value}" for flag in SLURM if (value := getattr(options, flag))]
    if options.ray and named:
        raise ConfigError(f"{named[0]}: a Ray cluster has no such thing; it belongs to --slurm")
    for entry in options.env:
        if "=" not in entry:
            raise ConfigError(f"--env {entry}: gives it no value; write {entry}=VALUE")
    pairs = [entry.partition("=") for entry in options.env]
    own = None if options.container else own_venv()
    return Job(
        name=name,
        words=(str(options.config), *options.overrides),
        folder=Path.cwd(),
        file=options.output or Path(f"{name}{'-ray.sh' if options.ray else '.sbatch'}"),
        nodes=nodes,
        gpus=gpus,
        cpus=options.cpus_per_task or cpus_of(config, gpus),
        time=options.time,
        grace=options.grace,
        again=options.again,
        options=(*named, *options.sbatch),
        environment=tuple((key, value) for key, _, value in pairs),
        venv=str(Path(options.venv).expanduser()) if options.venv else own,
        container=options.container,
        setup=tuple(options.setup),
        address=options.address,
    )
