"""What a search is given by an engine: steps cut where they end, and what closes a path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asking import ask

from selftrain.drawing.proposing import Proposer
from selftrain.sampling.base import ALL, Answers, Completion, Request
from selftrain.sampling.ending import completion
from selftrain.sampling.transformers import Transformers
from selftrain.schema import Sampling
from selftrain.search.asks import Proposal, State, Step, Wanted
from selftrain.types import FinishReason


class Writing:
    """An engine that goes on with a text of its own, whatever the seed, and records what it is asked."""

    def __init__(self, tokenizer: Any, prompt: str, text: str) -> None:
        self._tokenizer, self._prompt, self._text = tokenizer, prompt, text
        self.calls: list[list[Request]] = []

    def sample(self, work: Sequence[Request], answers: Answers = ALL) -> Iterator[list[Completion]]:
        self.calls.append(list(work))
        for place, request in enumerate(work):
            yield [self._answer(place, index, request) for index in range(len(request.seeds))]

    def _answer(self, place: int, index: int, request: Request) -> Completion:
        written = self._tokenizer.decode(request.prompt_ids)
        assert (self._prompt + self._text).startswith(written)
        whole = [*self._tokenizer.encode((self._prompt + self._text)[len(written) :]), self._tokenizer.eos_token_id]
        ids = whole[: request.settings.max_tokens]
        reason: FinishReason = "eos" if len(ids) == len(whole) else "length"
        numbers = [-0.5] * len(ids)
        return completion(
            self._tokenizer, (place, index), ids, reason, request.settings, numbers, keep_stop=request.keep_stop
        )

    def close(self) -> None:
        """Nothing is held."""


class StopIds(Writing):
    """Ends its text with a stop id in the place of the end token."""

    def _answer(self, place: int, index: int, request: Request) -> Completion:
        (stop,) = request.settings.stop_ids
        written = self._tokenizer.decode(request.prompt_ids)
        ids = [*self._tokenizer.encode((self._prompt + self._text)[len(written) :]), stop]
        return completion(self._tokenizer, (place, index), ids, "stop", request.settings, keep_stop=request.keep_stop)


PROMPT = "1+2="


def proposer(tokenizer: Any, text: str, stop: tuple[str, ...] = (), room: int = 40) -> tuple[Proposer, Writing]:
    engine = Writing(tokenizer, PROMPT, text)
    asked = ask(tokenizer, PROMPT, 1, Sampling(max_tokens=room, stop=stop))
    return Proposer(engine, tokenizer, {"p": asked}, " "), engine


def wanted(tokenizer: Any, *steps: str, to_end: bool = False, n: int = 1, most: int = 20) -> Wanted:
    state = State("p", len(steps), tuple(tuple(tokenizer.encode(step)) for step in steps), "".join(steps))
    return Wanted(state, n, most, to_end, False, tuple(range(n)))


def only(proposals: Sequence[Proposal]) -> Step:
    ((step,),) = proposals
    return step


def test_a_response_is_walked_step_by_step_as_it_was_drawn(tokenizer: Any) -> None:
    text = "1+2=3 3-1=2 #2"
    propose, _ = proposer(tokenizer, text)
    steps: list[Step] = []
    while not steps or not steps[-1].ended:
        steps.append(only(propose([wanted(tokenizer, *(step.text for step in steps))])[0]))
    assert [step.text for step in steps] == ["1+2=3 ", "3-1=2 ", "#2"]
    ids = [token for step in steps for token in step.ids]
    assert ids == [*tokenizer.encode(text), tokenizer.eos_token_id]
    assert [step.prior for step in steps] == [-3.0, -3.0, -1.5]
    assert (propose.steps, propose.separated) == (3, 2)


def test_a_whole_response_is_cut_into_the_same_steps(tokenizer: Any) -> None:
    propose, engine = proposer(tokenizer, "1+2=3 3-1=2 #2")
    ((rest,),) = propose([wanted(tokenizer, "1+2=3 ", to_end=True)])
    assert [step.text for step in rest] == ["3-1=2 ", "#2"]
    assert [step.ended for step in rest] == [False, True]
    assert rest[-1].ids[-1] == tokenizer.eos_token_id
    assert not engine.calls[0][0].keep_stop and engine.calls[0][0].settings.stop == ()
    assert (propose.steps, propose.separated) == (2, 1)


def test_separators_in_front_of_a_step_belong_to_it(tokenizer: Any) -> None:
    propose, engine = proposer(tokenizer, "  1+2=3 #3")
    step = only(propose([wanted(tokenizer)])[0])
    assert (step.text, step.ended, step.reason) == ("  1+2=3 ", False, None)
    assert len(engine.calls) == 3
    assert engine.calls[1][0].seeds != engine.calls[0][0].seeds


def test_separators_alone_are_given_up(tokenizer: Any) -> None:
    step = only(proposer(tokenizer, " " * 30)[0]([wanted(tokenizer)])[0])
    assert step.text == " " * 4 and not step.ended


@pytest.mark.parametrize(
    ("before", "text", "ids"),
    [(("1+2=3 ",), "3-1", "3-1"), (("1+2=3 ", "3-1=2 "), "", "")],
    ids=["within a step", "begun in the step before"],
)
def test_a_stop_string_ends_the_response(tokenizer: Any, before: tuple[str, ...], text: str, ids: str) -> None:
    stop = ("=2 #",) if not text else ("=2",)
    propose, _ = proposer(tokenizer, "1+2=3 3-1=2 #2", stop)
    step = only(propose([wanted(tokenizer, *before)])[0])
    assert (step.text, step.ended) == (text, True)
    assert list(step.ids) == tokenizer.encode(ids)


@pytest.mark.parametrize(
    ("before", "text"),
    [(("1+2=3 ",), ""), (("1+2=3 ",), "#3"), (("1+2=3",), "  #3")],
    ids=["alone", "behind the last words", "behind blanks and the last words"],
)
def test_a_stop_id_ends_the_response_at_once(tokenizer: Any, before: tuple[str, ...], text: str) -> None:
    engine = StopIds(tokenizer, PROMPT, "".join(before) + text)
    asked = ask(tokenizer, PROMPT, 1, Sampling(max_tokens=40, stop_ids=(tokenizer.encode("9")[0],)))
    propose = Proposer(engine, tokenizer, {"p": asked}, " ")
    step = only(propose([wanted(tokenizer, *before)])[0])
    assert (step.text, step.ended, step.reason) == (text, True, None)
    assert list(step.ids) == tokenizer.encode(text)
    assert len(engine.calls) == 1 + len(text) - len(text.lstrip())


def test_limits_close_a_path_with_their_reason(tokenizer: Any, tiny: Path) -> None:
    step = only(proposer(tokenizer, "1+2=3 #3")[0]([wanted(tokenizer, most=3)])[0])
    assert (step.text, step.ended, step.reason) == ("1+2", False, "length")
    step = only(proposer(tokenizer, "1+2=3 #3", room=6)[0]([wanted(tokenizer, "1+2=3 ")])[0])
    assert (step.ids, step.ended, step.reason) == ((), False, "length")
    engine = Transformers(device="cpu").open(tiny)
    asked = ask(tokenizer, "1" * 60, 1, Sampling(max_tokens=80))
    full = wanted(tokenizer, "1+1=")
    (step,) = Proposer(engine, tokenizer, {"p": asked}, " ")([full])[0][0]
    assert (step.ids, step.ended, step.reason) == ((), False, "context")


def test_what_many_trees_want_is_one_call(tokenizer: Any) -> None:
    propose, engine = proposer(tokenizer, "1+2=3 3-1=2 #2")
    greedy = replace(wanted(tokenizer), greedy=True)
    several = [wanted(tokenizer, n=3), wanted(tokenizer, "1+2=3 ", most=7, n=2), greedy]
    found = propose(several)
    assert [len(proposals) for proposals in found] == [3, 2, 1]
    (work,) = engine.calls
    assert [len(request.seeds) for request in work] == [3, 2, 1]
    assert [request.settings.max_tokens for request in work] == [20, 7, 20]
    assert [request.settings.temperature for request in work] == [1.0, 1.0, 0.0]
