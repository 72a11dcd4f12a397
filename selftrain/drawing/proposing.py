"""What a search proposes: steps that the engine of a session draws, each behind the ids of those before it.

A step is drawn until its separator, whose tokens stay as they were sampled, so that a path is what one long response
would have been. White space in front of a step is drawn on from; what ends a response ends its last step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from selftrain.errors import failing_as_run_error
from selftrain.rewards.steps import Pieces, step_ends
from selftrain.sampling.base import Completion, Request, Sampler
from selftrain.sampling.ending import cut, trim
from selftrain.search.asks import Proposal, Step, Wanted
from selftrain.seeds import derive
from selftrain.types import FinishReason

BLANK = 4
"""Separators with nothing between them after which a step counts as empty."""


@dataclass
class Drawn:
    """One proposal while it is drawn."""

    wanted: Wanted
    seed: int
    ids: tuple[int, ...] = ()
    text: str = ""
    logprobs: tuple[float, ...] | None = ()
    finish_reason: FinishReason = "length"
    separated: bool = False
    """The separator ended what was drawn last; a stop id ends a response, and leaves no text."""

    @property
    def room(self) -> int:
        return self.wanted.max_tokens - len(self.ids)


class Proposer:
    """Answers what a search wants; `selftrain.search.asks.Functions.propose`.

    Args:
        asked: a request for a whole response to each problem, by its id.
        separator: what ends a step.
    """

    def __init__(self, engine: Sampler, tokenizer: Any, asked: Mapping[str, Request], separator: str) -> None:
        self._engine, self._tokenizer, self._asked, self._separator = engine, tokenizer, asked, separator
        self._pieces = Pieces(tokenizer)
        self.steps = self.separated = 0
        """Steps that were drawn, and those that a separator ended."""

    def __call__(self, wanted: Sequence[Wanted]) -> list[list[Proposal]]:
        rows = [[Drawn(one, seed) for seed in one.seeds] for one in wanted]
        pending = [row for own in rows for row in own]
        for turn in range(BLANK):
            self._draw(pending, turn)
            pending = [row for row in pending if self._blank(row)]
            if not pending:
                break
        return [[self._proposal(row) for row in own] for own in rows]

    def _draw(self, rows: Sequence[Drawn], turn: int) -> None:
        """Draw on; proposals behind one state are samples of one request, which the engine reads once."""
        groups: dict[tuple[int, tuple[int, ...], int], list[Drawn]] = {}
        for row in rows:
            groups.setdefault((id(row.wanted), row.ids, row.room), []).append(row)
        together = list(groups.values())
        work = [self._request(own, turn) for own in together]
        answers = self._engine.sample(work)
        for completions in failing_as_run_error(answers, "the sampler"):
            for found in completions:
                self._take(together[found.request][found.index], found)

    def _request(self, rows: Sequence[Drawn], turn: int) -> Request:
        first, wanted = rows[0], rows[0].wanted
        asked = self._asked[wanted.state.problem]
        path = tuple(token for step in wanted.state.steps for token in step)
        # Never more than the task allows, whatever the others of this batch may have.
        room = min(first.room, asked.settings.max_tokens - len(path) - len(first.ids))
        settings = replace(asked.settings, max_tokens=max(room, 0))
        if wanted.greedy:
            settings = replace(settings, temperature=0.0)
        if not wanted.to_end:
            settings = replace(settings, stop=(*settings.stop, self._separator))
        seeds = tuple(derive(row.seed, turn) if turn else row.seed for row in rows)
        prompt = (*asked.prompt_ids, *path, *first.ids)
        return replace(asked, prompt_ids=prompt, seeds=seeds, settings=settings, keep_stop=not wanted.to_end)

    def _blank(self, row: Drawn) -> bool:
        """Whether a separator ended what is no step yet."""
        return row.separated and not row.text.strip() and row.room > 0

    def _proposal(self, row: Drawn) -> Proposal:
        ids, text, state = row.ids, row.text, row.wanted.state
        stop = self._asked[state.problem].settings.stop
        whole = state.text + text
        ended = row.finish_reason in ("eos", "stop")
        if (shorter := cut(whole, stop)) != whole:
            # It began in an earlier step, or the sampler kept it for the separator's sake.
            text, ended = shorter[len(state.text) :], True
            ids = tuple(trim(self._tokenizer, ids, text)[0])
        elif row.separated:
            ended = False
        reason = None if row.finish_reason in ("eos", "stop") else row.finish_reason
        if row.wanted.to_end:
            steps = list(self._cut(row, ids, ended, reason))
        else:
            steps = [Step(ids, text, ended, reason, _prior(row, 0, len(ids)))]
        self.steps += len(steps)
        self.separated += sum(self._separator in step.text.lstrip() for step in steps)
        return steps

    def _cut(self, row: Drawn, ids: tuple[int, ...], ended: bool, reason: str | None) -> Iterator[Step]:
        """A whole response step by step."""
        texts = self._pieces.of(ids)
        ends = step_ends(texts, self._separator) or (0,)
        for start, end in pairwise((0, *ends)):
            last = end == ends[-1]
            text, prior = "".join(texts[start:end]), _prior(row, start, end)
            yield Step(ids[start:end], text, ended and last, reason if last else None, prior)

    def _take(self, row: Drawn, found: Completion) -> None:
        row.ids, row.text, row.finish_reason = (*row.ids, *found.ids), row.text + found.text, found.finish_reason
        row.separated = not row.wanted.to_end and found.finish_reason == "stop" and self._separator in found.text
        known = row.logprobs is not None and found.logprobs is not None
        row.logprobs = (*(row.logprobs or ()), *(found.logprobs or ())) if known else None


def _prior(row: Drawn, start: int, end: int) -> float | None:
    """log p of some of what was drawn; None where the sampler records none."""
    return None if row.logprobs is None else sum(row.logprobs[start:end])
