"""Machines that processes can be started on, as far as those who start them need to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from selftrain.workers import Start


class Places(Protocol):
    """What is given is kept free from the first process that is started there to the last that is closed.

    To start a process raises NoRoom where there is no place for it.
    """

    @property
    def gpus(self) -> bool:
        """Whether there are GPUs: what loads a model then has one, or as many as it asks for."""

    def room(self, gpus: int) -> int:
        """How many processes of so many GPUs there could be, were nobody else there."""

    def spread(self, count: int, gpus: int) -> Sequence[Start]:
        """For several processes one each, on as many machines as may be.

        Args:
            gpus: of each; none where there are none.
        """

    def meet(self, count: int) -> tuple[Sequence[Start], str]:
        """For several processes one each, on as few machines as may be, with a GPU each where there are any; and a URL
        where they can meet, as `torch.distributed` takes it."""
