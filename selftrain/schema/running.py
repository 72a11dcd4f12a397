"""Where a run lies, how long it goes on, and what does its work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from selftrain.ranges import Count, Positive, Size, SleepLevel


@dataclass(frozen=True)
class Budget:
    """Ends the run where it is spent; one of the two is set."""

    tokens: Count | None = None
    """Drawn by samplers and read by fits, evaluations and warm-ups included."""
    gpu_hours: Positive | None = None
    """Hours of stages times GPUs; a resumed run may then end otherwise than an undisturbed one."""
    least: Count = 4
    """Samples per problem without which no further iteration is begun, where a step draws as many."""


@dataclass(frozen=True)
class Run:
    name: str = "run"
    folder: str = "runs"
    """Where runs lie; this one is ``folder/name``."""
    seed: int = 0
    part_size: Count = 1024
    """Samples per file of Grow, about; a killed run samples at most the unfinished parts again."""
    reuse: bool = True
    """Whether this run takes samples and verdicts from ``folder/.samples`` where another made the same, and gives its
    own."""
    budget: Budget | None = None
    """What the run may take: samples per problem and iterations are chosen within it, those of the config at most."""


@dataclass(frozen=True)
class Stop:
    """Stops the loop when validation no longer improves."""

    metric: str = "pass@1"
    split: str = "val"
    patience: Count = 1
    """Evaluations without a better value before the loop stops."""


@dataclass(frozen=True)
class Loop:
    iterations: Size = 3
    evaluate_every: Count = 1
    """Iterations from one evaluation to the next; the first and the last are always evaluated."""
    save_every: Count = 1
    """Iterations from one saved optimizer state to the next, where ``optim.state`` is keep: so many are done again at
    most after a kill."""
    keep: Count | None = None
    """Newest iterations whose checkpoints stay on disk, the best one beside them; all where none is given."""
    stop: Stop | None = None


@dataclass(frozen=True)
class Replicas:
    """The engines that draw samples together."""

    replicas: Count | None = None
    """Processes that share the requests of an engine; where none is given as many as the GPUs have room for, and one
    where there is none. 1: as without this section."""
    sleep: SleepLevel | None = None
    """What an engine that stays (``keep: run``) does while others need its GPUs: 1: its weights wait in the memory of
    the machine; 2: they are loaded anew; 0: it keeps all it has. 1 where none is given and there is a GPU."""


@dataclass(frozen=True)
class Kernels:
    """What a fit computes with: memory and speed alone, no finished stage depends on it."""

    attention: Literal["auto", "sdpa", "varlen", "flash_attention_2", "flash_attention_3"] = "auto"
    """sdpa: PyTorch's, packed sequences kept apart by a mask; varlen: each packed sequence by itself, by PyTorch's own
    flash kernel on a GPU; flash_attention_2, flash_attention_3: the packages; auto: on a GPU the newest of these that
    is installed, else varlen; sdpa on a CPU."""
    loss: Literal["chunked", "cut_cross_entropy"] = "chunked"
    """chunked: a part of the logits at a time; cut_cross_entropy: the package, which holds none."""
    compile: bool = False
    """Compile each layer with torch.compile."""


@dataclass(frozen=True)
class Trainer:
    """What fits learners: one process of plain PyTorch, or several with DeepSpeed. No finished stage depends on it."""

    engine: Literal["torch", "deepspeed"] = "torch"
    processes: Count = 1
    """Of deepspeed: ranks, a GPU for each where there are any."""
    zero: Count = 2
    """Stage of ZeRO: 1 divides the optimizer's state among the processes, 2 the gradients too, 3 the parameters too."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What lies in the memory of the CPU: the optimizer's state, or with ZeRO-3 the parameters too."""
    config: str | None = None
    """A DeepSpeed JSON file; what the config says here, or a learner's optim, wins over it."""
    sequence_parallel: Count = 1
    """Processes that share each sequence."""
    save_every: Count | None = None
    """Steps of a fit from one saved state to the next, for any engine: a fit that is killed goes on from the last one;
    it begins anew where none is given. One that is asked to stop writes where it stands either way."""


@dataclass(frozen=True)
class Ray:
    """The cluster that ``place: ray`` runs on."""

    address: str | None = None
    """``host:port`` of its head, or ``auto``: the one last started on this machine. Where none is given RAY_ADDRESS
    counts, and without that one is started on this machine, which ends with the run."""
    cpus: Count | None = None
    """That each process with a model takes, and computes with; OMP_NUM_THREADS where none is given, else 1."""
    wait: Positive = 300.0
    """Seconds that a process waits for room which others have."""


@dataclass(frozen=True)
class Launch:
    place: Literal["inline", "processes", "ray"] = "inline"
    """inline: stages run in this process; processes: each heavy stage in a child that exits and frees its memory; ray:
    what samples, judges, scores and fits runs on the nodes of a Ray cluster, the rest in this process."""
    ray: Ray = field(default_factory=Ray)
    keep: Literal["stage", "run"] = "stage"
    """How long an engine lives: stage: its memory is freed before a fit; run: it stays and loads new weights."""
    sample: Replicas = field(default_factory=Replicas)
    python: dict[str, str] = field(default_factory=dict)
    """Interpreters that stages run under, by the name of a stage or what stands before its ``-``; with ``place:
    processes``."""
    verify_workers: Count = 2
    score_processes: Count = 1
    """Processes that share the responses a model scores; 1: this one does. No more than there are GPUs, where there are
    any."""
    kernels: Kernels = field(default_factory=Kernels)
    train: Trainer = field(default_factory=Trainer)


@dataclass(frozen=True)
class Track:
    live: Literal["auto", "plain", "none"] = "auto"
    """auto: a live area on a terminal, plain lines elsewhere; plain: lines everywhere; none: nothing."""
    mirror: str | None = None
    """Address in object storage (``s3://bucket/prefix``, any that fsspec knows) where finished stages are put while the
    run goes on, and from where they are pulled where the run's folder lacks them."""
