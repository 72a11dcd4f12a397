"""Rewards of tokens, steps and whole responses from log-ratios, as pure functions.

``d_t = log pi(y_t | .) - log pi_ref(y_t | .)`` is raw; beta is applied here, once. ``r_t = beta d_t`` is the process
reward of a token, ``q_t = beta sum_{i <= t} d_i`` its value (Yuan et al. 2024, "Free Process Rewards without Process
Labels", section 3.1). The sums over any cut into steps are the same: those of the whole response, its end token
included.

Numbers of one model against another are comparable within one problem; across problems they are shifted by how unlikely
the reference finds any answer, so a threshold means nothing until it is calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from numpy import float64, floating
    from numpy.typing import NDArray

    Vector = NDArray[float64]

Aggregation = Literal["min", "sum", "last", "mean", "product"]


def token_rewards(ratios: NDArray[floating], beta: float) -> Vector:
    """r_t = beta d_t, ``[L]``."""
    import numpy as np

    return beta * np.asarray(ratios, np.float64)


def step_rewards(tokens: Vector, ends: Sequence[int]) -> Vector:
    """Sums over the tokens of each step, ``[steps]``; ``ends`` are exclusive, the last one is ``L``."""
    import numpy as np

    if not len(tokens):
        return np.zeros(0)
    return np.add.reduceat(tokens, [0, *ends[:-1]])


def values(steps: Vector) -> Vector:
    """q after each step, ``[steps]``."""
    import numpy as np

    return np.cumsum(steps)


def aggregate(steps: Vector, how: Aggregation, probabilities: bool = False) -> float:
    """One number for a response from those of its steps; 0 for one without a step.

    ``min``: as good as its worst step, for process rewards. ``last``: for models that estimate what a prefix will come
    to, whose last number is about the whole. ``product``: of the probabilities s(r), as if steps were right or wrong
    independently of each other; like a sum it favours few steps.

    Args:
        probabilities: the numbers are probabilities already, as values are, and a product is of them as they are.
    """
    import numpy as np

    if not len(steps):
        return 0.0
    if how == "product" and probabilities:
        return float(steps.prod())
    if how == "product":
        return float(np.exp(-np.logaddexp(0.0, -steps).sum()))
    if how == "last":
        return float(steps[-1])
    if how == "min":
        return float(steps.min())
    return float(steps.mean() if how == "mean" else steps.sum())
