"""What tests of trainers share: examples of unequal lengths, steps of any engine over them, and what makes two fits the
same."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from scored import END

from selftrain.schema import Optim
from selftrain.training import state
from selftrain.training.data import micro_batches
from selftrain.training.engine import Engine, Objective, Step, TorchEngine
from selftrain.types import Example

OPTIM = Optim(lr=1e-4, schedule="constant", warmup=0.0, dtype="float32", clip=0.5, weight_decay=0.1, micro_tokens=100)
STEPS, FEW, BATCH = 20, 6, 10
Weights = dict[str, torch.Tensor]


def made(number: int) -> Example:
    rng = random.Random(number)
    prompt, response = (tuple(rng.randrange(16) for _ in range(rng.randint(1, 25))) for _ in range(2))
    return Example(f"e{number}", f"p{number}", "own", prompt, (*response, END), weight=rng.choice((0.5, 1.0, 2.0)))


EXAMPLES = [made(number) for number in range(60)]


def batch(number: int, examples: Sequence[Example] = EXAMPLES) -> list[Example]:
    return [examples[(number * 6 + place) % len(examples)] for place in range(BATCH)]


def steps(engine: Engine, numbers: range, examples: Sequence[Example] = EXAMPLES) -> list[Step]:
    taken = []
    for number in numbers:
        laid = micro_batches(
            batch(number, examples), batching="bucketed", max_tokens=OPTIM.micro_tokens, pad=0, shares=engine.shares
        )
        taken.append(engine.step(laid))
    return taken


def weights(engine: Engine, like: Weights, folder: Path) -> Weights:
    """The fitted parameters, as a state on disk holds them."""
    engine.save_state(folder, state.WEIGHTS)
    with state.Saved(folder, {name: tensor.shape for name, tensor in like.items()}) as saved:
        return {name: saved.get("weight", name) for name in like}


def assert_same(found: Weights, expected: Weights, before: Weights) -> None:
    """Apart by less than a thousandth of how far they moved, and nowhere by 1e-5."""

    def flat(some: Weights) -> torch.Tensor:
        return torch.cat([some[name].flatten() for name in sorted(expected)])

    apart, moved = flat(found) - flat(expected), flat(expected) - flat(before)
    assert moved.norm() > 0.01
    assert apart.norm() < 1e-3 * moved.norm(), (apart.norm(), moved.norm())
    assert apart.abs().max() < 1e-5


def assert_same_steps(found: Sequence[Step], expected: Sequence[Step]) -> None:
    for own, wanted in zip(found, expected, strict=True):
        assert own.loss == pytest.approx(wanted.loss, rel=1e-4)
        assert own.grad_norm == pytest.approx(wanted.grad_norm, rel=1e-3)
        assert (own.lr, own.tokens, own.loss_tokens) == (wanted.lr, wanted.tokens, wanted.loss_tokens)
        assert own.measures == pytest.approx(wanted.measures, rel=1e-3, abs=1e-4)


class Single:
    """What one process makes of the same steps."""

    def __init__(
        self, source: Path, objective: Objective, examples: Sequence[Example], count: int = FEW, **start: Any
    ) -> None:
        torch.manual_seed(0)
        self.engine = TorchEngine(source, objective, OPTIM, steps=STEPS, device="cpu", **start)
        self.before = self.engine.weights()
        self.taken = steps(self.engine, range(count), examples)
        self.after = self.engine.weights()
