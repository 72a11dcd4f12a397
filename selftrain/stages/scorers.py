"""The models that score responses, as they are loaded: until a stage ends, or with ``launch.keep: run`` as long as the
run, when a learner's next checkpoint is put into the model that is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.models.adapters import belongs_to
from selftrain.session import Session
from selftrain.stages.resident import stays

if TYPE_CHECKING:
    from selftrain.training.ranks import Ranks
    from selftrain.training.scoring import Scorer


class Scorers:
    """A context manager."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._loaded: dict[str, tuple[Path, Scorer | Ranks]] = session.scorers

    def __enter__(self) -> Scorers:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is not None or not stays(self._session):
            self._session.close_scorers()

    def at(self, checkpoint: Path) -> Scorer | Ranks:
        """That of a checkpoint; raises OSError, ValueError or RuntimeError where it does not load."""
        from selftrain.training.ranks import Ranks
        from selftrain.training.scoring import Scorer

        place = re.sub(r"iteration_\d+", "iteration", str(checkpoint))
        there, scorer = self._loaded.get(place, (None, None))
        if scorer is None or (there != checkpoint and not scorer.reload(checkpoint)):
            if scorer is not None:
                scorer.close()
            count = self._session.config.launch.score_processes
            scorer = Scorer(checkpoint) if count == 1 else Ranks(checkpoint, count)
        self._loaded[place] = (checkpoint, scorer)
        return scorer

    def adapted(self, base: Path) -> Scorer | Ranks | None:
        """One of an adapter on this checkpoint, whose weights are there with it."""
        return next((scorer for at, scorer in self._loaded.values() if belongs_to(at, base)), None)
