"""What a value model says after every step of a response: a process reward model, or an outcome model at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from selftrain.rewards.base import Judged, Models
from selftrain.rewards.process import Aggregation, aggregate
from selftrain.rewards.steps import step_ends
from selftrain.types import Sample, Score

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ValueHead:
    """Values in [0, 1], each of the response up to the end of a step."""

    model: str = "learner:value"
    """A learner of values, or the folder of a value model: one saved here, or a published process reward model."""
    aggregation: Aggregation = "last"
    """The response's reward from its values. last: for models of what a prefix will come to; min and product: for those
    that judge each step."""
    separator: str = "\n"
    """What ends a step, as it did where the model was trained."""
    read: Literal["step", "last"] = "step"
    """last: the whole response is one step, for outcome models."""

    models: ClassVar[tuple[str, ...]] = ("model",)
    """Options that name models."""

    @property
    def cut_by(self) -> str | None:
        """The separator it looks for in responses, if any."""
        return self.separator if self.read == "step" else None

    def scores(self, judged: Sequence[Judged], source: str, models: Models) -> Iterator[Score]:
        given = [(one.sample, one.ends) for one in judged if one.sample is not None]
        samples = [sample for sample, _ in given]
        ends = [self._ends(sample, models) if known is None else known for sample, known in given]
        name = models.name(self.model)
        for sample, own, values in zip(samples, ends, models.step_values(self.model, samples, ends), strict=True):
            yield self._score(sample, source, own, values, name)

    def _score(self, sample: Sample, source: str, ends: tuple[int, ...], values: NDArray[float32], name: str) -> Score:
        import numpy as np

        # A response without a token, or one longer than the model can read, has no value and is told apart.
        valid = len(values) > 0 and bool(np.isfinite(values).all())
        return Score(
            sample.id,
            source,
            valid=valid,
            reward=aggregate(values.astype(np.float64), self.aggregation, probabilities=True) if valid else None,
            step_ends=ends,
            step_rewards=tuple(values.tolist()),
            model=name,
        )

    def _ends(self, sample: Sample, models: Models) -> tuple[int, ...]:
        # One that a stop string cut gets its end token where it is read: it belongs to the last step.
        length = len(sample.response_ids) + (sample.finish_reason == "stop")
        if not length:
            return ()
        if self.read == "last":
            return (length,)
        return (*step_ends(models.texts(sample.response_ids), self.separator)[:-1], length)
