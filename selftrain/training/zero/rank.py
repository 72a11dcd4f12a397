"""One of the processes that fit a model with DeepSpeed's ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054).

A step's loss is the sum of what its micro-batches give, wherever they are computed: objectives divide by the totals of
the whole step. DeepSpeed makes means of gradients, so each rank multiplies its loss by what that divides by
(`divisor`); it divides by no number of accumulation steps, as that is 1 to it and `Rank.step` says where a step ends.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from selftrain.models import checkpoint
from selftrain.models.logprobs import Positions
from selftrain.objectives.terms import Loss, Tally, Terms, Totals
from selftrain.schema import Optim
from selftrain.seeds import derive
from selftrain.training import state
from selftrain.training.data import MicroBatch, moved
from selftrain.training.engine import Objective, adamw
from selftrain.training.group import FILE, device_of, join
from selftrain.training.learnt import Learnt, Start, fitted
from selftrain.training.zero import masters
from selftrain.training.zero.sequence import Sequences


@dataclass(frozen=True)
class Asked:
    """What is fitted, and how."""

    start: Start
    objective: Objective
    optim: Optim
    config: dict[str, Any]
    """DeepSpeed's (`selftrain.training.zero.settings`)."""
    sequence_parallel: int = 1


class Part(NamedTuple):
    """A rank's part of a step."""

    loss: float
    norm: float
    """Of the whole step's gradient, before it is clipped."""
    measures: dict[str, tuple[float, float]]


class Reading(nn.Module):
    """The forward pass as DeepSpeed wants it: a module whose arguments and result are tensors."""

    def __init__(self, learnt: Learnt) -> None:
        super().__init__()
        self.model = learnt.model
        self._read = learnt.read

    def forward(self, *inputs: Any) -> Tensor:
        return self._read(*inputs)


