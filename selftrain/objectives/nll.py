"""Negative log-likelihood of accepted responses: the M-step of ReST-EM (Singh et al. 2023, eq. 3) and of SFT.

With one gradient step per round and every accepted sample weighted alike, its gradient is 1/acceptance times that of
REINFORCE with rewards 0 and 1, so as acceptance rises the effective learning rate falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from selftrain.objectives.terms import Loss, Terms, Totals


@dataclass(frozen=True)
class NLL:
    """Options of the objective."""

    normalise: Literal["tokens", "sequences"] = "tokens"
    """What the sum over a whole step is divided by: the tokens that carry loss, or the examples."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        """- sum_t w_t log p(y_t | x, y_<t) / N."""
        count = totals.tokens if self.normalise == "tokens" else totals.sequences
        return Loss(-(terms.weights[terms.sequences] * terms.logprobs).sum() / max(1, count))
