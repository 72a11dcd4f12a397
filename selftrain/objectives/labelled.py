"""Objectives that learn a reward from labels of whole responses: the log-ratio to the reference *is* the reward.

``r(y) = beta sum_t log pi(y_t) - log pi_ref(y_t)`` (Yuan et al. 2024, "Free Process Rewards without Process Labels",
proposition 3.1); every token's share in the sum then is its process reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from selftrain.objectives.paired import REFERENCE, log_ratios
from selftrain.objectives.terms import Loss, Mean, Terms, Totals
from selftrain.ranges import NotNegative, Positive

if TYPE_CHECKING:
    from torch import Tensor

LABELS, DIVERGENCE = "labels", "divergence"


def implicit_ce_loss(reward: Tensor, label: Tensor) -> Tensor:
    """-[l log s(r) + (1 - l) log(1 - s(r))], ``[S]`` (equation 5 there, whose print lacks the minus); labels may be
    soft.

    From the reward itself: s(r) first rounds to 0 or 1 and gives an infinite loss.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(reward, label, reduction="none")


def kto_loss(ratio: Tensor, label: Tensor, beta: float, z: float, desirable: float, undesirable: float) -> Tensor:
    """w_D [1 - s(beta (h - z))] for label 1, w_U [1 - s(beta (z - h))] for label 0, ``[S]`` (Ethayarajh et al. 2024,
    equation 7); a soft label mixes the two."""
    gain = beta * (ratio - z)
    return desirable * label * (-gain).sigmoid() + undesirable * (1.0 - label) * gain.sigmoid()


def over_sequences(terms: Terms, totals: Totals, losses: Tensor, rewards: Tensor) -> Loss:
    """The mean over sequences by their weights, and what is told of them."""
    labels = terms.labels
    assert labels is not None
    rewards, right, count = rewards.detach(), (labels >= 0.5).float(), float(len(losses))
    sure = (rewards > 0).float() * right + (rewards < 0).float() * (1.0 - right) + 0.5 * (rewards == 0).float()
    measures = {
        "reward accuracy": Mean(sure.sum(), count),
        "right reward": Mean((rewards * right).sum(), right.sum()),
        "wrong reward": Mean((rewards * (1.0 - right)).sum(), count - right.sum()),
    }
    return Loss((terms.weights * losses).sum() / max(1, totals.sequences), measures)


@dataclass(frozen=True)
class ImplicitCE:
    """Cross-entropy of the implicit reward against the outcome."""

    beta: Positive = 0.05

    needs: ClassVar[frozenset[str]] = frozenset({LABELS, REFERENCE})

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        assert terms.labels is not None
        rewards = self.beta * terms.sums(log_ratios(terms))
        return over_sequences(terms, totals, implicit_ce_loss(rewards, terms.labels), rewards)


@dataclass(frozen=True)
class KTO:
    """Kahneman-Tversky optimisation: right and wrong responses need not come in pairs."""

    beta: Positive = 0.1
    desirable: NotNegative = 1.0
    """Weight of right responses; its share of the whole, by numbers, is best between 1 and 4/3 of the wrong ones'."""
    undesirable: NotNegative = 1.0

    needs: ClassVar[frozenset[str]] = frozenset({LABELS, REFERENCE, DIVERGENCE})

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        assert terms.labels is not None
        ratios, z = terms.sums(log_ratios(terms)), totals.divergence
        losses = kto_loss(ratios, terms.labels, self.beta, z, self.desirable, self.undesirable)
        found = over_sequences(terms, totals, losses, self.beta * ratios)
        return Loss(found.value, {**found.measures, "divergence": Mean(z, 1.0)})
