"""Where the work of a config runs, in plain numbers: the one place that reads ``launch`` for the estimate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selftrain.config import to_tree
from selftrain.estimating.memory import Offload, Sampler, Trainer
from selftrain.schema import Component, Optim, RunConfig

TRAIN = ("engine", "processes", "zero", "offload", "sequence_parallel")
"""Keys of ``launch.train`` that matter here."""


@dataclass(frozen=True)
class Placed:
    """Processes and what they share; one process takes one GPU."""

    engine: str = "torch"
    processes: int = 1
    zero: int = 0
    offload: Offload = "none"
    sequence_parallel: int = 1
    replicas: int = 1
    tensor_parallel: int = 1
    keep: str = "stage"
    """run: trainer and sampler share their GPUs' memory; stage: each has it for itself."""
    scorers: int = 1

    @property
    def gpus(self) -> int:
        """That are needed at once: stages follow each other."""
        return max(self.processes, self.replicas * self.tensor_parallel, self.scorers)

    def trainer(self, optim: Optim, longest: int, trained: int | None, gpu: bool) -> Trainer:
        return Trainer(
            engine="deepspeed" if self.engine == "deepspeed" else "torch",
            processes=self.processes,
            zero=self.zero,
            offload=self.offload,
            sequence_parallel=self.sequence_parallel,
            micro_tokens=min(optim.micro_tokens, optim.batch_size * longest) if longest else optim.micro_tokens,
            longest=longest,
            checkpointing=optim.gradient_checkpointing,
            bf16=gpu if optim.dtype == "auto" else optim.dtype == "bfloat16",
            packed=optim.batching == "packed",
            trained=trained,
            gpu=gpu,
        )

    def sampler(self, component: Component, memory: float, longest: int) -> Sampler:
        options = component.options
        return Sampler(
            memory=memory,
            share=float(options.get("gpu_memory_utilization", 0.9)),
            tensor_parallel=self.tensor_parallel,
            sequences=int(options.get("max_num_seqs", options.get("batch_size", 256))),
            length=longest,
        )


def placed(config: RunConfig, sampler: Component) -> Placed:
    """Where a config's fits and one of its samplers run."""
    launch: Mapping[str, Any] = to_tree(config.launch)
    train, sample = launch.get("train") or {}, launch.get("sample") or {}
    named = {name: train[name] for name in TRAIN if name in train}
    parallel = int(sampler.options.get("tensor_parallel_size", 1))
    # Where their number is left open, as many as there is room for on the GPUs that the rest needs.
    room = max(int(named.get("processes", 1)), int(launch["score_processes"])) // parallel
    return Placed(
        **named,
        replicas=int(sample.get("replicas") or max(1, room)),
        tensor_parallel=parallel,
        keep=str(launch["keep"]),
        scorers=int(launch["score_processes"]),
    )
