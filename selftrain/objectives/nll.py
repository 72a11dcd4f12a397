"""Negative log-likelihood of accepted responses: the M-step of ReST-EM (Singh et al. 2023, eq. 3) and of SFT.

With one gradient step per round and every accepted sample weighted alike, its gradient is 1/acceptance times that of
REINFORCE with rewards 0 and 1, so as acceptance rises the effective learning rate falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NLL:
    """Options of the objective."""

    normalise: Literal["tokens", "sequences"] = "tokens"
    """What the sum over a whole step is divided by: the tokens that carry loss, or the examples."""

    def loss(self, logprobs: Tensor, weights: Tensor, *, tokens: int, sequences: int) -> Tensor:
        """- sum_t w_t log p(y_t | x, y_<t) / N.

        Args:
            logprobs: ``[N]`` of one forward pass.
            weights: ``[N]``.
            tokens: tokens that carry loss in the whole step.
            sequences: examples in the whole step.

        Returns:
            This pass's part of the step's loss; the parts add up to it, however the step is cut. 0 where no token
            carries loss.
        """
        return -(weights * logprobs).sum() / max(1, tokens if self.normalise == "tokens" else sequences)
