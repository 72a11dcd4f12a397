"""What fits a learner: the interface, and the trainer that is one process of plain PyTorch.

Parameters that are fitted and optimizer state are fp32 whatever the compute type is: bf16 weights cannot hold steps of
learning rate 1e-6. bf16 compute is autocast around the forward pass. With LoRA only the adapter is fitted; the frozen
base is held in the compute type. What is fitted may be a language model or a value model (`selftrain.training.learnt`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from selftrain.models import checkpoint
from selftrain.models.head_form import HeadForm
from selftrain.objectives.terms import Loss, Tally, Terms, Totals, read_numbers
from selftrain.objectives.values import VALUES
from selftrain.schema import Kernels, Lora, Optim
from selftrain.seeds import derive
from selftrain.training import kernels as computing
from selftrain.training import state
from selftrain.training.data import MicroBatch, moved, totals
from selftrain.training.learnt import Learnt, Start, fitted, seen
from selftrain.training.scoring import Scores, score
from selftrain.types import Example


class Objective(Protocol):
    """A pure function of log-probabilities, or of values; see `selftrain.objectives`."""

    @property
    def needs(self) -> frozenset[str]:
        """Which of the optional fields of `Terms` it reads, and ``divergence`` of `Totals`."""

    def loss(self, terms: Terms, totals: Totals) -> Loss: ...


@dataclass(frozen=True)
class Step:
    """What one optimizer step did."""

    loss: float
    grad_norm: float
    lr: float
    tokens: int
    """Real tokens read, prompts included."""
    loss_tokens: int
    """Tokens that carry loss; of a value model, targets."""
    measures: dict[str, float] = field(default_factory=dict)
    """What the objective tells beside its loss, as means over the step."""


class Engine(Protocol):
    """What fits a learner, in this process or in others."""

    tokenizer: Any
    device: str
    """Where micro-batches are laid out."""
    shares: int
    """Ranks that the examples of a step are dealt out to."""

    @property
    def needs(self) -> frozenset[str]:
        """What the objective reads."""

    def begin(self, steps: int) -> None:
        """A fresh optimizer, at the first step of a schedule over so many."""

    def step(self, batches: Sequence[MicroBatch], divergence: float = 0.0) -> Step:
        """One optimizer step over the micro-batches of its examples, the same however they are cut and dealt out.

        Args:
            divergence: from the reference, for objectives that read it.
        """

    def evaluate(self, batches: Sequence[MicroBatch], divergence: float = 0.0) -> float:
        """The objective without a step."""

    def logprobs(self, examples: Sequence[Example]) -> list[Scores]:
        """log p of every response token under the weights as they are, ``[L]`` each."""

    def save_state(self, folder: Path, kinds: Sequence[str]) -> None:
        """Write where the fit stands (`selftrain.training.state`): of these kinds of tensors, and of the schedule."""

    def load_state(self, folder: Path) -> None:
        """Go on where `save_state` was; weights alone, where nothing else was written, change nothing else.

        Raises:
            ValueError: it is the state of another model.
        """

    def save(self, folder: Path, like: Path | None = None) -> None:
        """Write the checkpoint; raises ValueError where it does not load back, OSError where the disk is full.

        Args:
            like: a checkpoint of the same model that is still there; what it was begun with where none is given.
        """

    def close(self) -> None:
        """Free what it holds beyond this process."""


class TorchEngine:
    """Plain PyTorch, one process.

    Args:
        kernels: what it computes with.
        learnt: a model that is here already, in place of the one in ``source``, whose tokenizer counts alone.
    """

    shares = 1

    def __init__(  # noqa: PLR0913
        self,
        source: Path,
        objective: Objective,
        optim: Optim,
        *,
        steps: int,
        device: str = "auto",
        lora: Lora | None = None,
        temperature: float = 1.0,
        head: HeadForm | None = None,
        seed: int = 0,
        kernels: Kernels | None = None,
        learnt: Learnt | None = None,
    ) -> None:
        compute = checkpoint.pick_dtype(optim.dtype, checkpoint.pick_device(device))
        start = Start(source, compute, VALUES in objective.needs, lora, head, temperature, seed)
        self.learnt: Learnt = learnt or start.opened(device)
        self.model: Any = self.learnt.model
        self.tokenizer = checkpoint.load_tokenizer(source)
        self.device = str(self.model.device)
        self._objective, self._temperature, self._seed = objective, temperature, seed
        self._optim = optim
        self._compute = None if compute == torch.float32 else compute
        with self._autocast():
            computing.use(self.learnt, kernels or Kernels(), compute, packed=optim.batching == "packed")
        if optim.gradient_checkpointing:
            self.learnt.backbone.gradient_checkpointing_enable({"use_reentrant": False})
        self.model.train()
        self.begin(steps)

    def begin(self, steps: int) -> None:
        self._steps, self._done = steps, 0
        self._optimizer = adamw(self.model, self._optim)

    def save_state(self, folder: Path, kinds: Sequence[str]) -> None:
        state.write(folder, self._tensors(kinds), self._done)

    def _tensors(self, kinds: Sequence[str]) -> Iterator[tuple[str, str, torch.Tensor]]:
        for name, p in fitted(self.learnt).items():
            own = {"weight": p, **self._optimizer.state[p]}
            yield from ((kind, name, own[kind]) for kind in kinds if kind in own)

    def load_state(self, folder: Path) -> None:
        parameters = fitted(self.learnt)
        with state.Saved(folder, {name: p.shape for name, p in parameters.items()}) as saved, torch.no_grad():
            for name, p in parameters.items():
                if "weight" in saved.kinds:
                    p.copy_(saved.get("weight", name))
                if "exp_avg" in saved.kinds:
                    moments = {kind: saved.get(kind, name).to(p.device) for kind in state.MOMENTS}
                    # The fused optimizer counts steps in a tensor beside the parameter.
                    self._optimizer.state[p] = {"step": torch.tensor(float(saved.done), device=p.device), **moments}
            if "exp_avg" in saved.kinds:
                self._done = saved.done

    def step(self, batches: Sequence[MicroBatch], divergence: float = 0.0) -> Step:
        whole = totals(batches, divergence)
        tally = Tally()
        losses = []
        torch.manual_seed(derive(self._seed, self._done, 0))  # Of dropout: a fit that goes on draws what it would have.
        for batch in batches:
            part = self._loss(batch, whole)
            part.value.backward()
            losses.append(part.value.detach())
            tally.add(part.measures)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._optim.clip or math.inf)
        lr = self._optim.lr * lr_factor(self._done, self._steps, self._optim)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._done += 1
        self._optimizer.zero_grad(set_to_none=True)
        # What a GPU computes is read once all of the step is asked for: it would idle at every look in between.
        *parts, size = read_numbers([*losses, norm])
        return Step(sum(parts), size, lr, *sizes(batches, whole, self.needs), tally.means())

    def evaluate(self, batches: Sequence[MicroBatch], divergence: float = 0.0) -> float:
        whole = totals(batches, divergence)
        self.model.eval()
        with torch.no_grad():
            losses = [self._loss(batch, whole).value for batch in batches]
        self.model.train()
        return sum(read_numbers(losses))

    @property
    def needs(self) -> frozenset[str]:
        return self._objective.needs

    def logprobs(self, examples: Sequence[Example]) -> list[Scores]:
        self.model.eval()
        found = score(self.model, examples, temperature=self._temperature, autocast=self._autocast())
        self.model.train()
        return found

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the fitted parameters in the memory of the CPU."""
        return {name: p.detach().to("cpu", copy=True) for name, p in fitted(self.learnt).items()}

    def save(self, folder: Path, like: Path | None = None) -> None:
        self.learnt.save(self.tokenizer, folder)

    def close(self) -> None:
        """Free its memory, on a GPU for other processes too; it is of no use any more."""
        del self.model, self.learnt, self._optimizer
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _loss(self, batch: MicroBatch, whole: Totals) -> Loss:
        with self._autocast():
            terms = seen(self.learnt, moved(batch, self.device))
        return self._objective.loss(terms, whole)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._compute is None:
            return nullcontext()
        kind = self.device.partition(":")[0]
        # Rounded weights are kept for the whole pass by default, 2 bytes each. With gradient checkpointing each is used
        # once in it.
        cached = not (kind == "cuda" and self._optim.gradient_checkpointing)
        return torch.autocast(kind, dtype=self._compute, cache_enabled=cached)


def sizes(batches: Sequence[MicroBatch], whole: Totals, needs: frozenset[str]) -> tuple[int, int]:
    """Tokens of a step, and those that carry loss."""
    return sum(batch.tokens for batch in batches), whole.values if VALUES in needs else whole.tokens


def adamw(model: torch.nn.Module, optim: Optim) -> torch.optim.AdamW:
    groups = decay_groups(model, optim.weight_decay)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True)


def decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; vectors (norms, biases) do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def lr_factor(step: int, steps: int, optim: Optim) -> float:
    """Linear warm-up over a share of the steps, then half a cosine (or nothing) down to ``min_lr`` of the peak."""
    warmup = math.ceil(optim.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    if optim.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return optim.min_lr + (1 - optim.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))
