"""Objectives of value heads: what a step, or a whole response, is worth.

``r`` is what the head puts out, raw, at the tokens that have a target; ``s`` is the sigmoid. Losses are means over all
targets (or pairs) of the step, so that cutting a step into forward passes changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from selftrain.objectives.paired import PAIRS, Sides
from selftrain.objectives.terms import Loss, Mean, Terms, Totals
from selftrain.ranges import Mass

if TYPE_CHECKING:
    from torch import Tensor

VALUES = "values"


def mse_loss(raw: Tensor, target: Tensor) -> Tensor:
    """(s(r) - v)^2, ``[M]``: the regression of ReST-MCTS* (Zhang et al. 2024, section 3.2), with a sigmoid where its
    code clips to [0, 1]: a clipped value has no gradient."""
    return (raw.sigmoid() - target) ** 2


def bce_loss(raw: Tensor, target: Tensor) -> Tensor:
    """-[v log s(r) + (1 - v) log(1 - s(r))], ``[M]`` (Lightman et al. 2023; Wang et al. 2024, "Math-Shepherd", equation
    5); from r itself, as s(r) first rounds to 0 or 1."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(raw, target, reduction="none")


def step_preference_loss(better: Tensor, worse: Tensor) -> Tensor:
    """-log s(tanh r_w - tanh r_l), ``[P]``: rStar-Math's process preference model (Guan et al. 2025, equation 4), whose
    mean over the pairs of the best and worst steps of a state is its 1 / (2 * 2) sum."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(better.tanh() - worse.tanh())


def over_targets(terms: Terms, totals: Totals, losses: Tensor, targets: Tensor) -> Loss:
    """The mean over targets by the weights of their sequences, and what is told of them.

    Args:
        targets: ``[M]`` as they are learnt.
    """
    raw, _, sequences = of(terms)
    values, count = raw.detach().sigmoid(), float(len(losses))
    same = ((values >= 0.5) == (targets >= 0.5)).float()
    measures = {
        "value error": Mean((values - targets).abs().sum(), count),
        "value accuracy": Mean(same.sum(), count),
    }
    return Loss((terms.weights[sequences] * losses).sum() / max(1, totals.values), measures)


def of(terms: Terms) -> tuple[Tensor, Tensor, Tensor]:
    """Raw values, targets, and whose they are, ``[M]`` each."""
    assert terms.values is not None and terms.targets is not None and terms.value_sequences is not None
    return terms.values, terms.targets, terms.value_sequences


@dataclass(frozen=True)
class MSE:
    """Regression of values in [0, 1]."""

    needs: ClassVar[frozenset[str]] = frozenset({VALUES})
    normaliser: ClassVar[str] = "sigmoid"
    """What makes a value of the head's output, as this objective reads it."""

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        raw, targets, _ = of(terms)
        return over_targets(terms, totals, mse_loss(raw, targets), targets)


@dataclass(frozen=True)
class BCE:
    """Cross-entropy of right and wrong."""

    labels: Literal["soft", "hard"] = "soft"
    """soft: targets are probabilities, as they are; hard: 1 from ``threshold`` on, else 0."""
    threshold: Mass = 0.5

    needs: ClassVar[frozenset[str]] = frozenset({VALUES})
    normaliser: ClassVar[str] = "sigmoid"

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        raw, targets, _ = of(terms)
        wanted = (targets >= self.threshold).float() if self.labels == "hard" else targets
        return over_targets(terms, totals, bce_loss(raw, wanted), wanted)


@dataclass(frozen=True)
class StepPreference:
    """Better against worse steps that follow the same state; the value of each is read where its target stands."""

    needs: ClassVar[frozenset[str]] = frozenset({VALUES, PAIRS})
    normaliser: ClassVar[str] = "tanh"

    def loss(self, terms: Terms, totals: Totals) -> Loss:
        raw, _, sequences = of(terms)
        sides = Sides.of(terms, raw.new_zeros(len(terms.weights)).index_add(0, sequences, raw))
        losses = step_preference_loss(sides.chosen, sides.rejected)
        margin, count = sides.margin.detach(), float(len(losses))
        right = (margin > 0).float().sum() + 0.5 * (margin == 0).float().sum()
        weights = Sides.of(terms, terms.weights).chosen
        return Loss((weights * losses).sum() / max(1, totals.pairs), {"pair accuracy": Mean(right, count)})
