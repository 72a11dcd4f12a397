"""Losses on pairs of a chosen and a rejected response, as pure functions of the sums a pair comes to.

``margin`` is ``D = h_w - h_l`` with ``h`` the log-ratio of a response, ``sum_t log pi(y_t) - log pi_ref(y_t)``:
``[P]``, in nats. Every function gives ``[P]``, one loss per pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def dpo_loss(margin: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """-(1 - e) log s(beta D) - e log s(-beta D): DPO (Rafailov et al. 2023, equation 7) for e = 0, else the
    conservative DPO of Mitchell 2023, least at beta D = log((1 - e) / e)."""
    from torch.nn.functional import logsigmoid

    return -(1.0 - smoothing) * logsigmoid(beta * margin) - smoothing * logsigmoid(-beta * margin)


def robust_dpo_loss(margin: Tensor, beta: float, noise: float) -> Tensor:
    """[-(1 - e) log s(beta D) + e log s(-beta D)] / (1 - 2e): unbiased where a share e of the labels is flipped
    (Chowdhury et al. 2024, equation 9)."""
    from torch.nn.functional import logsigmoid

    kept, flipped = (1.0 - noise) * logsigmoid(beta * margin), noise * logsigmoid(-beta * margin)
    return (flipped - kept) / (1.0 - 2.0 * noise)


def ipo_loss(margin: Tensor, tau: float) -> Tensor:
    """(D - 1 / (2 tau))^2 (Azar et al. 2023, equation 17)."""
    return (margin - 1.0 / (2.0 * tau)) ** 2


def slic_loss(margin: Tensor, beta: float) -> Tensor:
    """max(0, 1 - beta D): SLiC's hinge (Zhao et al. 2023) on log-ratios, as Liu et al. 2024 ("RSO", equation 7) put
    it."""
    return (1.0 - beta * margin).clamp(min=0.0)


def nca_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log s(r_w) - log s(-r_w) / 2 - log s(-r_l) / 2 with r = beta h (Chen et al. 2024, "Noise Contrastive Alignment",
    equation 12 for two responses). Unlike DPO's, it holds the chosen one's likelihood up by itself."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def simpo_loss(chosen: Tensor, rejected: Tensor, beta: float, gamma: float) -> Tensor:
    """-log s(beta (m_w - m_l) - gamma) with m a response's mean token log-probability (Meng et al. 2024, equation 6).

    ``gamma`` is the margin itself, as in the paper and in TRL; the authors' code is given gamma / beta.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * (chosen - rejected) - gamma)


def orpo_ratio_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log s(log odds_w - log odds_l), odds = p / (1 - p) of p = exp(mean token log-probability) (Hong et al. 2024,
    equations 4 and 7)."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(log_odds(chosen) - log_odds(rejected))


def log_odds(logprob: Tensor) -> Tensor:
    """log(p / (1 - p)) of log p, finite also where p rounds to 1."""
    import torch

    below = logprob.clamp(max=-torch.finfo(logprob.dtype).eps)
    # log(1 - p) loses all digits as p nears 1, and log1p(-p) as p nears 0 does not; each where it is exact.
    near_one = below > -0.6931472
    rest = torch.where(
        near_one,
        torch.log(-torch.expm1(torch.where(near_one, below, torch.full_like(below, -0.5)))),
        torch.log1p(-torch.exp(torch.where(near_one, torch.full_like(below, -1.0), below))),
    )
    return below - rest
