"""How far a policy has moved from its reference whatever the prompt: the point that KTO measures gains and losses from.

z = max(0, mean of log pi(y'|x) - log pi_ref(y'|x)) over responses y' to other problems (Ethayarajh et al. 2024, "KTO:
Model Alignment as Prospect Theoretic Optimization", section 4.1). It is a constant of the step, without a gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from selftrain.types import Example

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

MISMATCHED = "mismatched"


def with_partners(examples: Sequence[Example]) -> list[Example]:
    """The examples, and behind them as many partners in the same order: each one's prompt with the response of one of
    another problem, which carries no loss.

    Every response stands in one partner, as the paper has it: those that are learnt are also those the divergence is
    estimated on. Only where one problem has more than half of the examples do some stand in several. Who meets whom
    follows from the problems' ids and from the order of each problem's own examples.

    Raises:
        ValueError: all examples are of one problem.
    """
    order = sorted(range(len(examples)), key=lambda i: examples[i].problem_id)
    largest = max(Counter(one.problem_id for one in examples).values(), default=0)
    if largest == len(examples) > 0:
        raise ValueError("the divergence is estimated on responses to other problems, and all examples are of one")
    # Nothing is known of positions beyond the longest example: the model may have none.
    longest = max((len(one.prompt_ids) + len(one.response_ids) for one in examples), default=0)
    partners = list(examples)
    for place, i in enumerate(order):
        turned = (order[(place + largest + more) % len(order)] for more in range(len(order)))
        other = next(j for j in turned if examples[j].problem_id != examples[i].problem_id)
        partners[i] = _partner(examples[i], examples[other], longest - len(examples[i].prompt_ids))
    return [*examples, *partners]


def _partner(own: Example, other: Example, room: int) -> Example:
    mask = other.loss_mask
    return Example(
        f"{own.id}/{MISMATCHED}",
        own.problem_id,
        own.source,
        own.prompt_ids,
        other.response_ids[:room],
        loss_mask=None if mask is None else mask[:room],
        role="mismatched",
    )


def apart(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Those that are learnt, and the partners."""
    return (
        [one for one in examples if one.role != MISMATCHED],
        [one for one in examples if one.role == MISMATCHED],
    )


def divergence(partners: Sequence[Example], own: Sequence[NDArray[float32]]) -> float:
    """z, in nats; 0 of none.

    Args:
        partners: with the reference's log-probabilities.
        own: log p of their response tokens under the policy, ``[L]`` each, 0 outside the loss mask.
    """
    if not partners:
        return 0.0
    ratios = [float(mine.sum(dtype=np.float64)) - sum(_reference(one)) for one, mine in zip(partners, own, strict=True)]
    return max(0.0, sum(ratios) / len(ratios))


def _reference(partner: Example) -> Sequence[float]:
    assert partner.reference_logprobs is not None
    if partner.loss_mask is None:
        return partner.reference_logprobs
    return [value for value, learnt in zip(partner.reference_logprobs, partner.loss_mask, strict=True) if learnt]
