"""Policy gradients on sampled responses, with an advantage for every token.

What the sum over tokens is divided by decides how much long responses count: ``token_mean`` (DAPO, Yu et al. 2025,
equation 8) counts every token of the step alike; ``sequence_mean`` (GRPO, Shao et al. 2024, equation 3) every
response, so that tokens of long ones count less; ``constant`` (Dr. GRPO, Liu et al. 2025, section 3.2) divides by
responses times a constant length, so that no token's weight depends on any length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from selftrain.objectives.terms import Loss, Mean, Terms, Totals
from selftrain.ranges import BelowOne, Count, NotNegative

if TYPE_CHECKING:
    from torch import Tensor

Aggregate = Literal["token_mean", "sequence_mean", "constant"]


def clipped_surrogate(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """-min(ratio A, clip(ratio, 1 - low, 1 + high) A) (Schulman et al. 2017, equation 7), ``[N]``.

    Bounds of their own for the two sides are DAPO's clip-higher (Yu et al. 2025, equation 10).
    """
    import torch

    return -torch.minimum(ratio * advantages, ratio.clamp(1.0 - low, 1.0 + high) * advantages)


def divergence(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimate of KL(pi || pi_ref) at each token sampled from pi, ``[N]``: exp(-d) + d - 1, d = log pi - log pi_ref.

    Never negative, and unbiased (Schulman 2020, "Approximating KL Divergence", k3).
    """
    difference = reference - logprobs
    return difference.expm1() - difference


def aggregated(terms: Terms, totals: Totals, losses: Tensor, how: Aggregate, length: int) -> Tensor:
    """``[N]`` to this pass's part of the step's loss."""
    if how == "sequence_mean":
        return (terms.weights * terms.means(losses)).sum() / max(1, totals.sequences)
    weighted = (terms.weights[terms.sequences] * losses).sum()
    return weighted / max(1, totals.tokens if how == "token_mean" else totals.sequences * length)


@dataclass(frozen=True)
class PPOClip:
    """Proximal policy optimisation's clipped surrogate, without a value model."""

    clip: tuple[BelowOne, NotNegative] = (0.2, 0.2)
    """How far the ratio may fall and rise before a token teaches no more; DAPO: [0.2, 0.28]."""
    aggregate: Aggregate = "token_mean"
    length: Count = 1024
    """With ``constant``: the length the sum is divided by, such as the longest a response may be."""
    kl: NotNegative = 0.0
    """Weight of the divergence from the reference."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"advantages", "old"} | ({"reference"} if self.kl else set()))

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        assert terms.advantages is not None and terms.old is not None
        change = terms.logprobs - terms.old
        ratio = change.exp()
        losses = clipped_surrogate(ratio, terms.advantages, *self.clip)
        measures = _told(terms, ratio.detach(), losses.detach())
        if self.kl and terms.reference is not None:
            spread = divergence(terms.logprobs, terms.reference)
            losses = losses + self.kl * spread
            measures["kl to reference"] = Mean(spread.detach().sum(), float(len(spread)))
        return Loss(aggregated(terms, totals, losses, self.aggregate, self.length), measures)


@dataclass(frozen=True)
class Reinforce:
    """- A log p: the plain policy gradient (Williams 1992), for samples of the very weights that are fitted."""

    aggregate: Aggregate = "token_mean"
    length: Count = 1024
    """With ``constant``: the length the sum is divided by."""

    needs: ClassVar[frozenset[str]] = frozenset({"advantages"})

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        assert terms.advantages is not None
        losses = -terms.advantages * terms.logprobs
        return Loss(aggregated(terms, totals, losses, self.aggregate, self.length))


def _told(terms: Terms, ratio: Tensor, losses: Tensor) -> dict[str, Mean]:
    assert terms.advantages is not None and terms.old is not None
    count = float(len(ratio))
    bound = losses > -(ratio * terms.advantages)  # Where the clip bites.
    return {
        "ratio": Mean(ratio.sum(), count),
        "clipped": Mean(bound.float().sum(), count),
        "kl to old": Mean(divergence(terms.old, terms.logprobs.detach()).sum(), count),
        "surprise": Mean(-terms.logprobs.detach().sum(), count),
    }
