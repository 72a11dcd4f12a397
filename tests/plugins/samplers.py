"""Samplers that write as the scripted one does, token by token as an engine, or on and on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from selftrain.sampling.base import ALL, Answers, Completion, Place, Request
from selftrain.sampling.order import order
from selftrain.sampling.scripted import Scripted, ScriptedSampler, codec, mix

SLOTS, PIECE = 12, 8
"""Responses that grow together, and tokens they grow by in a turn."""
TURN_SECONDS = 0.005
"""About as long as verdicts take, which then come while there is more to draw."""


@dataclass(frozen=True)
class Rambling(Scripted):
    """Half of its responses do not end after the answer."""

    def write(self, answer: Any, seed: int) -> str:
        return super().write(answer, seed) + (" " * 100 if mix(seed + 7) % 2 else "")


@dataclass(frozen=True)
class Growing(Scripted):
    """Its responses grow a few tokens a turn, are given up where nobody needs them, and outlive a kill.

    One in four is ten times as long.
    """

    log: str = ""
    """File that gets a line for all it draws: request, index, tokens."""

    name = "growing"
    speed = ("log",)
    journaled = True

    def write(self, answer: Any, seed: int) -> str:
        return ("" if mix(seed + 7) % 4 else "3" * 120) + super().write(answer, seed)

    def open(self, checkpoint: Path) -> GrowingSampler:
        return GrowingSampler(self, codec(checkpoint))


class GrowingSampler(ScriptedSampler):
    """A turn of it draws for all responses it holds."""

    _options: Growing

    def sample(self, work: Sequence[Request], answers: Answers = ALL) -> Iterator[list[Completion]]:
        places = order(work, answers, block=SLOTS)
        whole: dict[Place, Completion] = {}
        drawn: dict[Place, int] = {}
        with Path(self._options.log).open("a", buffering=1) as log:
            while True:
                for place in answers.dropped():
                    if whole.pop(place, None):
                        answers.given_up(*place, drawn.pop(place))
                for place in islice(places, SLOTS - len(whole)):
                    (whole[place],) = self._answer(place[0], work[place[0]], [place[1]])
                    begun = answers.begun(*place)
                    drawn[place] = len(begun.ids) if begun else 0
                if not whole:
                    return
                time.sleep(TURN_SECONDS)
                yield [whole.pop(place) for place in list(whole) if self._grow(place, whole, drawn, answers, log)]

    def _grow(
        self, place: Place, whole: dict[Place, Completion], drawn: dict[Place, int], answers: Answers, log: Any
    ) -> bool:
        """One response by a turn; whether it is finished."""
        ids = whole[place].ids
        piece = ids[drawn[place] : drawn[place] + PIECE]
        print(*place, len(piece), file=log)
        drawn[place] += len(piece)
        if drawn[place] == len(ids):
            return True
        answers.grown(*place, piece, None)
        return False


@dataclass(frozen=True)
class Timed(Scripted):
    """Takes its time over every token."""

    token_seconds: float = 0.001
    straggler: str = ""
    """The id of a problem whose responses are ``longer`` times as long."""
    longer: int = 1

    def open(self, checkpoint: Path) -> TimedSampler:
        return TimedSampler(self, codec(checkpoint))


class TimedSampler(ScriptedSampler):
    _options: Timed

    def _answer(self, place: int, request: Request, indices: Sequence[int]) -> Iterator[Completion]:
        for found in super()._answer(place, request, indices):
            slow = self._options.longer if request.problem.id == self._options.straggler else 1
            time.sleep(self._options.token_seconds * len(found.ids) * slow)
            yield found


@dataclass(frozen=True)
class Fatal(Scripted):
    """Ends its process when it comes to a problem."""

    problem: str = ""
    """Part of its id."""
    after: int = 0
    """Samples of such problems that the process draws before."""
    once: str = ""
    """File that is there once it has; it goes on then. None: it ends every process that tries."""

    def open(self, checkpoint: Path) -> FatalSampler:
        return FatalSampler(self, codec(checkpoint))


class FatalSampler(ScriptedSampler):
    _options: Fatal
    drawn = 0

    def _answer(self, place: int, request: Request, indices: Sequence[int]) -> Iterator[Completion]:
        once = self._options.once
        self.drawn += (meant := self._options.problem in request.problem.id)
        if meant and self.drawn > self._options.after and not (once and Path(once).exists()):
            if once:
                Path(once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.002)
        return super()._answer(place, request, indices)
