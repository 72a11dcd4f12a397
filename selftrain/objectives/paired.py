"""Objectives that learn from pairs: what they share is here, the equations are in `selftrain.objectives.preference`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from selftrain.objectives.preference import (
    dpo_loss,
    ipo_loss,
    nca_loss,
    orpo_ratio_loss,
    robust_dpo_loss,
    simpo_loss,
    slic_loss,
)
from selftrain.objectives.terms import Loss, Mean, Terms, Totals
from selftrain.ranges import BelowHalf, NotNegative, Positive

if TYPE_CHECKING:
    from torch import Tensor

PAIRS, REFERENCE = "pairs", "reference"


@dataclass(frozen=True)
class Sides:
    """The two sides of every pair of a forward pass, ``[P]`` each."""

    chosen: Tensor
    rejected: Tensor

    @classmethod
    def of(cls, terms: Terms, values: Tensor) -> Sides:
        """From one value per sequence, ``[S]``."""
        assert terms.pairs is not None
        return cls(values[terms.pairs[:, 0]], values[terms.pairs[:, 1]])

    @property
    def margin(self) -> Tensor:
        return self.chosen - self.rejected


def log_ratios(terms: Terms) -> Tensor:
    """``[N]`` log pi(y_t) - log pi_ref(y_t)."""
    assert terms.reference is not None
    return terms.logprobs - terms.reference


def over_pairs(terms: Terms, totals: Totals, losses: Tensor, rewards: Sides, likelihood: float = 0.0) -> Loss:
    """The mean over pairs, each by its chosen side's weight, and what is told of them.

    Args:
        losses: ``[P]``.
        rewards: beta h of each side, or what stands for it where there is no reference.
        likelihood: weight of the chosen responses' negative log-likelihood per token beside it (Pang et al. 2024,
            "Iterative Reasoning Preference Optimization", equation 1).
    """
    logprobs = Sides.of(terms, terms.sums(terms.logprobs))
    if likelihood:
        losses = losses - likelihood * Sides.of(terms, terms.means(terms.logprobs)).chosen
    weights = Sides.of(terms, terms.weights).chosen
    value = (weights * losses).sum() / max(1, totals.pairs)
    margin, count = rewards.margin.detach(), float(len(losses))
    measures = {
        # A tie is no preference: half right.
        "reward accuracy": Mean((margin > 0).float().sum() + 0.5 * (margin == 0).float().sum(), count),
        "margin": Mean(margin.sum(), count),
        "chosen reward": Mean(rewards.chosen.detach().sum(), count),
        "rejected reward": Mean(rewards.rejected.detach().sum(), count),
        "chosen logprob": Mean(logprobs.chosen.detach().sum(), count),
        "rejected logprob": Mean(logprobs.rejected.detach().sum(), count),
    }
    return Loss(value, measures)


@dataclass(frozen=True)
class DPO:
    """Direct preference optimisation; with ``nll`` the iterative reasoning preference optimisation of Pang et al."""

    beta: Positive = 0.1
    smoothing: BelowHalf = 0.0
    """Share of the labels taken to be wrong (conservative DPO)."""
    nll: NotNegative = 0.0
    """Weight of the chosen responses' negative log-likelihood per token: 1 in iterative RPO. Without it the likelihood
    of chosen solutions commonly falls."""

    needs: ClassVar[frozenset[str]] = frozenset({PAIRS, REFERENCE})

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        ratios = Sides.of(terms, terms.sums(log_ratios(terms)))
        losses = dpo_loss(ratios.margin, self.beta, self.smoothing)
        return over_pairs(terms, totals, losses, _scaled(ratios, self.beta), self.nll)


@dataclass(frozen=True)
class RobustDPO:
    """DPO, unbiased where a known share of the labels is flipped."""

    beta: Positive = 0.1
    noise: BelowHalf = 0.1
    """That share."""

    needs: ClassVar[frozenset[str]] = frozenset({PAIRS, REFERENCE})

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        ratios = Sides.of(terms, terms.sums(log_ratios(terms)))
        return over_pairs(
            terms, totals, robust_dpo_loss(ratios.margin, self.beta, self.noise), _scaled(ratios, self.beta)
        )


@dataclass(frozen=True)
class IPO:
    """Identity preference optimisation, on log-ratios per token: its authors say that the paper's results are."""

    tau: Positive = 0.1

    needs: ClassVar[frozenset[str]] = frozenset({PAIRS, REFERENCE})

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        ratios = Sides.of(terms, terms.means(log_ratios(terms)))
        return over_pairs(terms, totals, ipo_loss(ratios.margin, self.tau), _scaled(ratios, self.tau))


@dataclass(frozen=True)
class SLiC:
    """Sequence likelihood calibration: a hinge on the margin."""

    beta: Positive = 0.1

    needs: ClassVar[frozenset[str]] = frozenset({PAIRS, REFERENCE})

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        ratios = Sides.of(terms, terms.sums(log_ratios(terms)))
        return over_pairs(terms, totals, slic_loss(ratios.margin, self.beta), _scaled(ratios, self.beta))


@dataclass(frozen=True)
class NCA:
    """Noise contrastive alignment of two responses."""

    beta: Positive = 0.05

    needs: ClassVar[frozenset[str]] = frozenset({PAIRS, REFERENCE})

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        rewards = _scaled(Sides.of(terms, terms.sums(log_ratios(terms))), self.beta)
        return over_pairs(terms, totals, nca_loss(rewards.chosen, rewards.rejected), rewards)


@dataclass(frozen=True)
class SimPO:
    """Simple preference optimisation: mean token log-probabilities, no reference."""

    beta: Positive = 2.0
    gamma: NotNegative = 1.0
    """The margin, in the units of beta times a mean log-probability."""

    needs: ClassVar[frozenset[str]] = frozenset({PAIRS})

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        means = Sides.of(terms, terms.means(terms.logprobs))
        losses = simpo_loss(means.chosen, means.rejected, self.beta, self.gamma)
        return over_pairs(terms, totals, losses, _scaled(means, self.beta))


@dataclass(frozen=True)
class ORPO:
    """Odds ratio preference optimisation: the chosen response's likelihood and the ratio of odds, no reference."""

    ratio: Positive = 0.1
    """Weight of the ratio's loss (lambda in the paper) beside the negative log-likelihood per token."""

    needs: ClassVar[frozenset[str]] = frozenset({PAIRS})

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        means = Sides.of(terms, terms.means(terms.logprobs))
        losses = self.ratio * orpo_ratio_loss(means.chosen, means.rejected)
        return over_pairs(terms, totals, losses, _scaled(means, self.ratio), likelihood=1.0)


def _scaled(sides: Sides, beta: float) -> Sides:
    return Sides(beta * sides.chosen, beta * sides.rejected)
