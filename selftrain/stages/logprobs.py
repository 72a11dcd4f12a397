"""Log-probabilities of an iteration's responses under the models of the run, and their values, each computed once.

They lie beside the iteration, a folder for each checkpoint, by its digest and the type it computed in: what a reward
source asked of a reference is there when a learner asks for the same, and after a kill.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain import records
from selftrain.errors import RunError
from selftrain.planning.fingerprints import AUTO_GPU, scored_in
from selftrain.planning.plan import Model
from selftrain.selection import as_scored
from selftrain.session import Session
from selftrain.stages.scorers import Scorers
from selftrain.types import Example, Sample, TokenScores

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    Vector = NDArray[float32]


LOGPROBS = "logprobs"
"""Their folder in that of an iteration."""


class Logprobs:
    """A context manager: models stay loaded until it is left, or longer (`selftrain.stages.scorers`)."""

    def __init__(self, session: Session, iteration: int) -> None:
        self._session, self._iteration = session, iteration
        self._folder = session.run.iteration(iteration) / LOGPROBS
        self._known: dict[str, dict[str, Vector]] = {}
        self._scorers = Scorers(session)

    def __enter__(self) -> Logprobs:
        self._scorers.__enter__()
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._scorers.__exit__(failure)

    def of(self, model: Model, examples: Sequence[Example], temperature: float = 1.0) -> list[Vector]:
        """log p of every response token: ``[L]`` each, 0 outside the loss mask.

        Raises:
            RunError: the model could not be loaded or run.
        """
        name = self._name(model) if temperature == 1.0 else f"{self._name(model)}-T{temperature:g}"
        keys = [_key(one) for one in examples]
        asked = dict(zip(keys, examples, strict=True))

        def score(missing: Sequence[str]) -> list[Vector]:
            own = [asked[key] for key in missing]
            if (adapted := self._scorers.adapted(model.checkpoint)) is not None:
                return adapted.base_logprobs(own, temperature=temperature)
            return self._scorers.at(model.checkpoint).logprobs(own, temperature=temperature)

        return self._each(name, model, keys, score)

    def values(
        self, model: Model, examples: Sequence[Example], ends: Sequence[tuple[int, ...]], questions: Sequence[str]
    ) -> list[Vector]:
        """What a value model says after every step: ``[steps]`` each (`selftrain.training.valuing.Valuer.values`).

        Raises:
            RunError: the model could not be loaded or run.
        """
        rows = zip(examples, ends, questions, strict=True)
        asked = {_key(one, own): (one, own, question) for one, own, question in rows}

        def value(missing: Sequence[str]) -> list[Vector]:
            own = [asked[key] for key in missing]
            valuer = self._scorers.valuer(model.checkpoint)
            return valuer.values([one for one, _, _ in own], [cut for _, cut, _ in own], [text for _, _, text in own])

        keys = [_key(one, own) for one, own in zip(examples, ends, strict=True)]
        return self._each(f"{self._name(model)}-values", model, keys, value)

    def _name(self, model: Model) -> str:
        """Of a folder: numbers in bf16 and in fp32 are not mixed, wherever a run goes on."""
        halved = scored_in(self._session.config) in ("bfloat16", AUTO_GPU)
        return f"{model.digest}-bfloat16" if halved else model.digest

    def _each(
        self, name: str, model: Model, keys: Sequence[str], compute: Callable[[Sequence[str]], list[Vector]]
    ) -> list[Vector]:
        """What is known under each key, the rest computed now."""
        known = self._known.setdefault(name, {}) or self._read(name)
        if missing := [key for key in dict.fromkeys(keys) if key not in known]:
            fresh = dict(zip(missing, self._computed(model.checkpoint, partial(compute, missing)), strict=True))
            known.update(fresh)
            self._write(name, fresh)
        return [known[key] for key in keys]

    def _computed(self, checkpoint: Path, compute: Callable[[], list[Vector]]) -> list[Vector]:
        self._session.free_for_training()
        try:
            return compute()
        except (RuntimeError, ValueError, OSError, MemoryError) as error:
            raise RunError(
                f"iteration {self._iteration}: {checkpoint} could not score the responses: {type(error).__name__}: "
                f"{error}; mend that, or free memory, and run the same command again"
            ) from error

    def _read(self, name: str) -> dict[str, Vector]:
        import numpy as np

        for part in records.parts(self._folder / name):
            for key, values in zip(*records.columns(part, "key", "logprobs"), strict=True):
                self._known[name][key] = np.asarray(values, np.float32)
        return self._known[name]

    def _write(self, name: str, fresh: Mapping[str, Vector]) -> None:
        """One more part: what is there already is not written again."""
        rows = [TokenScores(key, tuple(values.tolist())) for key, values in fresh.items()]
        number = len(records.parts(self._folder / name))
        records.write(self._folder / name / f"part-{number:05d}.parquet", TokenScores, rows)


def _key(example: Example, ends: Sequence[int] = ()) -> str:
    """Stands for a prompt and what is scored behind it."""
    ids = array("q", [len(example.prompt_ids), *example.prompt_ids, *example.response_ids, *(-end for end in ends)])
    mask = b"" if example.loss_mask is None else bytes(example.loss_mask)
    return hashlib.sha256(ids.tobytes() + mask).hexdigest()[:20]


class RunModels:
    """The models of a run as reward sources use them (`selftrain.rewards.base.Models`)."""

    def __init__(self, session: Session, iteration: int, stage: str, logprobs: Logprobs) -> None:
        self._session, self._iteration, self._stage, self._logprobs = session, iteration, stage, logprobs

    def log_ratios(self, model: str, reference: str, samples: Sequence[Sample]) -> list[Any]:
        own, other = self._model(model), self._model(reference)
        examples = self._examples(samples)
        if own.digest == other.digest:
            import numpy as np

            return [np.zeros(len(one.response_ids), np.float32) for one in examples]
        pairs = zip(self._logprobs.of(own, examples), self._logprobs.of(other, examples), strict=True)
        return [mine - theirs for mine, theirs in pairs]

    def logprobs(self, model: str, samples: Sequence[Sample]) -> list[Any]:
        return self._logprobs.of(self._model(model), self._examples(samples))

    def step_values(self, model: str, samples: Sequence[Sample], ends: Sequence[tuple[int, ...]]) -> list[Any]:
        problems = self._session.problems.by_id
        questions = [problems[sample.problem_id].question for sample in samples]
        return self._logprobs.values(self._model(model), self._examples(samples), ends, questions)

    def _examples(self, samples: Sequence[Sample]) -> list[Example]:
        return [as_scored(sample, self._session.tokenizer.eos_token_id) for sample in samples]

    def texts(self, ids: Sequence[int]) -> list[str]:
        return self._session.pieces.of(ids)

    def name(self, model: str) -> str:
        return self._model(model).digest

    def _model(self, text: str) -> Model:
        return self._session.stages.model(text, self._iteration, self._stage, "reward.sources")
