"""A reward held near the policy it chooses from: regularised best-of-n (Jinnai et al. 2024, arXiv:2404.01054).

The more samples a flawed reward chooses among, the more it finds those that fool it, which are unlikely ones. RBoN_KL
takes ``argmax_y R(x, y) - beta KL[1_y || pi_ref]``, and the divergence of the choice of one response from the
distribution it was drawn from is its negative log-likelihood: ``R(x, y) + beta log pi_ref(y | x)``, the end token
included. Long responses are less likely, so ``beta`` is a price of length too.

The paper's other form, a proximity to the other samples by the similarity of their texts (MBR-BoN), is not here: it
needs a model of similarity. Where responses have answers, weighted best-of-n rewards agreement between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from selftrain.config import component, instantiate
from selftrain.nested import RewardPart
from selftrain.ranges import NotNegative
from selftrain.rewards.base import Judged, Models, RewardSource
from selftrain.types import Score


@dataclass(frozen=True)
class Regularised:
    """Another source's reward plus beta log pi_ref of the response."""

    reward: RewardPart = None
    """The source."""
    beta: NotNegative = 0.01
    """In units of that reward per nat; 0 is the source itself."""
    reference: str = "policy"
    """pi_ref: who wrote the responses."""

    models: ClassVar[tuple[str, ...]] = ("reference",)
    """Options that name models."""

    def __post_init__(self) -> None:
        if self.reward is None:
            raise ValueError("reward: names no source to regularise, such as {kind: implicit_prm, ...}")

    def scores(self, judged: Sequence[Judged], source: str, models: Models) -> Iterator[Score]:
        inner: RewardSource = instantiate("reward", component("reward", self.reward, "reward"))
        samples = [one.sample for one in judged if one.sample is not None]
        likelihoods = models.logprobs(self.reference, samples)
        for score, own in zip(inner.scores(judged, source, models), likelihoods, strict=True):
            if not score.valid or score.reward is None:
                yield Score(score.sample_id, source, valid=False)
                continue
            reward = regularised(score.reward, float(own.sum(dtype="float64")), self.beta)
            yield Score(score.sample_id, source, valid=True, reward=reward, model=score.model)


def regularised(reward: float, logprob: float, beta: float) -> float:
    """R + beta log pi_ref.

    Args:
        logprob: of the whole response, in nats.
    """
    return reward + beta * logprob
