"""The trainer that is several processes, with DeepSpeed: this side asks, `selftrain.training.zero.rank` computes.

Examples are dealt out to the ranks by their tokens and cut by each rank's own; the totals that losses are divided by
are those of the whole step. A rank with fewer micro-batches than another computes empty ones, so that all meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from selftrain.models import checkpoint
from selftrain.objectives.terms import Mean, Tally
from selftrain.objectives.values import VALUES
from selftrain.places import Places
from selftrain.schema import Optim, Trainer
from selftrain.training.data import MicroBatch, padded, totals
from selftrain.training.engine import Objective, Step, lr_factor, sizes
from selftrain.training.group import Group
from selftrain.training.learnt import Start
from selftrain.training.scoring import Scores, alone, batches, by_sequence, whole
from selftrain.training.zero import settings
from selftrain.training.zero.rank import Asked, Part
from selftrain.types import Example

SERVE = "selftrain.training.zero.rank:serve"


class DeepSpeedEngine:
    """An `Engine` in processes of its own, which end with this one.

    Args:
        start: what the fit begins with.
        group: of processes that there are already, from ``SERVE``; they stay when this is closed.
        places: where others run; None: on this machine.

    Raises:
        OSError, ValueError, RuntimeError: the model does not load, there are more processes than GPUs, or DeepSpeed
            refuses what it is told.
    """

    device = "cpu"

    def __init__(
        self,
        start: Start,
        objective: Objective,
        optim: Optim,
        *,
        steps: int,
        trainer: Trainer,
        group: Group | None = None,
        places: Places | None = None,
    ) -> None:
        bf16 = start.compute == torch.bfloat16
        config, _ = settings.merged(settings.read(trainer.config), trainer, optim, bf16=bf16)
        self.shares = trainer.processes // trainer.sequence_parallel
        self.tokenizer = checkpoint.load_tokenizer(start.source)
        self._width = trainer.sequence_parallel
        self._objective, self._optim = objective, optim
        self._own = group is None
        self._group = Group(SERVE, trainer.processes, places=places) if group is None else group
        self._ask("open", Asked(start, objective, optim, config, trainer.sequence_parallel))
        self._steps, self._done = steps, 0

    @property
    def needs(self) -> frozenset[str]:
        return self._objective.needs

    def begin(self, steps: int) -> None:
        self._ask("begin")
        self._steps, self._done = steps, 0

    def step(self, batches: Sequence[MicroBatch], divergence: float = 0.0) -> Step:
        whole = totals(batches, divergence)
        lr = self._optim.lr * lr_factor(self._done, self._steps, self._optim)
        parts: list[Part] = self._each("step", self._shared(batches), whole, lr, self._done)
        self._done += 1
        tally = Tally()
        for part in parts:
            tally.add({name: Mean(*own) for name, own in part.measures.items()})
        loss = sum(part.loss for part in parts)
        return Step(loss, parts[0].norm, lr, *sizes(batches, whole, self.needs), tally.means())

    def evaluate(self, batches: Sequence[MicroBatch], divergence: float = 0.0) -> float:
        return float(sum(self._each("evaluate", self._shared(batches), totals(batches, divergence))))

    def logprobs(self, examples: Sequence[Example]) -> list[Scores]:
        bare = alone(examples)
        groups = batches(bare)
        laid = [padded(bare, group, 0, "cpu") for group in groups]
        shares = [laid[share :: self.shares] for share in range(self.shares)]
        read = self._each("read", filled(shares))[:: self._width]
        found: dict[int, Scores] = {}
        for place, (group, batch) in enumerate(zip(groups, laid, strict=True)):
            values = torch.from_numpy(read[place % self.shares][place // self.shares])
            found.update(zip(group, by_sequence(values, batch), strict=True))
        return whole(examples, found)

    def save_state(self, folder: Path, kinds: Sequence[str]) -> None:
        self._ask("save_state", folder, tuple(kinds), self._done)

    def load_state(self, folder: Path) -> None:
        done = self._ask("load_state", folder)[0]
        self._done = self._done if done is None else done

    def save(self, folder: Path, like: Path | None = None) -> None:
        self._ask("save", folder, like)

    def close(self) -> None:
        if self._own:
            self._group.close()
        else:
            self._ask("close")

    def _shared(self, batches: Sequence[MicroBatch]) -> list[list[MicroBatch | None]]:
        return filled([[one for one in batches if one.share == share] for share in range(self.shares)])

    def _each(self, name: str, shares: Sequence[Sequence[MicroBatch | None]], *others: Any) -> list[Any]:
        """Ask every rank about its share; those that hold stretches of the same sequences have the same."""
        ranks = [share for share in shares for _ in range(self._width)]
        return self._group.ask_each([(name, (share, *others)) for share in ranks])

    def _ask(self, name: str, *arguments: Any) -> list[Any]:
        return self._group.ask((name, arguments))


def filled(shares: Sequence[Sequence[MicroBatch]]) -> list[list[MicroBatch | None]]:
    """Shares of equal length, where None stands for nothing."""
    most = max(1, *map(len, shares))
    return [[*share, *[None] * (most - len(share))] for share in shares]


def start_of(source: Path, objective: Objective, optim: Optim, *, places: Places | None = None, **others: Any) -> Start:
    """What a fit begins with, in the type its config says."""
    device = checkpoint.pick_device("auto") if places is None else "cuda" if places.gpus else "cpu"
    compute = checkpoint.pick_dtype(optim.dtype, device)
    return Start(source, compute, VALUES in objective.needs, **others)
