"""What is fitted: a language model, whose tokens have log-probabilities, or a value model, whose states have values.

The trainer is the same for both; here stands what differs: how a model is made ready, what an objective sees of a
batch, and how it is saved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from selftrain.models import adapters, checkpoint, export, heads
from selftrain.models.head_form import HeadForm, has_value_head
from selftrain.models.logprobs import Positions, batch_logprobs, check_head, check_packing
from selftrain.objectives.terms import Terms
from selftrain.schema import Lora
from selftrain.training.data import MicroBatch


class Learnt(Protocol):
    """A model with parameters in fp32, those of a frozen base aside."""

    model: Any
    """A ``torch.nn.Module``; its parameters that require a gradient are fitted."""
    backbone: Any
    """The transformers model in it."""
    cut: bool
    """Whether log-probabilities are read by the kernels of Cut Cross-Entropy."""

    def inputs(self, batch: MicroBatch) -> tuple[Tensor | None, ...]:
        """What `read` takes: input ids and position ids ``[B, T]``, the flat places ``[N]`` that are read, and what
        else is told of each place."""

    def read(self, *inputs: Any, lengths: tuple[int, ...] = ()) -> Tensor:
        """The forward pass: ``[N]`` in fp32, a log-probability or a value for each place.

        Args:
            lengths: of the sequences of a packed row, where they are known.
        """

    def terms(self, batch: MicroBatch, read: Tensor) -> Terms:
        """What an objective sees of a forward pass over a batch."""

    def check_packing(self) -> None:
        """Raises ValueError where sequences in one row reach each other."""

    def save(self, tokenizer: Any, folder: Path) -> None: ...


class LanguageModel:
    """Whole and in fp32, an adapter in ``source`` merged into it; or with an adapter to fit on a frozen base.

    An adapter in ``source`` is continued, on any other checkpoint a fresh one begins.
    """

    cut = False

    def __init__(
        self, source: Path, lora: Lora | None, compute: torch.dtype, device: str, temperature: float = 1.0
    ) -> None:
        self.adapter: adapters.Adapter | None = None
        self._temperature = temperature
        if lora is None:
            self.model: Any = export.merged(source, device=device)[0]
        else:
            base = adapters.adapter_base(source)
            dtype = str(compute).removeprefix("torch.")
            self.model = checkpoint.load_model(base or source, dtype=dtype, device=device, nf4=lora.base == "nf4")
            wrapper = adapters.trainable(self.model, lora, source if base else None)
            self.adapter = adapters.Adapter(wrapper, base or source)
        self.backbone = self.model
        check_head(self.model)

    def inputs(self, batch: MicroBatch) -> tuple[Tensor | None, ...]:
        return batch.input_ids, batch.position_ids, batch.positions.index, batch.positions.targets

    def read(self, *inputs: Any, lengths: tuple[int, ...] = ()) -> Tensor:
        input_ids, position_ids, index, targets = inputs
        places = Positions(index, targets)
        return batch_logprobs(
            self.model, input_ids, position_ids, places, self._temperature, lengths=lengths, cut=self.cut
        )

    def terms(self, batch: MicroBatch, read: Tensor) -> Terms:
        return replace(batch.terms, logprobs=read)

    def check_packing(self) -> None:
        check_packing(self.model)

    def save(self, tokenizer: Any, folder: Path) -> None:
        checkpoint.save(self.model, tokenizer, folder, self.adapter)


class ValueLearner:
    """A backbone and its head, both fitted.

    Args:
        head: form of a fresh head, where ``source`` has none.
        seed: of a fresh head.
    """

    cut = False

    def __init__(self, source: Path, head: HeadForm | None, device: str, seed: int = 0) -> None:
        self.model: Any = heads.load_value_model(source, head, dtype="float32", device=device, seed=seed)
        self.backbone = self.model.backbone

    def inputs(self, batch: MicroBatch) -> tuple[Tensor | None, ...]:
        return batch.input_ids, batch.position_ids, batch.value_positions

    def read(self, *inputs: Any, lengths: tuple[int, ...] = ()) -> Tensor:
        values: Tensor = self.model.raw(*inputs, lengths)
        return values

    def terms(self, batch: MicroBatch, read: Tensor) -> Terms:
        return replace(batch.terms, values=read)

    def check_packing(self) -> None:
        check_packing(self.backbone)

    def save(self, tokenizer: Any, folder: Path) -> None:
        heads.save_value_model(self.model, tokenizer, folder)


@dataclass(frozen=True)
class Start:
    """What a fit begins with."""

    source: Path
    compute: torch.dtype
    """Type of the computation."""
    values: bool = False
    """Whether it is a value model."""
    lora: Lora | None = None
    head: HeadForm | None = None
    temperature: float = 1.0
    seed: int = 0

    def at(self, source: Path) -> Start:
        """With what lies in a checkpoint of the same model."""
        return replace(self, source=source, head=None if has_value_head(source) else self.head)

    def opened(self, device: str) -> Learnt:
        """The model on a device; raises OSError, ValueError, RuntimeError where it does not load."""
        if self.values:
            return ValueLearner(self.source, self.head, device, self.seed)
        return LanguageModel(self.source, self.lora, self.compute, device, self.temperature)


def seen(learnt: Learnt, batch: MicroBatch) -> Terms:
    """What an objective sees of a batch, by one forward pass."""
    return learnt.terms(batch, learnt.read(*learnt.inputs(batch), lengths=batch.lengths))


def fitted(learnt: Learnt) -> dict[str, torch.nn.Parameter]:
    """The parameters that are fitted, by name."""
    return {name: p for name, p in learnt.model.named_parameters() if p.requires_grad}
