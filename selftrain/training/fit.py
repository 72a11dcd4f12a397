"""Fit one learner to examples: from a checkpoint and a list of examples to a new checkpoint and a log."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from selftrain.digests import contents_digest
from selftrain.models.head_form import HeadForm
from selftrain.places import Places
from selftrain.schema import Gap, Kernels, Lora, Optim, Trainer
from selftrain.training import state
from selftrain.training.data import MicroBatch, length, micro_batches, units
from selftrain.training.divergence import apart, divergence
from selftrain.training.engine import Engine, Objective, Step, TorchEngine
from selftrain.training.gap import on_own_terms
from selftrain.training.needs import check_needs, check_partners
from selftrain.training.schedule import epochs_to_steps, schedule
from selftrain.training.unfinished import Unfinished, identity
from selftrain.types import Example


@dataclass(frozen=True)
class Fitted:
    """State of a fit after a step."""

    step: int
    steps: int
    last: Step
    validation: float | None = None
    """Loss on the held-out problems, where this step looked."""
    stopped: bool = False
    """Whether the fit is to end here, before its last step."""
    unwritten: str = ""
    """Why where it stands is not written, where it is to end here."""


@dataclass(frozen=True)
class Fit:
    """What a fit is asked for, beside its examples."""

    source: Path
    """Checkpoint to train from."""
    target: Path
    """Folder the trained one is saved to."""
    log: Path
    objective: Objective
    optim: Optim
    seed: int
    lora: Lora | None = None
    """Train and save an adapter, that of ``source`` where it holds one."""
    head: HeadForm | None = None
    """Of a fresh value head, for objectives that read values; None where ``source`` has one."""
    temperature: float = 1.0
    """Of the distribution whose log-probabilities the objective sees: that of the sampling, for policy gradients."""
    gap: Gap = field(default_factory=Gap)
    span: int | None = None
    """Steps the schedule spans, where it goes on from fit to fit; None: those of this one."""
    state: Path | None = None
    """The optimizer's state to go on with; None: it begins anew."""
    keep_state: Path | None = None
    """Where the optimizer's state is written."""
    resident: Resident | None = None
    """Holds the trainer from one fit to the next."""
    reference: str = ""
    """Whose log-probabilities the examples bring, by the name the config gives it."""
    held_out: Sequence[Example] = ()
    """For validation, beside the share that ``optim`` holds out of the examples."""
    kernels: Kernels = field(default_factory=Kernels)
    """What it computes with."""
    trainer: Trainer = field(default_factory=Trainer)
    """What fits, and how often it writes where it stands."""
    places: Places | None = None
    """Where the processes of a trainer that has several run; None: on this machine."""
    unfinished: Path | None = None
    """Folder of what a fit that is killed goes on from, left there; None: nothing is kept."""
    stopping: Callable[[], bool] = lambda: False
    """Whether the fit was asked to stop."""


@dataclass
class Resident:
    """A trainer that stays in memory."""

    engine: Engine | None = None
    """None before the first fit, and where one failed."""

    def take(self) -> Engine | None:
        """The trainer, which is no longer held: a fit that fails leaves it in no state to go on from."""
        engine, self.engine = self.engine, None
        return engine

    def close(self) -> None:
        """End what is held."""
        if (engine := self.take()) is not None:
            engine.close()


def opened(asked: Fit, steps: int) -> Engine:
    """The trainer at ``source``, its optimizer where the last fit left it or new."""
    engine = asked.resident.take() if asked.resident else None
    if engine is not None:
        if asked.span is None:
            engine.begin(steps)
        return engine
    engine = _engine(asked, asked.span or steps)
    if asked.state is not None:
        engine.load_state(asked.state)
    return engine


def _engine(asked: Fit, steps: int) -> Engine:
    start: dict[str, Any] = {name: getattr(asked, name) for name in ("lora", "temperature", "head", "seed")}
    if asked.trainer.engine == "torch":
        return TorchEngine(asked.source, asked.objective, asked.optim, steps=steps, kernels=asked.kernels, **start)
    from selftrain.training.zero.engine import DeepSpeedEngine, start_of

    places = asked.places
    begins = start_of(asked.source, asked.objective, asked.optim, places=places, **start)
    return DeepSpeedEngine(begins, asked.objective, asked.optim, steps=steps, trainer=asked.trainer, places=places)


