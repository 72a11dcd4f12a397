"""Stop strings that stay: what every sampler gives of a step, so that the next one can be asked for behind it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asking import ask, collect

from selftrain.sampling.base import Request, Sampler
from selftrain.sampling.ending import completion
from selftrain.sampling.scripted import Scripted
from selftrain.sampling.transformers import Transformers
from selftrain.schema import Sampling

PROMPTS = ("1+2=", "7+5*3-2=", "9*9=", "8=")
STOP = ("4", "7")


@pytest.fixture(params=["scripted", "transformers"])
def sampler(request: pytest.FixtureRequest, tiny: Path) -> Any:
    """Each sampler, open with the tiny checkpoint; vLLM's is asked the same in test_vllm.py."""
    options: dict[str, Any] = {
        "scripted": Scripted(length=12, unparsed=0.1),
        "transformers": Transformers(batch_size=7, logprobs=True),
    }
    opened = options[request.param].open(tiny)
    yield opened
    opened.close()


def steps(tokenizer: Any, settings: Sampling, n: int) -> list[Request]:
    return [replace(ask(tokenizer, prompt, n, settings), keep_stop=True) for prompt in PROMPTS]


def test_a_step_ends_with_the_token_that_completes_its_stop_string(sampler: Sampler, tokenizer: Any) -> None:
    settings = Sampling(max_tokens=24)
    free = collect(sampler, [ask(tokenizer, prompt, 16, settings) for prompt in PROMPTS])
    kept = collect(sampler, steps(tokenizer, replace(settings, stop=STOP), 16))
    reasons = Counter(step.finish_reason for step in kept.values())
    assert reasons["stop"] > 20
    for place, step in kept.items():
        assert free[place].ids[: len(step.ids)] == step.ids and step.ids_from == "engine"
        assert free[place].text.startswith(step.text)
        assert tokenizer.decode(step.ids, skip_special_tokens=True) == step.text
        assert not set(STOP) & set(step.text[:-1])
        assert (step.text[-1:] in STOP) == (step.finish_reason == "stop")
        assert step.logprobs is None or len(step.logprobs) == len(step.ids)


def test_limits_and_end_tokens_are_told_apart_from_stops(sampler: Sampler, tokenizer: Any) -> None:
    for step in collect(sampler, steps(tokenizer, Sampling(max_tokens=5, stop=STOP), 16)).values():
        ended = step.ids[-1:] == (tokenizer.eos_token_id,)
        full = len(step.ids) == 5 and step.text[-1:] not in STOP
        assert step.finish_reason == ("eos" if ended else "length" if full else "stop")


def test_step_by_step_is_what_one_response_is(tiny: Path, tokenizer: Any) -> None:
    """Greedily, each step asked for behind the ids of those before it."""
    engine = Transformers(dtype="float32", device="cpu").open(tiny)
    greedy = Sampling(temperature=0, max_tokens=24)
    (whole,) = collect(engine, [ask(tokenizer, "7+5*3-2=", 1, greedy)]).values()
    stop = (max(set(whole.text), key=whole.text.count),)
    asked = replace(ask(tokenizer, "7+5*3-2=", 1, replace(greedy, stop=stop)), keep_stop=True)
    path: tuple[int, ...] = ()
    turns = 0
    while len(path) < len(whole.ids):
        settings = replace(asked.settings, max_tokens=24 - len(path))
        request = replace(asked, prompt_ids=(*asked.prompt_ids, *path), settings=settings)
        (step,) = collect(engine, [request]).values()
        path, turns = (*path, *step.ids), turns + 1
    assert path == whole.ids
    assert turns > 2


def test_steps_of_different_room_share_a_batch(tiny: Path, tokenizer: Any) -> None:
    engine = Transformers(dtype="float32", device="cpu").open(tiny)
    rooms = (3, 24, 9)
    work = [ask(tokenizer, "9*9=", 8, Sampling(max_tokens=room), str(room)) for room in rooms]
    assert len(list(engine.sample(work))) == 1
    for place, (room, request) in enumerate(zip(rooms, work, strict=True)):
        alone = collect(engine, [request])
        together = collect(engine, work)
        assert [together[place, index].ids for index in range(8)] == [alone[0, index].ids for index in range(8)]
        assert max(len(together[place, index].ids) for index in range(8)) == room


class Spelled:
    """A tokenizer of three tokens, one of which holds a separator in its midst."""

    pieces = ("a", ".\n\nB", "\n")

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return "".join(self.pieces[token] for token in ids)


@pytest.mark.parametrize(
    ("ids", "expected", "text"),
    [((0, 1, 0, 0), (0, 1), "a.\n\nB"), ((0, 2, 2, 0), (0, 2, 2), "a\n\n"), ((0, 2), (0, 2), "a\n")],
)
def test_what_an_engine_drew_beyond_the_stop_string_is_left_out(
    ids: tuple[int, ...], expected: tuple[int, ...], text: str
) -> None:
    settings = Sampling(stop=("\n\n",))
    found = completion(Spelled(), (0, 0), ids, "length", settings, (-1.0,) * len(ids), keep_stop=True)
    assert (found.ids, found.text) == (expected, text)
    assert found.finish_reason == ("stop" if "\n\n" in text else "length")
    assert found.logprobs == (-1.0,) * len(expected)
