"""A Slurm batch script: what it asks for, the run, and how it ends before its time limit and goes on."""

from __future__ import annotations

import shlex

from selftrain.jobs.job import Job, command, preparation
from selftrain.jobs.ray import PLACE, cluster

EARLY = 60
"""Seconds by which Slurm may send a signal too early."""
MOST = 100
"""Times that a job goes on by itself: one that never finishes a part within its time would do so for ever."""


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
        "set -u",
        "",
    ]


def _trap() -> list[str]:
    return [
        "# Slurm's SIGTERM before the time limit comes to this shell, which hands it on.",
        "asked='' again='' step=''",
        'ask() { asked=yes; again=yes; [ -z "$step" ] || kill -TERM "$step" 2>/dev/null; }',
        "trap ask TERM",
        "",
    ]


def _step(job: Job) -> list[str]:
    several = job.nodes > 1
    where = '--overlap --nodes=1 --nodelist="$head" ' if several else ""
    run = command(job, PLACE) if several else command(job)
    return [
        *(cluster(job) if several else []),
        f"srun --ntasks=1 --cpus-per-task={job.cpus} --kill-on-bad-exit=1 {where}\\",
        f"    {run} &",
        "step=$!",
        '[ -z "$asked" ] || kill -TERM "$step"  # It came while the step began.',
        "",
        "# A signal interrupts wait: then the step is not over.",
        "status=127",
        "while :; do",
        "    again=''",
        '    wait "$step"; code=$?',
        '    [ "$code" -eq 127 ] || status=$code',
        '    [ -n "$again" ] || break',
        "done",
        "",
    ]


def _end(job: Job) -> list[str]:
    if job.again == "no":
        return ['exit "$status"']
    script = shlex.quote(str(job.file.resolve()))
    how = {"requeue": 'scontrol requeue "$SLURM_JOB_ID"', "resubmit": f"sbatch {script}"}[job.again]
    return [
        "# 143: stopped as asked. Where the time limit asked, and nobody's scancel, the job goes on by itself.",
        "left=$((${SLURM_JOB_END_TIME:-0} - $(date +%s)))",
        f'if [ "$status" -eq 143 ] && [ -n "$asked" ] && [ "$left" -le {job.grace + EARLY} ] &&',
        f'    [ "${{SLURM_RESTART_COUNT:-0}}" -lt {MOST} ]; then',
        f"    {how}",
        "fi",
        'exit "$status"',
    ]
