"""One checkpoint in several processes that score responses together, a GPU for each where there are any.

Batches are those of a single process, dealt out to the ranks in turn, and gathered by `torch.distributed` over gloo: a
number does not depend on how many ranks there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import distributed

from selftrain.places import Places
from selftrain.training.group import Group, device_of, join
from selftrain.training.scoring import Scorer, Scores, alone, whole
from selftrain.types import Example


class Asked(NamedTuple):
    """What the ranks score."""

    examples: Sequence[Example]
    temperature: float
    base: bool
    """Of an adapter, its base alone."""


class Ranks:
    """As `Scorer`, in processes of their own that end with this one.

    Args:
        count: of processes; no more than there are GPUs, where there are any.
        places: where they run; None: on this machine.

    Raises:
        OSError, ValueError, RuntimeError: as `Scorer`, or there are more processes than GPUs.
    """

    def __init__(
        self, checkpoint: Path | str, count: int, *, dtype: str = "auto", places: Places | None = None
    ) -> None:
        self._group = Group("selftrain.training.ranks:serve", count, str(checkpoint), dtype, places=places)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reload(self, checkpoint: Path | str) -> bool:
        """They are started anew for other weights."""
        return False

    def close(self) -> None:
        self._group.close()

    def logprobs(self, examples: Sequence[Example], *, temperature: float = 1.0) -> list[Scores]:
        """As `Scorer.logprobs`.

        Raises:
            ValueError: a log-probability is not a number.
            RuntimeError: a process died.
        """
        return self._ask(Asked(alone(examples), temperature, base=False))

    def base_logprobs(self, examples: Sequence[Example], *, temperature: float = 1.0) -> list[Scores]:
        """As `Scorer.base_logprobs`."""
        return self._ask(Asked(alone(examples), temperature, base=True))

    def _ask(self, asked: Asked) -> list[Scores]:
        return whole(asked.examples, self._group.ask(asked)[0])


def serve(checkpoint: str, dtype: str, rank: int, count: int, store: str) -> Callable[[Asked], Iterator[Any]]:
    """Start-up of a rank; it answers what is asked by all that was found where it is the first, else by nothing."""
    scorer = Scorer(checkpoint, dtype=dtype, device=device_of(rank, count, "launch.score_processes", store))
    join(rank, count, store)
    return partial(_answer, scorer)


def _answer(scorer: Scorer, asked: Asked) -> Iterator[dict[int, Scores] | None]:
    found = share(scorer, asked)
    yield found if distributed.get_rank() == 0 else None


def share(scorer: Scorer, asked: Asked) -> dict[int, Scores]:
    """What all ranks of the process group find together, by the place of the example; each has it."""
    rank, count = distributed.get_rank(), distributed.get_world_size()
    own = scorer.shared(asked.examples, temperature=asked.temperature, base=asked.base, rank=rank, ranks=count)
    gathered: list[Any] = [None] * count
    distributed.all_gather_object(gathered, own)
    return {place: values for part in gathered for place, values in part.items()}
