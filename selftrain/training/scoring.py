"""Log-probabilities of given responses under a checkpoint, token by token: what ratios and rewards are made of.

The same chunked function as the loss reads them, so that a number scored here is the one that is trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selftrain.models import adapters, checkpoint
from selftrain.models.logprobs import batch_logprobs, check_head
from selftrain.training.data import MicroBatch, cut, learnt, padded
from selftrain.types import Example

Scores = NDArray[np.float32]

BATCH_TOKENS = 8192
"""Tokens of one forward pass at most, padding counted."""


class Scorer:
    """One checkpoint in this process, ready to be asked; a context manager that frees its memory.

    Args:
        checkpoint: folder or hub name of a causal language model, or of an adapter on one.
        dtype: of the computation: float32, bfloat16 or auto (bfloat16 on a GPU). Results are fp32.

    Raises:
        OSError, ValueError, RuntimeError: it does not load, or its architecture is unknown.
    """

    def __init__(self, checkpoint_path: Path | str, *, dtype: str = "auto", device: str = "auto") -> None:
        self._model: Any = checkpoint.load_model(checkpoint_path, dtype=dtype, device=device).eval()
        check_head(self._model)

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reload(self, checkpoint_path: Path | str) -> bool:
        """Go on with the weights of another checkpoint of the same model; whether it could be done."""
        return checkpoint.reload_weights(self._model, checkpoint_path)

    def close(self) -> None:
        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def logprobs(self, examples: Sequence[Example], *, temperature: float = 1.0) -> list[Scores]:
        """log p(y_t | x, y_<t) of every response token, the end token included: ``[L]`` each, in the order given.

        Tokens outside the loss mask, which the policy did not write, get 0.

        Args:
            temperature: of the distribution: logits are divided by it.

        Raises:
            ValueError: a log-probability is not a number.
        """
        return whole(examples, self.shared(alone(examples), temperature=temperature))

    def base_logprobs(self, examples: Sequence[Example], *, temperature: float = 1.0) -> list[Scores]:
        """The same of an adapter's base, whose weights are here already."""
        return whole(examples, self.shared(alone(examples), temperature=temperature, base=True))

    def shared(
        self, examples: Sequence[Example], *, temperature: float, base: bool = False, rank: int = 0, ranks: int = 1
    ) -> dict[int, Scores]:
        """What one of several ranks finds: of every so manieth batch, by the place of the example.

        Args:
            examples: as `alone` makes them.
        """
        with adapters.switched_off(self._model) if base else nullcontext():
            return score_batches(self._model, examples, batches(examples)[rank::ranks], temperature)


def score(
    model: Any,
    examples: Sequence[Example],
    *,
    temperature: float = 1.0,
    autocast: AbstractContextManager[Any] | None = None,
) -> list[Scores]:
    """As `Scorer.logprobs`, of a model that is loaded; its mode is the caller's."""
    bare = alone(examples)
    with autocast or nullcontext():
        return whole(examples, score_batches(model, bare, batches(bare), temperature))


def batches(examples: Sequence[Example]) -> list[list[int]]:
    """Indices of the examples of each forward pass; they follow from the examples alone, wherever they are scored."""
    return cut(examples, batching="bucketed", max_tokens=BATCH_TOKENS)


def alone(examples: Sequence[Example]) -> list[Example]:
    """What is scored of examples: a response that is one of a pair may be asked for without the other."""
    return [Example(one.id, "", "", one.prompt_ids, one.response_ids, loss_mask=one.loss_mask) for one in examples]


def score_batches(
    model: Any, examples: Sequence[Example], groups: Sequence[list[int]], temperature: float
) -> dict[int, Scores]:
    """Log-probabilities of the tokens that carry loss of the examples in some batches, by the place of the example."""
    found: dict[int, Scores] = {}
    for group in groups:
        batch = padded(examples, group, 0, model.device)
        with torch.inference_mode():
            values = batch_logprobs(model, batch.input_ids, None, batch.positions, temperature=temperature)
        found.update(zip(group, by_sequence(values, batch), strict=True))
    return found


def whole(examples: Sequence[Example], found: Mapping[int, Scores]) -> list[Scores]:
    """Every response's log-probabilities, ``[L]`` each, 0 where nothing was asked.

    Raises:
        ValueError: one is not a number.
    """
    every = [np.zeros(len(one.response_ids), np.float32) for one in examples]
    for place, own in found.items():
        if not np.isfinite(own).all():
            raise ValueError(
                "the model gives a response a log-probability that is not a number; compute in float32 (reward.dtype, "
                "or of a learner itself optim.dtype), or look for weights that are none"
            )
        every[place][learnt(examples[place])] = own
    return every


def by_sequence(values: torch.Tensor, batch: MicroBatch) -> Iterator[Scores]:
    """What was read of a batch, by sequence; tokens of one stand together."""
    counts = torch.bincount(batch.terms.sequences, minlength=len(batch.examples))
    return (own.numpy() for own in values.float().cpu().split(counts.tolist()))