def fit(examples: Sequence[Example], asked: Fit) -> Iterator[Fitted]:
    """Train and save; yields after every step.

    Args:
        examples: with their partners, where the objective reads a divergence (`selftrain.training.divergence`).

    Raises:
        ValueError: there are no examples, they lack what the objective reads, or the loss is not finite.
    """
    optim = asked.optim
    examples, partners = apart(examples)
    check_needs(examples, asked.objective.needs)
    check_partners(examples, partners, asked.objective.needs)
    training, held_out = hold_out(examples, optim.validation.fraction)
    beside, held_out_beside = hold_out(partners, optim.validation.fraction)
    if not training:
        raise ValueError("there are no examples to fit")
    together = units(training)
    lengths = [max(length(training[i]) for i in unit) for unit in together]
    steps = optim.steps or epochs_to_steps(len(together), optim.batch_size, optim.epochs)
    torch.manual_seed(asked.seed)
    with TemporaryDirectory(prefix="selftrain-fit-") as spare, ExitStack() as held:
        engine = held.enter_context(closing(opened(asked, steps)))
        training, told = prepared(engine, training, asked.gap)
        given, given_beside = apart(asked.held_out)
        held_out, _ = prepared(engine, [*held_out, *given], asked.gap)
        held_out_beside += given_beside
        behind = Unfinished(asked.unfinished or Path(spare), partial(_identity, asked, [*examples, *partners]))
        begun = behind.resume(engine, asked.log)
        best, left = behind.best, schedule(lengths, optim.batch_size, steps, asked.seed)
        with asked.log.open("a") as journal:
            for number, batch in enumerate(islice(left, begun, None), begun + 1):
                chosen = [i for unit in batch for i in together[unit]]
                z = _divergence(engine, [beside[i] for i in chosen] if beside else [])
                done = engine.step(_lay_out(engine, [training[i] for i in chosen], optim), z)
                if not (math.isfinite(done.loss) and math.isfinite(done.grad_norm)):
                    raise ValueError(f"the loss is not finite at step {number}; lower optim.lr, or compute in float32")
                looking = held_out and (number % optim.validation.every == 0 or number == steps)
                validation = validation_loss(engine, held_out, optim, held_out_beside) if looking else None
                journal.write(json.dumps({"step": number, **logged(done), **told, "validation": validation}) + "\n")
                if validation is not None and best.better(validation):
                    behind.keep_weights(engine)
                over = number == steps or best.looks >= optim.validation.patience
                stopped, unwritten = not over and asked.stopping(), ""
                if not over and _due(asked, number, stopped):
                    journal.flush()
                    unwritten = _written(behind, engine, number, asked)
                yield Fitted(number, steps, done, validation, stopped, unwritten)
                if over:
                    break
        behind.take_best(engine)
        engine.save(asked.target, asked.source)
        if asked.keep_state is not None:
            engine.save_state(asked.keep_state, state.MOMENTS)
        if asked.resident is not None:
            asked.resident.engine = engine
            held.pop_all()


def _due(asked: Fit, number: int, stopped: bool) -> bool:
    """Whether where the fit stands is written after this step."""
    every = asked.trainer.save_every
    return asked.unfinished is not None and (stopped or (every is not None and number % every == 0))


def _written(behind: Unfinished, engine: Engine, number: int, asked: Fit) -> str:
    """Write where the fit stands; why it is not, where nobody said how often and there is no room for it."""
    try:
        behind.save(engine, number, asked.log)
    except OSError as error:
        if asked.trainer.save_every:
            raise
        return error.strerror or str(error)
    return ""


def _identity(asked: Fit, examples: Sequence[Example]) -> str:
    begun = contents_digest(asked.source) if asked.source.exists() else str(asked.source)
    own = (begun, asked.objective, asked.reference, asked.lora, asked.head, asked.temperature, asked.gap, asked.span)
    return identity([*examples, *asked.held_out], asked.optim, *own, asked.seed)


def prepared(engine: Engine, examples: list[Example], gap: Gap) -> tuple[list[Example], dict[str, float]]:
    """Examples with what is computed from the weights before the first step, and what is told of that."""
    if "old" not in engine.needs or not examples:
        return examples, {}
    return on_own_terms(examples, engine.logprobs(examples), gap)


def logged(step: Step) -> dict[str, float]:
    """A step as a flat line of the log."""
    own = asdict(step)
    measures = own.pop("measures")
    return {**own, **measures}


def hold_out(examples: Sequence[Example], fraction: float) -> tuple[list[Example], list[Example]]:
    """Split by problem, by a hash of its id, so that a problem stays on its side in every iteration."""
    bound = int(fraction * 2**32)
    sides: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        place = int.from_bytes(hashlib.sha256(example.problem_id.encode()).digest()[:4], "big")
        sides[place < bound].append(example)
    return sides


def validation_loss(
    engine: Engine, held_out: Sequence[Example], optim: Optim, partners: Sequence[Example] = ()
) -> float:
    """The objective over all held-out examples, as if they were one step."""
    return engine.evaluate(_lay_out(engine, held_out, optim), _divergence(engine, partners))


def _divergence(engine: Engine, partners: Sequence[Example]) -> float:
    return divergence(partners, engine.logprobs(partners)) if partners else 0.0


def _lay_out(engine: Engine, examples: Sequence[Example], optim: Optim) -> list[MicroBatch]:
    return micro_batches(
        examples,
        batching=optim.batching,
        max_tokens=optim.micro_tokens,
        pad=engine.tokenizer.pad_token_id or 0,
        shares=engine.shares,
    )
