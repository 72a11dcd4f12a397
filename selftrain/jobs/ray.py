"""Job files for Ray: one that a cluster which runs already is given, and the lines that start one in an allocation."""

from __future__ import annotations

import shlex

from selftrain.jobs.job import Job, command, inside, preparation

PLACE = "launch.place=ray"
"""Where stages run in such a job."""


def script(job: Job) -> str:
    """A shell script that hands itself to a cluster."""
    return "\n".join(
        [
            "#!/bin/bash",
            f"# {job.name}: selftrain on a Ray cluster that runs already. Read it, change what you like, and start it:",
            f"#   bash {shlex.quote(job.file.name)}",
            "# It hands itself to the cluster's job server, whose machines see this folder and this environment under",
            "# the same paths. `ray job stop` asks selftrain to finish the part it is at; the cluster allows 3 seconds",
            "# for that, or RAY_JOB_STOP_WAIT_TIME_S of its head. The same script goes on from there.",
            "",
            'if [ "${1:-}" != inside ]; then',
            f'    export RAY_ADDRESS="${{RAY_ADDRESS:-{_inside_quotes(job.address)}}}"',
            '    exec ray job submit --no-wait --entrypoint-num-cpus=1 -- bash "$(realpath "$0")" inside',
            "fi",
            "",
            *preparation(job),
            f"exec {command(job, PLACE)}",
            "",
        ]
    )


def _inside_quotes(text: str) -> str:
    return "".join(f"\\{mark}" if mark in '\\"$`}' else mark for mark in text)


def cluster(job: Job) -> list[str]:
    """Lines of a Slurm script: a head on the first node, a worker on every other, which end with the job."""
    ray, others = f"{inside(job)}ray", job.nodes - 1
    start = f"    {ray} start --num-cpus={job.cpus} --num-gpus={job.gpus} --block"
    first = 'srun --overlap --nodes=1 --ntasks=1 --nodelist="$head"'
    return [
        "# A Ray cluster of the job's own: its head on the first node, a worker on each other one.",
        'mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")',
        'head="${nodes[0]}"',
        "port=$((20000 + SLURM_JOB_ID % 20000))",
        'export RAY_ADDRESS="$head:$port"',
        f"{first} --cpus-per-task={job.cpus} \\",
        f'{start} --head --node-ip-address="$head" --port="$port" &',
        "cluster=($!)",
        f'srun --overlap --nodes={others} --ntasks={others} --cpus-per-task={job.cpus} --exclude="$head" \\',
        f'{start} --address="$RAY_ADDRESS" &',
        "cluster+=($!)",
        "trap 'kill \"${cluster[@]}\" 2>/dev/null' EXIT",
        "for _ in $(seq 60); do",
        f"    {first} {ray} status >/dev/null 2>&1 && break",
        "    sleep 2",
        "done",
        "",
    ]
