"""Implicit process rewards: a model trained on outcomes, against its reference, token by token (Yuan et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from selftrain.ranges import Positive
from selftrain.rewards.base import Judged, Models
from selftrain.rewards.process import Aggregation, aggregate, step_rewards, token_rewards, values
from selftrain.rewards.steps import step_ends
from selftrain.types import Sample, Score


@dataclass(frozen=True)
class ImplicitPRM:
    """beta (log pi - log pi_ref), summed over tokens, steps or the whole response."""

    model: str = "learner:prm"
    """Whose likelihood it is: a learner, or the path of any causal language model that was trained so."""
    reference: str = "base"
    """Against whose: ``base``, a path, ``policy``, or a learner as it was (``learner:prm@start``)."""
    beta: Positive = 0.05
    """Applied once, here; the objective that trains the model has its own, which should be the same."""
    granularity: Literal["token", "step", "whole"] = "token"
    """What is one process reward. token: every token has one, for advantages; the response's own reward is made of
    steps all the same."""
    separator: str = "\n"
    """What ends a step."""
    aggregation: Aggregation = "sum"
    """The response's reward from those of its steps: sum is the outcome reward that was trained; min is the paper's for
    choosing among responses."""
    accumulate: bool = False
    """Aggregate the values q after each step in place of the steps' own rewards."""

    models: ClassVar[tuple[str, ...]] = ("model", "reference")
    """Options that name models."""

    def scores(self, judged: Sequence[Judged], source: str, models: Models) -> Iterator[Score]:
        known = [(one.sample, one.ends) for one in judged if one.sample is not None]
        samples = [sample for sample, _ in known]
        ratios = models.log_ratios(self.model, self.reference, samples)
        name = models.name(self.model)
        for (sample, given), own in zip(known, ratios, strict=True):
            tokens = token_rewards(own, self.beta)
            ends = self._ends(sample, given, len(tokens), models)
            steps = step_rewards(tokens, ends)
            told = values(steps) if self.accumulate else steps
            # A response without a token has earned nothing and is told apart.
            yield Score(
                sample.id,
                source,
                valid=len(tokens) > 0,
                reward=aggregate(told, self.aggregation) if len(tokens) else None,
                step_ends=ends,
                step_rewards=tuple(steps.tolist()),
                token_rewards=tuple(tokens.tolist()) if self.granularity == "token" else None,
                model=name,
            )

    def _ends(self, sample: Sample, given: tuple[int, ...] | None, length: int, models: Models) -> tuple[int, ...]:
        if self.granularity == "whole":
            return (length,) if length else ()
        ends = given or step_ends(models.texts(sample.response_ids), self.separator)
        # The end token that scoring added belongs to the last step.
        return (*ends[:-1], length) if length else ()