class Rank:
    """What one process holds."""

    def __init__(self, rank: int, count: int, device: str) -> None:
        self._rank, self._count, self._device = rank, count, device
        self._open = ExitStack()

    def open(self, asked: Asked) -> None:
        """Load the model, in place of the one before, and hand it to DeepSpeed."""
        import deepspeed

        self.close()
        self._asked = asked
        rounds = asked.config["bf16"]["enabled"]
        torch.manual_seed(asked.start.seed)  # Of fresh adapters, which are the same on every rank.
        self._learnt = asked.start.opened("cpu")
        if asked.optim.batching == "packed":
            self._learnt.check_packing()
        self._parameters = fitted(self._learnt)
        self._shapes = {name: p.shape for name, p in self._parameters.items()}
        self._sequences = Sequences(asked.sequence_parallel, self._learnt.backbone)
        self._open.enter_context(self._sequences)
        reading = Reading(self._learnt)
        optimizer = adamw(reading, asked.optim)
        # What they are now: a parameter that is rounded holds another tensor.
        exact = {name: p.detach().float() for name, p in self._parameters.items() if rounds}
        if asked.config["zero_optimization"]["stage"] == 3:
            self._divide(reading)
        try:
            self._engine, *_ = deepspeed.initialize(
                model=reading, optimizer=optimizer, config=asked.config, mpu=self._sequences.groups
            )
        except AssertionError as error:  # So it refuses what does not go together.
            raise ValueError(f"DeepSpeed refuses these settings: {error}") from error
        self._open.callback(self._engine.destroy)
        self._tie_in(reading)
        if exact:  # DeepSpeed would begin with what is left of them in bf16.
            masters.put(self._engine, self._parameters, lambda name: exact[name])

    def _divide(self, reading: Reading) -> None:
        """One parameter after another goes to the device and is divided; DeepSpeed itself would put all of them there
        first."""
        import deepspeed

        if self._asked.config["bf16"]["enabled"]:
            for parameter in reading.parameters():
                parameter.data = parameter.data.to(torch.bfloat16)
        deepspeed.zero.Init(module=reading, config_dict_or_path=self._asked.config, mpu=self._sequences.groups)
        for buffer in reading.buffers():
            buffer.data = buffer.data.to(self._device)

    def _tie_in(self, reading: Reading) -> None:
        """The output head is read in chunks, outside its own forward, so ZeRO-3 is to have it at hand."""
        if self._asked.optim.gradient_checkpointing:
            self._learnt.backbone.gradient_checkpointing_enable({"use_reentrant": False})
        if self._asked.config["zero_optimization"]["stage"] == 3 and not self._asked.start.values:
            import deepspeed

            for parameter in self._learnt.model.get_output_embeddings().parameters():
                deepspeed.zero.register_external_parameter(reading, parameter)

    def begin(self) -> None:
        """A fresh optimizer."""
        masters.forget_moments(self._engine)

    def step(self, batches: Sequence[MicroBatch | None], whole: Totals, lr: float, done: int) -> Part:
        """This rank's micro-batches of a step, and the step.

        Args:
            batches: as many on every rank; None computes nothing, in step with the others.
            done: steps before this one.
        """
        self._engine.train()
        torch.manual_seed(derive(self._asked.start.seed, done, self._rank))
        tally, loss = Tally(), 0.0
        for batch in batches:
            part = self._loss(batch, whole)
            self._engine.backward(part.value * divisor(self._asked, self._count))
            if self._sequences.first:
                loss += float(part.value.item())
                tally.add(part.measures)
        for group in self._engine.basic_optimizer.param_groups:
            group["lr"] = lr
        self._engine.step()
        measures = {name: (total, over) for name, (total, over) in tally.totals.items()}
        return Part(loss, float(self._engine.get_global_grad_norm()), measures)

    def evaluate(self, batches: Sequence[MicroBatch | None], whole: Totals) -> float:
        """This rank's part of the objective."""
        with self._resting():
            losses = [float(self._loss(batch, whole).value.item()) for batch in batches]
        return sum(losses) if self._sequences.first else 0.0

    def read(self, batches: Sequence[MicroBatch | None]) -> list[Any]:
        """What the model says of the places of each micro-batch, as arrays in fp32."""
        with self._resting():
            return [self._read(batch)[1].float().cpu().numpy() for batch in batches]

    @contextmanager
    def _resting(self) -> Iterator[None]:
        self._engine.eval()
        with torch.no_grad():
            yield
        self._engine.train()

    def _loss(self, batch: MicroBatch | None, whole: Totals) -> Loss:
        here, read = self._read(batch)
        if batch is None:
            return Loss(read.sum() * 0.0)
        return self._asked.objective.loss(self._learnt.terms(here, read), whole)

    def _read(self, batch: MicroBatch | None) -> tuple[MicroBatch, Tensor]:
        here = moved(batch or nothing(self._asked.sequence_parallel), self._engine.device)
        inputs, gather = self._sequences.cut(self._learnt.inputs(here))
        return here, gather(self._engine(*inputs))

    def save_state(self, folder: Path, kinds: Sequence[str], done: int) -> None:
        """Write where the fit stands; the first rank writes what all gather."""
        found = masters.tensors(self._engine, self._parameters, kinds)
        if self._rank == 0:
            state.write(folder, found, done)
        else:
            for _ in found:
                pass

    def load_state(self, folder: Path) -> int | None:
        """Go on from a state; the steps behind it, where it holds more than weights."""
        with state.Saved(folder, self._shapes) as saved:
            if "weight" in saved.kinds:
                masters.put(self._engine, self._parameters, lambda name: saved.get("weight", name))
            if "exp_avg" not in saved.kinds:
                return None
            masters.put_moments(self._engine, self._parameters, saved.get, saved.done)
            return saved.done

    def save(self, folder: Path, like: Path | None) -> None:
        """The first rank writes the checkpoint, from a model made anew that holds what all gather.

        Args:
            like: a checkpoint of the same model, in place of that which the fit began with: where ranks stay from fit
                to fit, it may be gone.

        Raises:
            ValueError: what was written does not load back equal.
            OSError: the disk is full, or cannot be written.
        """
        start = self._asked.start if like is None else self._asked.start.at(like)
        written = start.opened("cpu") if self._rank == 0 else None
        targets = fitted(written) if written else {}
        with torch.no_grad():
            for _, name, tensor in masters.tensors(self._engine, self._parameters, state.WEIGHTS):
                if written is not None:
                    targets[name].copy_(tensor)
        if written is not None:
            written.save(checkpoint.load_tokenizer(start.source), folder)

    def close(self) -> None:
        self._open.close()


def serve(rank: int, count: int, store: str) -> Callable[[tuple[str, Any]], Iterator[Any]]:
    """Start-up of a rank; it answers the name of a method of `Rank` and its arguments by what that returns."""
    device = device_of(rank, count, "launch.train.processes", store)
    local = (rank, count) if store.startswith(FILE) else (0, 1)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_SIZE")
    os.environ.update(zip(names, map(str, (rank, count, *local)), strict=True))
    os.environ["DS_ACCELERATOR"] = device.partition(":")[0]
    # DeepSpeed's calls, not ours, and said by every rank.
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
    join(rank, count, store)
    _import_deepspeed()
    held = Rank(rank, count, device)

    def answer(request: tuple[str, Any]) -> Iterator[Any]:
        name, arguments = request
        yield getattr(held, name)(*arguments)

    return answer


def _import_deepspeed() -> None:
    import deepspeed

    # None is used but one for inference, which every rank would compile at its first start, all at once.
    vars(deepspeed.ops)["__compatible_ops__"] = {}
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


def divisor(asked: Asked, count: int) -> int:
    """What DeepSpeed 0.19 divides the sum of the ranks' gradients by: with ZeRO-3, which scatters them, by how many
    ranks there are, else only by how many there are with sequences of their own."""
    return count if asked.config["zero_optimization"]["stage"] == 3 else count // asked.sequence_parallel


def nothing(width: int) -> MicroBatch:
    """A micro-batch of which nothing is read, for ranks that have none while others compute."""
    none = torch.zeros(0, dtype=torch.long)
    terms = Terms(torch.zeros(0), none, torch.zeros(0))
    return MicroBatch(torch.zeros(1, width, dtype=torch.long), None, Positions(none, none), none, terms, none, 0)
