"""What a reward source is given, and what it may ask for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from selftrain.errors import RunError
from selftrain.types import Sample, Score, Verdict

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray


class Judged(NamedTuple):
    """A sample and what the verifier says of it."""

    sample_id: str
    verdict: Verdict
    sample: Sample | None = None
    """None where every source of the run says ``verdict_only``: reading them all takes its time."""
    ends: tuple[int, ...] | None = None
    """Where its steps end, exclusive, as indices into the response ids; None: the source finds its steps itself."""


class Models(Protocol):
    """The models of a run, as a source may use them; a reference is what configs write (``policy``, a path ...)."""

    def log_ratios(self, model: str, reference: str, samples: Sequence[Sample]) -> list[NDArray[float32]]:
        """log p(token) under the model minus that under the reference: ``[L]`` for each sample, raw.

        The end token is scored where the response came to its end; one that a stop string cut short has it added, so
        that ``L`` may be one more than the sample's ids.
        """

    def logprobs(self, model: str, samples: Sequence[Sample]) -> list[NDArray[float32]]:
        """log p(token) under the model, ``[L]`` for each sample; tokens as in `log_ratios`."""

    def step_values(
        self, model: str, samples: Sequence[Sample], ends: Sequence[tuple[int, ...]]
    ) -> list[NDArray[float32]]:
        """What a value model says after each step, in [0, 1]: ``[steps]`` for each sample; NaN where a step ends beyond
        what the model can read.

        Args:
            ends: exclusive ends of each sample's steps; tokens as in `log_ratios`.
        """

    def texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each token of a response."""

    def name(self, model: str) -> str:
        """Stands for the weights behind a reference, as scores record them."""


def verdict_only(source: object) -> bool:
    """Whether a source, or its class, says that it reads verdicts and nothing else."""
    return bool(getattr(source, "verdict_only", False))


class RewardSource(Protocol):
    """Numbers for judged samples."""

    def scores(self, judged: Sequence[Judged], source: str, models: Models) -> Iterator[Score]:
        """One score for each, in order, under this name; invalid where there is no number to be had."""


def asked(source: RewardSource, name: str, judged: Sequence[Judged], models: Models, where: str) -> list[Score]:
    """What a source gives, looked through.

    Args:
        where: the sources' place in the config.

    Raises:
        RunError: it gave another number of scores than there are samples, or no number where it says it does.
    """
    scores = list(source.scores(judged, name, models))
    if [score.sample_id for score in scores] != [one.sample_id for one in judged]:
        raise RunError(
            f"{where}.{name} gave {len(scores)} scores for {len(judged)} samples, or in another order; mend its "
            "scores() and run the same command again"
        )
    for score in scores:
        numbers = (score.reward, *(score.step_rewards or ()), *(score.token_rewards or ()))
        if score.valid and (wrong := [own for own in numbers if own is None or not math.isfinite(own)]):
            raise RunError(
                f"{where}.{name} gave sample {score.sample_id} the reward {wrong[0]}; a source says valid=False where "
                "it has none: mend that and run the same command again"
            )
    return scores
