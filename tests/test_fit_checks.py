"""Examples that a fit refuses, each by a message that names what is wrong with which, before any model is loaded."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import instantiate
from selftrain.objectives.nll import NLL
from selftrain.objectives.terms import Loss, Terms, Totals
from selftrain.schema import Component, Optim
from selftrain.training.data import micro_batches
from selftrain.training.engine import Objective
from selftrain.training.fit import Fit, fit
from selftrain.types import Example

VALUES = (-1.0, -2.0)
WHOLE = Example(
    "e", "p", "own", (5, 6), (7, 1), label=1.0, advantages=VALUES, old_logprobs=VALUES, reference_logprobs=VALUES
)


def asked(objective: Objective, source: Path, folder: Path) -> Fit:
    return Fit(source, folder / "out", folder / "log", objective, Optim(steps=1, batch_size=1, dtype="float32"), seed=0)


@pytest.mark.parametrize(
    "kind, changes, message",
    [
        ("implicit_ce", {"label": None}, "1 of 2 examples have no label"),
        ("implicit_ce", {"label": 1.5}, "1 labels are not within 0 and 1, such as 1.5"),
        ("implicit_ce", {"label": math.nan}, "not within 0 and 1, such as nan"),
        ("implicit_ce", {"reference_logprobs": None}, "1 of 2 examples have no reference_logprobs"),
        ("implicit_ce", {"reference_logprobs": (-1.0,)}, "example e has 1 reference_logprobs for the 2 tokens"),
        (
            "implicit_ce",
            {"reference_logprobs": (-1.0, math.nan)},
            "example e has reference_logprobs that are not finite",
        ),
        ("reinforce", {"advantages": None}, "1 of 2 examples have no advantages"),
        ("reinforce", {"advantages": (1.0, math.inf)}, "example e has advantages that are not finite"),
        ("ppo_clip", {"old_logprobs": (*VALUES, -3.0)}, "example e has 3 old_logprobs for the 2 tokens"),
        ("nll", {"loss_mask": (True,)}, "example e has 1 loss_mask for the 2 tokens"),
        ("dpo", {}, "2 of 2 examples have no pair_id"),
    ],
)
def test_examples_that_lack_something(tmp_path: Path, kind: str, changes: dict[str, Any], message: str) -> None:
    every = [replace(WHOLE, id="whole"), replace(WHOLE, **changes)]
    with pytest.raises(ValueError, match=message):
        list(fit(every, asked(instantiate("objective", Component(kind)), tmp_path / "no checkpoint", tmp_path)))


def test_a_prompt_without_a_token_has_nothing_to_be_read_from() -> None:
    """The place before its response's first token is that of another sequence."""
    with pytest.raises(ValueError, match="example empty has a prompt without a token"):
        micro_batches([WHOLE, replace(WHOLE, id="empty", prompt_ids=())], batching="packed", max_tokens=99, pad=0)


class Infinite(NLL):
    """Overflows, as half precision does."""

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        return Loss(super().loss(terms, totals).value * math.inf)


def test_an_infinite_loss_ends_a_fit(tiny: Path, tmp_path: Path) -> None:
    """One step later every weight would be not a number."""
    with pytest.raises(ValueError, match="the loss is not finite at step 1"):
        list(fit([WHOLE], asked(Infinite(), tiny, tmp_path)))
