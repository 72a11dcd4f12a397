"""A Slurm batch script: what it asks for, the run, and how it ends before its time limit and goes on."""

from __future__ import annotations

import shlex

from selftrain.jobs.job import Job, command, preparation
from selftrain.jobs.ray import PLACE, cluster

EARLY = 60
"""Seconds by which Slurm may send a signal too early."""
MOST = 100
"""Times that a job goes on by itself: one that never finishes a part within its time would do so for ever."""
COUNT = "SELFTRAIN_RESUBMITTED"
"""Tells a job that was submitted anew how often that was done before; of requeueing Slurm keeps count itself."""


def script(job: Job) -> str:
    """The text of the script."""
    return "\n".join([*_asked(job), *preparation(job), *_trap(), *_step(job), *_end(job), ""])


def _asked(job: Job) -> list[str]:
    options = [
        f"--job-name={job.name}",
        f"--nodes={job.nodes}",
        "--ntasks-per-node=1",
        *([f"--gpus-per-node={job.gpus}"] if job.gpus else []),
        f"--cpus-per-task={job.cpus}",
        f"--time={job.time}",
        f"--signal=B:TERM@{job.grace}",
        *(["--requeue"] if job.again == "requeue" else []),
        "--open-mode=append",
        "--output=%x-%j.log",
        *job.options,
    ]
    return [
        "#!/bin/bash",
        f"# {job.name}: selftrain as a Slurm job. Read it, change what you like, and submit it:",
        f"#   sbatch {shlex.quote(job.file.name)}",
        "# Before the time limit selftrain is asked to stop and finishes the part it is at. The same command goes on",
        "# from there, and ends with the numbers of a run that was never stopped.",
        *(f"#SBATCH {option}" for option in options),
        "",
    ]


def _trap() -> list[str]:
    return [
        "# Slurm's SIGTERM before the time limit comes to this shell, which hands it on.",
        "set -u",
        "asked='' again='' run=''",
        'ask() { asked=yes; again=yes; [ -z "$run" ] || kill -TERM "$run" 2>/dev/null; }',
        "trap ask TERM",
        "",
    ]


def _step(job: Job) -> list[str]:
    several = job.nodes > 1
    return [
        *(cluster(job) if several else []),
        "# Not by srun, which makes a SIGKILL of every SIGTERM it gets: this shell has all of its node.",
        f"{command(job, PLACE) if several else command(job)} &",
        "run=$!",
        '[ -z "$asked" ] || kill -TERM "$run"  # It came while the run began.',
        "",
        "# A signal interrupts wait: then the run is not over.",
        "status=127",
        "while :; do",
        "    again=''",
        '    wait "$run"; code=$?',
        '    [ "$code" -eq 127 ] || status=$code',
        '    [ -n "$again" ] || break',
        "done",
        "",
    ]


def _end(job: Job) -> list[str]:
    if job.again == "no":
        return ['exit "$status"']
    script = shlex.quote(str(job.file.resolve()))
    how = {"requeue": 'scontrol requeue "$SLURM_JOB_ID"', "resubmit": f"{COUNT}=$((times + 1)) sbatch {script}"}
    return [
        "# 143: stopped as asked. Where the time limit asked, and nobody's scancel, the job goes on by itself.",
        "left=$((${SLURM_JOB_END_TIME:-0} - $(date +%s)))",
        f"times=${{{'SLURM_RESTART_COUNT' if job.again == 'requeue' else COUNT}:-0}}",
        f'if [ "$status" -eq 143 ] && [ -n "$asked" ] && [ "$left" -le {job.grace + EARLY} ] &&',
        f'    [ "$times" -lt {MOST} ]; then',
        f"    {how[job.again]}",
        "fi",
        'exit "$status"',
    ]
