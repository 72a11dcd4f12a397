"""The responses of one work list that a vLLM engine holds: what it is asked, and what its answers make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from selftrain.sampling.base import Answers, Begun, Completion, Place, Request, Take
from selftrain.sampling.ending import completion, ended_by, stops
from selftrain.sampling.vllm_engine import Ask, Grown, Turn
from selftrain.seeds import derive
from selftrain.types import FinishReason

AHEAD = 1.25
"""Requests the engine holds, as a multiple of what it draws at once: it never waits for the next."""


@dataclass
class Row:
    """A response while it grows."""

    place: Place
    begun: Begun
    room: int
    """Tokens it may have at most, all told."""
    limit: FinishReason
    """What ends it if nothing else does."""
    finish_reason: FinishReason
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class Drawing:
    """The responses of one work list that the engine holds.

    Args:
        take: gives those it is to draw, one by one.
        context: tokens of prompt and response together.
        together: responses that grow at once.
        logprobs: record those of what is drawn.
    """

    def __init__(
        self,
        work: Sequence[Request],
        take: Take,
        answers: Answers,
        tokenizer: Any,
        *,
        context: int,
        together: int,
        logprobs: bool = False,
    ) -> None:
        self._work, self._answers, self._tokenizer = work, answers, tokenizer
        self._context, self._logprobs = context, logprobs
        self._take = take
        self._held = int(together * AHEAD)
        self._complete: list[Place] = []
        """Those the engine still draws although they are finished."""
        self.rows: dict[Place, Row] = {}
        self.full: list[Row] = []
        """Begun responses that need no further token."""

    def turn(self) -> Turn:
        given_up = [row for place in self._answers.dropped() if (row := self.rows.pop(place, None)) is not None]
        for row in given_up:
            self._answers.given_up(*row.place, len(row.ids))
        drop, self._complete = [row.place for row in given_up] + self._complete, []
        add: list[Ask] = []
        while len(self.rows) < self._held and (unit := self._take()) is not None:
            for place in unit:
                row = self._row(place)
                if self._full(row):
                    self.full.append(row)
                else:
                    self.rows[place] = row
                    add.append(self._asked(row))
        return Turn(add, drop)

    def _full(self, row: Row) -> bool:
        """Whether a begun response needs no further token."""
        if self._stopped(row, len(row.ids)):
            row.finish_reason = "stop"
        return row.finish_reason == "stop" or len(row.ids) >= row.room

    def _row(self, place: Place) -> Row:
        request = self._work[place[0]]
        longest, space = request.settings.max_tokens, self._context - len(request.prompt_ids)
        begun = self._answers.begun(*place) or Begun(())
        limit: FinishReason = "length" if longest <= space else "context"
        return Row(place, begun, min(longest, space), limit, limit, list(begun.ids), list(begun.logprobs or ()))

    def _asked(self, row: Row) -> Ask:
        request, settings = self._work[row.place[0]], self._work[row.place[0]].settings
        seed = request.seeds[row.place[1]]
        params: dict[str, Any] = {
            "temperature": settings.temperature,
            "top_k": settings.top_k,
            "top_p": settings.top_p,
            "max_tokens": row.room - len(row.ids),
            "stop": list(settings.stop) or None,
            "stop_token_ids": list(settings.stop_ids) or None,
            # Text is only needed to look for stop strings in it.
            "detokenize": bool(settings.stop),
        }
        if settings.temperature > 0:
            params["seed"] = derive(seed, len(row.ids)) if row.ids else seed
        if self._logprobs:
            params["logprobs"] = 0
        return Ask(row.place, (*request.prompt_ids, *row.ids), params)

    def grow(self, grown: Sequence[Grown]) -> list[Row]:
        """Take the engine's answer in; the responses that are finished by it."""
        ended, self.full = self.full, []
        for piece in grown:
            row = self.rows.get(piece.place)
            if row is None:  # Dropped while the answer was under way.
                self._answers.given_up(*piece.place, len(piece.ids))
                continue
            row.ids += piece.ids
            row.logprobs += piece.logprobs or ()
            if piece.finish is not None:
                row.finish_reason = self._reason(piece, row)
            elif self._stopped(row, len(piece.ids)):
                row.finish_reason = "stop"
                self._complete.append(piece.place)
            else:
                self._answers.grown(*row.place, piece.ids, piece.logprobs)
                continue
            ended.append(self.rows.pop(piece.place))
        return ended

    def _stopped(self, row: Row, new: int) -> bool:
        """Whether a continued response holds a stop string that ends in its newest tokens: vLLM reads what came before
        them as prompt, and looks for stop strings in what it draws alone."""
        stop = self._work[row.place[0]].settings.stop
        return bool(stop and row.begun.ids) and stops(self._tokenizer, row.ids, stop, new)

    def _reason(self, piece: Grown, row: Row) -> FinishReason:
        if piece.finish == "length":
            return row.limit
        if piece.finish != "stop":
            raise RuntimeError(f"vLLM ended a response with '{piece.finish}'")
        return ended_by(piece.stop, self._work[row.place[0]].settings)

    def completion(self, row: Row) -> Completion:
        request, logprobs = self._work[row.place[0]], row.logprobs if self._logprobs else None
        done = completion(
            self._tokenizer,
            row.place,
            row.ids,
            row.finish_reason,
            request.settings,
            logprobs,
            keep_stop=request.keep_stop,
        )
        begun = (*row.begun.segments, len(row.begun.ids)) if row.begun.ids else ()
        return replace(done, segments=tuple(start for start in begun if start < len(done.ids)))
