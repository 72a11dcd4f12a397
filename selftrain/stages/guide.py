"""Who tells a search what its paths are worth: a value model, or an implicit process reward model.

It is open beside the engine that draws the steps; on one GPU the two share its memory
(``sampler.gpu_memory_utilization``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

from selftrain.artifacts import Stage
from selftrain.errors import RunError
from selftrain.planning.references import guiding, value_source
from selftrain.sampling.base import Request
from selftrain.schema import Searching
from selftrain.search.asks import State
from selftrain.session import Session
from selftrain.types import Example

if TYPE_CHECKING:
    from selftrain.training.paths import PathValues
    from selftrain.training.scoring import Scorer

VALUE_HEAD, IMPLICIT = "value_head", "implicit_prm"
"""Kinds of reward sources that can say what a path is worth."""
Asked = Mapping[str, Request]
"""By problem, what the policy is asked with."""


class Guide(Protocol):
    """Values of paths."""

    @property
    def tokens_read(self) -> int:
        """By its models, those of prompts and those read again too."""

    @property
    def whole(self) -> str | None:
        """Why its model cannot read what is new of a path alone; None where it can, or nobody expects it to."""

    def values(self, states: Sequence[State], asked: Asked) -> list[float]:
        """In [0, 1]; NaN where there is none."""

    def forget(self, request: Request) -> None:
        """A tree is finished."""


@contextmanager
def guide(session: Session, stage: Stage, where: str, search: Searching) -> Iterator[Guide | None]:
    """That of a search of a stage, until the block ends; None where it names none.

    Args:
        where: its place in the config.

    Raises:
        RunError: its model does not load.
    """
    if search.value is None:
        yield None
        return
    with ExitStack() as opened:
        try:
            found = _opened(session, stage, where, search, opened)
        except (RuntimeError, ValueError, OSError, MemoryError) as error:
            raise RunError(
                f"iteration {stage.iteration}, {where}.value: {search.value} could not be loaded: "
                f"{type(error).__name__}: {error}; mend that, or free memory (gpu_memory_utilization of the sampler), "
                "and run the same command again"
            ) from error
        yield found


def _opened(session: Session, stage: Stage, where: str, search: Searching, opened: ExitStack) -> Guide:
    source, dtype = value_source(session.config, search), session.config.reward.dtype
    models = {
        place.rpartition(".")[2]: session.stages.model(text, stage.iteration, stage.name, place).checkpoint
        for place, text in guiding(session.config, where, search).items()
    }
    if source is None or source.kind == VALUE_HEAD:
        from selftrain.training.paths import PathValues

        (checkpoint,) = models.values()
        room = search.cached_tokens
        paths = PathValues(checkpoint, writer=session.tokenizer, max_cached_tokens=room, dtype=dtype)
        return ByHead(opened.enter_context(paths))
    from selftrain.training.scoring import Scorer

    own, reference = (opened.enter_context(Scorer(models[option], dtype=dtype)) for option in ("model", "reference"))
    return ByLikelihood(own, reference, source.options["beta"])


class ByHead:
    """A value model, which reads only what is new of a path."""

    def __init__(self, paths: PathValues) -> None:
        self._paths = paths
        self.whole = paths.whole

    @property
    def tokens_read(self) -> int:
        return self._paths.tokens_read

    def values(self, states: Sequence[State], asked: Asked) -> list[float]:
        from selftrain.training.valuing import StepPath

        requests = [asked[state.problem] for state in states]
        return self._paths.values(
            [
                StepPath(request.prompt_ids, state.steps, request.problem.question)
                for request, state in zip(requests, states, strict=True)
            ]
        )

    def forget(self, request: Request) -> None:
        self._paths.forget(request.prompt_ids)


class ByLikelihood:
    """sigma(beta sum_t (log pi - log pi_ref)): what an implicit process reward model, trained on outcomes by cross
    entropy, gives a response so far (Yuan et al. 2024, "Free Process Rewards without Process Labels"). It reads every
    path from its beginning."""

    def __init__(self, model: Scorer, reference: Scorer, beta: float) -> None:
        self._model, self._reference, self._beta = model, reference, beta
        self.tokens_read, self.whole = 0, None

    def values(self, states: Sequence[State], asked: Asked) -> list[float]:
        examples = [
            Example("", state.problem, "", asked[state.problem].prompt_ids, sum(state.steps, ())) for state in states
        ]
        self.tokens_read += 2 * sum(len(one.prompt_ids) + len(one.response_ids) for one in examples)
        both = zip(self._model.logprobs(examples), self._reference.logprobs(examples), strict=True)
        return [_sigmoid(self._beta * float((own - other).sum(dtype="float64"))) for own, other in both]

    def forget(self, request: Request) -> None:
        """Nothing is kept."""


def _sigmoid(x: float) -> float:
    return 0.5 * (1.0 + math.tanh(x / 2))
