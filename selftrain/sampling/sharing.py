"""A work list that several replicas draw from: who holds what, what a dead one held, and when each may have more.

Nothing is dealt out beforehand. A replica takes the next unit when it has room, so none is idle while there is one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from selftrain.sampling.base import Answers, Begun, Completion, Place, Unit


class Shared:
    """The units of one work list.

    Args:
        units: in the order in which they are begun.
        seats: replicas that take them.
    """

    def __init__(self, units: Iterable[Unit], answers: Answers, seats: int) -> None:
        self.answers = answers
        self._left = deque(units)
        self._held: list[dict[Unit, set[Place]]] = [{} for _ in range(seats)]
        """By replica, the units it has begun, and what is not finished of each."""
        self._holder: dict[Place, tuple[int, Unit]] = {}
        self._dropped: list[list[Place]] = [[] for _ in range(seats)]
        self._begun: dict[Place, Begun] = {}
        self._grown: dict[Place, int] = {}
        """Tokens of what is held."""
        self._again: set[Place] = set()
        """Those that died with a replica once."""
        self.redone = self.twice = 0
        """Responses that were begun anew, and tokens that were drawn of them before."""

    @property
    def left(self) -> bool:
        """Whether there are units that nobody has begun."""
        return bool(self._left)

    def take(self, seat: int) -> Unit | None:
        """The next unit for a replica; None where there is none, or the others have not their share yet.

        A replica holds no more than its share of all that is not finished: a list that one could hold is drawn by all.
        """
        seats = len(self._held)
        while self._left and len(self._held[seat]) * seats < len(self._left) + sum(map(len, self._held)):
            unit = self._left.popleft()
            if any(self.answers.wanted(*place) for place in unit):
                self._held[seat][unit] = set(unit)
                self._holder.update(dict.fromkeys(unit, (seat, unit)))
                return unit
        return None

    def done(self, completions: Sequence[Completion]) -> None:
        for completion in completions:
            self._release((completion.request, completion.index))

    def lost(self, seat: int, blamed: bool = True) -> list[Place]:
        """A replica died: what it held is drawn once more, by whoever has room; those that had died with one before.

        A unit is drawn whole again: its make-up decides the last bits of its distributions.

        Args:
            blamed: whether what it held may be why.
        """
        units = list(self._held[seat])
        places = [place for unit in units for place in unit]
        self._dropped[seat].clear()
        for place in places:
            tokens = self._grown.get(place, 0)
            self.answers.lost(*place, tokens)
            self.twice += tokens
            self._release(place, keep=True)
        self.redone += len(places)
        second = [place for place in places if blamed and place in self._again]
        self._again.update(places if blamed else ())
        self._left.extendleft(reversed(units))
        return second

    def dropped(self, seat: int) -> Sequence[Place]:
        for place in self.answers.dropped():
            if (held := self._holder.get(place)) is not None:
                self._dropped[held[0]].append(place)
        dropped, self._dropped[seat] = self._dropped[seat], []
        return dropped

    def begun(self, place: Place) -> Begun | None:
        """What an earlier process had of it, also where it is asked a second time."""
        if (begun := self.answers.begun(*place)) is not None:
            self._begun[place] = begun
        return self._begun.get(place)

    def grown(self, place: Place, tokens: int) -> None:
        if place in self._holder:
            self._grown[place] = self._grown.get(place, 0) + tokens

    def given_up(self, place: Place) -> None:
        self._release(place)

    def _release(self, place: Place, keep: bool = False) -> None:
        if (held := self._holder.pop(place, None)) is not None:
            seat, unit = held
            self._held[seat][unit].discard(place)
            if not self._held[seat][unit]:
                del self._held[seat][unit]
        self._grown.pop(place, None)
        if not keep:
            self._begun.pop(place, None)


class Part:
    """The `Answers` of one replica."""

    def __init__(self, shared: Shared, seat: int) -> None:
        self._shared, self._answers, self._seat = shared, shared.answers, seat

    @property
    def by_index(self) -> bool:
        return self._answers.by_index

    def take(self) -> Unit | None:
        return self._shared.take(self._seat)

    def wanted(self, request: int, index: int) -> bool:
        return self._answers.wanted(request, index)

    def dropped(self) -> Sequence[Place]:
        return self._shared.dropped(self._seat)

    def begun(self, request: int, index: int) -> Begun | None:
        return self._shared.begun((request, index))

    def given_up(self, request: int, index: int, tokens: int) -> None:
        self._shared.given_up((request, index))
        self._answers.given_up(request, index, tokens)

    def grown(self, request: int, index: int, ids: Sequence[int], logprobs: Sequence[float] | None) -> None:
        self._shared.grown((request, index), len(ids))
        self._answers.grown(request, index, ids, logprobs)

    def lost(self, request: int, index: int, tokens: int) -> None:
        self._answers.lost(request, index, tokens)
