"""The cost model of docs/scaling.md: one iteration of ReST-EM on 8, 64 and 512 GPUs, where the problems grow with the
GPUs (weak scaling)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from selftrain.estimating import disk
from selftrain.estimating.hardware import PROFILES, Hardware
from selftrain.estimating.memory import Sampler, Trainer, host, sampling, training
from selftrain.estimating.network import step_traffic, weights_traffic
from selftrain.estimating.shapes import Shape
from selftrain.estimating.speed import sampling_speed, training_speed
from selftrain.estimating.work import gpu_hours

SIZES = (8, 64, 512)
"""GPUs."""


@dataclass(frozen=True)
class Job:
    """An iteration, for each GPU."""

    problems: int = 256
    samples: int = 32
    """Per problem."""
    prompt: int = 200
    drawn: int = 2000
    """Mean tokens of a response."""
    longest: int = 4096
    """Tokens of prompt and response at most."""
    kept: int = 8
    """Right samples that are learnt of a problem."""
    sequences: int = 16
    """That a GPU reads in an optimizer step."""
    tensor_parallel: int = 1
    zero: int = 3
    sequence_parallel: int = 1
    micro_tokens: int = 16384


SHORT = Job()
"""Solutions to problems of mathematics by a model of 7B parameters."""
LONG = Job(
    problems=32,
    samples=16,
    drawn=12000,
    longest=33000,
    kept=4,
    sequences=2,
    tensor_parallel=4,
    sequence_parallel=4,
    micro_tokens=33000,
)
"""Long reasoning by a model of 32B parameters."""


@dataclass(frozen=True)
class Cost:
    """Of one iteration on so many GPUs; bytes, seconds."""

    gpus: int
    drawn: float
    read: float
    sampling: float
    fitting: float
    exposed: float
    """Of the fit: what the network takes, were none of it hidden behind arithmetic."""
    loading: float
    """Until every sampler has the new weights, from a file system that gives each node ``network`` once."""
    step_bytes: float
    """That each GPU sends in an optimizer step."""
    weight_bytes: int
    record_bytes: int
    checkpoint_bytes: int
    serial: float
    """Of one process, whatever the GPUs: work list, queue, writer, manifests."""

    @property
    def seconds(self) -> float:
        """Sampling hides what one process does for it, until that takes longer."""
        return max(self.sampling, self.serial) + self.fitting + self.loading

    @property
    def hours(self) -> float:
        return gpu_hours(self.seconds, self.gpus)


def cost(shape: Shape, job: Job, gpus: int, machine: Hardware, serial: float) -> Cost:
    """One iteration.

    Args:
        serial: seconds that one process takes for a sample.
    """
    samples = gpus * job.problems * job.samples
    sequences = gpus * job.problems * job.kept
    drawn, read = samples * job.drawn, sequences * (job.prompt + job.drawn)
    trainer, sampler = trainer_of(job, gpus), sampler_of(job, machine)
    replicas = gpus // job.tensor_parallel
    pace = sampling_speed(shape, machine, sampler, replicas, job.prompt, job.drawn)
    fit = training_speed(shape, machine, gpus, job.prompt + job.drawn, checkpointing=True)
    steps = job.problems * job.kept / job.sequences
    passes = passes_of(job)
    traffic = step_traffic(shape, trainer, passes)
    # Ranks of one node reach each other over its own links; the slowest way is what counts.
    way = machine.link if gpus <= machine.per_node else machine.network
    return Cost(
        gpus=gpus,
        drawn=drawn,
        read=read,
        sampling=drawn / pace,
        fitting=read / fit,
        exposed=steps * traffic.total / way,
        loading=machine.per_node
        // job.tensor_parallel
        * weights_traffic(shape, 1)
        / (machine.network * machine.per_node),
        step_bytes=traffic.total,
        weight_bytes=weights_traffic(shape, replicas),
        record_bytes=disk.records(samples, drawn),
        checkpoint_bytes=disk.FP32 * shape.parameters,
        serial=samples * serial,
    )


def trainer_of(job: Job, gpus: int) -> Trainer:
    return Trainer(
        engine="deepspeed",
        processes=gpus,
        zero=job.zero,
        sequence_parallel=job.sequence_parallel,
        micro_tokens=job.micro_tokens,
        longest=job.longest,
        checkpointing=True,
    )


def sampler_of(job: Job, machine: Hardware) -> Sampler:
    return Sampler(memory=machine.memory, tensor_parallel=job.tensor_parallel, length=job.longest)


def passes_of(job: Job) -> int:
    """Forward passes of a process in an optimizer step; ranks that share sequences read them together."""
    tokens = job.sequences * (job.prompt + job.drawn) * job.sequence_parallel
    return max(1, ceil(tokens / max(job.micro_tokens, job.longest)))


def tables(small: Shape, large: Shape, serial: float) -> dict[str, str]:
    """Those of the page, by name.

    Args:
        small, large: shapes of 7B and 32B parameters.
        serial: seconds that one process takes for a sample.
    """
    return {
        "short": cost_table(small, SHORT, serial),
        "short memory": memory_table(small, SHORT),
        "long": cost_table(large, LONG, serial),
        "long memory": memory_table(large, LONG),
        "states": offload_table(small, 8),
    }


def cost_table(shape: Shape, job: Job, serial: float, machine: str = "H100") -> str:
    """As Markdown: a row for each quantity, a column for each number of GPUs."""
    costs = [cost(shape, job, gpus, PROFILES[machine], serial) for gpus in SIZES]
    return table(["GPUs", *(f"{own.gpus:,}" for own in costs)], list(_rows(costs, job)))


def _rows(costs: Sequence[Cost], job: Job) -> Iterator[list[str]]:
    def row(name: str, cells: Sequence[str]) -> list[str]:
        return [name, *cells]

    yield row("problems", [f"{own.gpus * job.problems:,}" for own in costs])
    yield row("samples", [f"{own.gpus * job.problems * job.samples:,}" for own in costs])
    yield row("tokens drawn", [f"{own.drawn / 1e9:,.2f} G" for own in costs])
    yield row("tokens read by the fit", [f"{own.read / 1e9:,.2f} G" for own in costs])
    yield row("sampling", [minutes(own.sampling) for own in costs])
    yield row("fit", [minutes(own.fitting) for own in costs])
    yield row("of it the network, were nothing hidden", [minutes(own.exposed) for own in costs])
    yield row("new weights to all samplers", [minutes(own.loading) for own in costs])
    yield row("one process, while samplers draw", [minutes(own.serial) for own in costs])
    yield row("an iteration, with the network hidden", [minutes(own.seconds) for own in costs])
    yield row("an iteration, with nothing hidden", [minutes(own.seconds + own.exposed) for own in costs])
    yield row("GPU-hours", [f"{own.hours:,.1f}" for own in costs])
    yield row("sent by each GPU in a step", [gigabytes(own.step_bytes) for own in costs])
    yield row("weights to samplers", [gigabytes(own.weight_bytes) for own in costs])
    yield row("samples on disk", [gigabytes(own.record_bytes) for own in costs])
    yield row("a checkpoint on disk", [gigabytes(own.checkpoint_bytes) for own in costs])


def memory_table(shape: Shape, job: Job, machine: str = "H100") -> str:
    """Of one GPU, by part."""
    profile = PROFILES[machine]
    fits = [training(shape, trainer_of(job, gpus)) for gpus in SIZES]
    drawn = sampling(shape, sampler_of(job, profile))
    parts = list(dict.fromkeys([*fits[0], *drawn]))
    columns: list[Mapping[str, int]] = [*fits, drawn]
    body = [[part, *(gigabytes(own[part]) if part in own else "-" for own in columns)] for part in parts]
    body.append(["all", *(gigabytes(sum(own.values())) for own in columns)])
    return table(["on each GPU", *(f"fit, {gpus}" for gpus in SIZES), "sampling"], body)


def offload_table(shape: Shape, gpus: int) -> str:
    """What a fit keeps on each of so many GPUs beside activations, and outside it, by stage of ZeRO."""
    body = []
    for zero, offload in ((0, "none"), (1, "none"), (2, "none"), (3, "none"), (2, "optimizer"), (3, "parameters")):
        trainer = Trainer(engine="deepspeed", processes=gpus, zero=zero, offload=offload)  # type: ignore[arg-type]
        own = training(shape, trainer)
        states = own["weights"] + own["gradients"] + own["optimizer"]
        cells = [gigabytes(states), gigabytes(own["buffers"]), gigabytes(host(shape, trainer))]
        body.append([str(zero) if zero else "none", offload, *cells])
    return table(["ZeRO", "offload", "states on a GPU", "buffers", "beside the GPU"], body)


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = "|".join("---" for _ in head)
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in body)])


def minutes(seconds: float) -> str:
    return f"{seconds / 60:,.1f} min" if seconds >= 6 else f"{seconds:.2g} s"


def gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 0.05e9 else f"{size / 1e6:,.0f} MB" if size else "-"
