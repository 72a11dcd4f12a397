"""The models that score responses, as they are loaded: until a stage ends, or with ``launch.keep: run`` as long as the
run, when a learner's next checkpoint is put into the model that is there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.models.adapters import belongs_to
from selftrain.session import Session
from selftrain.stages.resident import stays

if TYPE_CHECKING:
    from selftrain.training.ranks import Ranks
    from selftrain.training.scoring import Scorer
    from selftrain.training.valuing import Valuer

LANGUAGE, VALUE = "language model", "value model"


class Scorers:
    """A context manager."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._loaded: dict[tuple[str, str], tuple[Path, Any]] = session.scorers

    def __enter__(self) -> Scorers:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is not None or not stays(self._session):
            self._session.close_scorers()

    def at(self, checkpoint: Path) -> Scorer | Ranks:
        """That of a checkpoint; raises OSError, ValueError or RuntimeError where it does not load."""
        from selftrain.training.ranks import Ranks
        from selftrain.training.scoring import Scorer

        count, dtype = self._session.config.launch.score_processes, self._session.config.reward.dtype
        places = self._session.cluster
        scorer: Scorer | Ranks = self._kept(
            LANGUAGE,
            checkpoint,
            lambda: (
                Scorer(checkpoint, dtype=dtype)
                if count == 1 and places is None
                else Ranks(checkpoint, count, dtype=dtype, places=places)
            ),
        )
        return scorer

    def valuer(self, checkpoint: Path) -> Valuer:
        """The same of a value model, which one process asks."""
        from selftrain.training.valuing import Valuer

        writer, dtype = self._session.tokenizer, self._session.config.reward.dtype
        valuer: Valuer = self._kept(VALUE, checkpoint, lambda: Valuer(checkpoint, writer=writer, dtype=dtype))
        return valuer

    def _kept(self, kind: str, checkpoint: Path, load: Callable[[], Any]) -> Any:
        place = (kind, re.sub(r"iteration_\d+", "iteration", str(checkpoint)))
        there, loaded = self._loaded.get(place, (None, None))
        if loaded is None or (there != checkpoint and not loaded.reload(checkpoint)):
            if loaded is not None:
                loaded.close()
                del self._loaded[place]  # Closed, also where the next one does not load.
            loaded = load()
        self._loaded[place] = (checkpoint, loaded)
        return loaded

    def adapted(self, base: Path) -> Scorer | Ranks | None:
        """One of an adapter on this checkpoint, whose weights are there with it."""
        found = ((at, scorer) for (kind, _), (at, scorer) in self._loaded.items() if kind == LANGUAGE)
        return next((scorer for at, scorer in found if belongs_to(at, base)), None)
