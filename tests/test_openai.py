"""The openai sampler against a small server on loopback: what it asks, what it makes of the replies, and of faults."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from asking import collect
from fake_openai import FakeOpenAI

from selftrain.sampling.base import AllWanted, Request
from selftrain.sampling.openai import OpenAI, OpenAISampler
from selftrain.schema import Sampling
from selftrain.seeds import derive
from selftrain.types import Message, Problem

SETTINGS = Sampling(max_tokens=24)
Key = tuple[int, int]
Open = Callable[..., OpenAISampler]


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server:
        yield server


@pytest.fixture
def served(fake: FakeOpenAI) -> tuple[str, str]:
    """Address and model of a server that works; any that gives token ids will do."""
    return fake.url, fake.model


@pytest.fixture
def opened(served: tuple[str, str]) -> Iterator[Open]:
    """Opens samplers, and sees that nothing is left of them."""
    samplers = []

    def opens(model: str | None = None, **options: Any) -> OpenAISampler:
        samplers.append(OpenAISampler(OpenAI(**{"url": served[0], "retries": 2, **options}), model or served[1]))
        return samplers[-1]

    yield opens
    for sampler in samplers:
        sampler.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "openai"]


def work_list(prompts: int = 3, n: int = 4, settings: Sampling = SETTINGS, chat: bool = False) -> list[Request]:
    texts = [f"{number}+1=" for number in range(prompts)]
    return [
        Request(
            Problem(f"t/train/{text}", "t", "train", text, "7"),
            tuple(map(ord, text)),
            tuple(derive(text, index) for index in range(n)),
            settings,
            messages=(Message("system", "Add."), Message("user", text)) if chat else (),
            text=text,
        )
        for text in texts
    ]


def test_each_wanted_sample_comes_once_with_its_ids(opened: Open) -> None:
    done = frozenset({(0, 1), (2, 3)})
    found = collect(opened(), work_list(), AllWanted(done))
    assert set(found) == {(request, index) for request in range(3) for index in range(4)} - done
    for answer in found.values():
        assert answer.ids_from == "engine" and 0 < len(answer.ids) <= 24
        assert answer.finish_reason in ("eos", "length")


def test_each_sample_is_asked_with_its_own_seed_and_explicit_settings(fake: FakeOpenAI, opened: Open) -> None:
    work = work_list(2, 3, Sampling(temperature=0.7, top_p=0.9, max_tokens=24))
    found = collect(opened(extra={"min_p": 0.1}), work)
    for (request, index), answer in found.items():
        assert answer.text == f"{work[request].seeds[index] % 2**31} #7"
        assert answer.ids == (*map(ord, answer.text), 0) and answer.finish_reason == "eos"
    asked = {"temperature", "top_p", "max_tokens", "min_p", "model", "seed", "prompt", "return_token_ids"}
    for body in fake.bodies:
        assert set(body) == asked
        assert (body["temperature"], body["top_p"], body["max_tokens"], body["min_p"]) == (0.7, 0.9, 24, 0.1)
    restricted = Sampling(max_tokens=24, top_k=5, stop=("#",), stop_ids=(55,))
    stopped = collect(opened(), work_list(1, 1, restricted))[0, 0]
    assert (fake.bodies[-1]["top_k"], fake.bodies[-1]["stop"], fake.bodies[-1]["stop_token_ids"]) == (5, ["#"], [55])
    assert stopped.finish_reason == "stop" and stopped.text.endswith(" ") and stopped.ids[-1] == ord("#")


@pytest.mark.parametrize(
    ("options", "chat", "path", "prompt"),
    [
        ({}, False, "/v1/completions", "0+1="),
        ({}, True, "/v1/chat/completions", ["system", "user"]),
        ({"endpoint": "completions"}, True, "/v1/completions", "0+1="),
        ({"endpoint": "chat"}, False, "/v1/chat/completions", ["user"]),
        ({"prompt_ids": True}, True, "/v1/completions", [48, 43, 49, 61]),
    ],
)
def test_endpoint_follows_from_the_prompt(
    fake: FakeOpenAI, opened: Open, options: dict[str, Any], chat: bool, path: str, prompt: Any
) -> None:
    answer = collect(opened(**options), work_list(1, 1, chat=chat))[0, 0]
    (body,) = fake.bodies
    assert fake.paths == [path]
    assert body.get("prompt", [turn["role"] for turn in body.get("messages", ())]) == prompt
    assert answer.text == f"{body['seed']} #7" and answer.ids == (*map(ord, answer.text), 0)


def test_a_server_without_ids_gives_text(fake: FakeOpenAI, opened: Open) -> None:
    fake.gives_ids = False
    answers = collect(opened(), work_list())
    assert {(answer.ids, answer.ids_from) for answer in answers.values()} == {((), "retokenised")}
    collect(opened(token_ids="never"), work_list(1, 1))
    assert "return_token_ids" not in fake.bodies[-1]


def test_what_a_server_refuses_is_said_otherwise_and_remembered(fake: FakeOpenAI, opened: Open) -> None:
    fake.refuses = {
        "return_token_ids": "Unrecognized request argument supplied: return_token_ids",
        "max_tokens": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
    }
    assert len(collect(opened(concurrency=1), work_list())) == 12
    assert len(fake.bodies) == 12 + 2
    assert fake.bodies[-1]["max_completion_tokens"] == 24


def test_no_more_requests_are_in_flight_than_wanted(fake: FakeOpenAI, opened: Open) -> None:
    fake.delay = 0.05
    assert len(collect(opened(concurrency=3), work_list(6, 4))) == 24
    assert fake.most == 3


def test_requests_begin_at_the_rate_that_is_set(fake: FakeOpenAI, opened: Open) -> None:
    collect(opened(requests_per_minute=600), work_list(2, 4))
    # 8 requests 0.1 s apart; each may reach the server a little late.
    assert fake.times[-1] - fake.times[0] >= 0.6


@dataclass(frozen=True)
class Stopping(AllWanted):
    """All but the first samples become superfluous when one response has come."""

    by_index: bool = True
    come: list[Key] = field(default_factory=list)

    def wanted(self, request: int, index: int) -> bool:
        return not (self.come and index)

    def dropped(self) -> list[Key]:
        return [(request, index) for request in range(3) for index in range(1, 4)] if self.come else []


def test_superfluous_requests_are_ended_and_first_samples_come_first(fake: FakeOpenAI, opened: Open) -> None:
    work, answers = work_list(), Stopping()
    first, second = ({request.seeds[index] % 2**31 for request in work} for index in range(2))
    fake.unanswered = second
    for completions in opened(concurrency=5).sample(work, answers):
        answers.come.extend((completion.request, completion.index) for completion in completions)
    assert set(answers.come) == {(0, 0), (1, 0), (2, 0)}
    wait_until(lambda: fake.flying == 0)
    asked = [body["seed"] for body in fake.bodies]
    assert first <= set(asked) <= first | second and len(asked) <= 5
    assert fake.abandoned == len(asked) - 3


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    assert holds()


def test_closing_the_generator_ends_what_is_in_flight(fake: FakeOpenAI, opened: Open) -> None:
    fake.faults = ["", "stall", "stall", "stall"]
    sampler, work = opened(concurrency=4), work_list(1, 4)
    answers = sampler.sample(work)
    assert len(next(answers)) == 1
    wait_until(lambda: len(fake.bodies) == 4)
    answers.close()  # type: ignore[attr-defined]
    wait_until(lambda: fake.abandoned == 3)
    # The sampler is still good for another work list.
    assert len(collect(sampler, work)) == 4


def test_closing_the_sampler_ends_what_is_in_flight(fake: FakeOpenAI) -> None:
    fake.faults = ["", "stall", "stall", "stall"]
    sampler = OpenAISampler(OpenAI(url=fake.url), fake.model)
    answers = sampler.sample(work_list(1, 4))
    assert len(next(answers)) == 1
    sampler.close()
    wait_until(lambda: fake.flying == 0)
    assert "openai" not in {thread.name for thread in threading.enumerate()}


def test_an_interrupt_ends_what_is_in_flight(fake: FakeOpenAI, opened: Open) -> None:
    fake.faults = ["stall"] * 4
    sampler = opened(deadline=30)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Ignored in jobs a shell runs in the background.

    def interrupt() -> None:
        wait_until(lambda: fake.flying == 4)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        collect(sampler, work_list(1, 4))
    thread.join()
    signal.signal(signal.SIGINT, before)
    wait_until(lambda: fake.abandoned == 4)


@pytest.mark.parametrize("fault", ["429", "500", "drop", "torn", "empty"])
def test_passing_faults_cost_nothing(fake: FakeOpenAI, opened: Open, fault: str) -> None:
    fake.faults = [fault]
    work = work_list(1, 2)
    found = collect(opened(concurrency=1), work)
    assert [found[0, index].text for index in range(2)] == [f"{seed % 2**31} #7" for seed in work[0].seeds]
    assert len(fake.bodies) == 3
    if fault == "429":
        assert fake.times[1] - fake.times[0] >= 0.9  # What Retry-After says, not the client's own half second.


SPOILS: dict[str, tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = {
    "wants a key": ({"key": "sesame"}, {}, RuntimeError, "wants a key; put it into the environment variable FAKE_KEY"),
    "another model": (
        {"replies_as": "small"},
        {},
        RuntimeError,
        "was asked for 'teacher' and answered as 'small'; nothing of that is kept; .* sampler.served_as='small'",
    ),
    "unknown model": ({"model": "big"}, {}, RuntimeError, "has no model 'teacher', .*; it serves big; set grow"),
    "no such path": ({"model": "big"}, {"path": "/v2"}, RuntimeError, "it lists no models either; check sampler.url"),
    "no top_k": ({"refuses": {"top_k": "unknown field top_k"}}, {}, RuntimeError, "takes no top_k: set it to 0"),
    "too long": ({"refuses": {"max_tokens": "context is 8"}}, {}, RuntimeError, r"refuses .* \(400: context is 8\)"),
    "busy": ({"faults": ["429"] * 9}, {}, ConnectionError, "overloaded after 2 tries .*sampler.requests_per_minute"),
    "broken": ({"faults": ["500"] * 9}, {}, ConnectionError, r"fails after 2 tries \(500: busy\)"),
    "garbled": ({"faults": ["torn"] * 9}, {}, ConnectionError, "replies that cannot be read"),
    "stalled": ({"faults": ["stall"] * 9}, {"deadline": 0.4}, TimeoutError, "no whole response within 0.4 seconds"),
    "other prompt": ({"echo": [1, 2]}, {"prompt_ids": True}, RuntimeError, "read other prompt ids than it was sent"),
    "no echo": ({"gives_ids": False}, {"prompt_ids": True}, RuntimeError, "does not say which prompt ids it read"),
}


@pytest.mark.parametrize("case", SPOILS)
def test_lasting_faults_are_one_line(
    fake: FakeOpenAI, opened: Open, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    switches, options, kind, says = SPOILS[case]
    options = {"retries": 1, "key_env": "FAKE_KEY", **options}
    for name, value in switches.items():
        setattr(fake, name, value)
    if path := options.pop("path", None):
        options["url"] = fake.url.replace("/v1", path)
    with pytest.raises(kind, match=says) as raised:
        collect(opened("teacher", **options), work_list(1, 2, Sampling(max_tokens=24, top_k=5)))
    assert "0 responses had come and are kept" in str(raised.value) and "\n" not in str(raised.value)


def test_a_key_is_sent_and_never_shown(fake: FakeOpenAI, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.key = "sesame"
    monkeypatch.setenv("FAKE_KEY", "sesame")
    assert len(collect(opened(key_env="FAKE_KEY"), work_list(1, 1))) == 1
    monkeypatch.setenv("FAKE_KEY", "simsalabim")
    with pytest.raises(RuntimeError, match=r"does not accept the key in .*FAKE_KEY \(401: bad key Bearer \*\*\*\)"):
        collect(opened(key_env="FAKE_KEY"), work_list(1, 1))


def test_a_server_that_is_not_there(opened: Open) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ConnectionError, match=f"no answer from {url} after 2 tries .*is the server up"):
        collect(opened(url=url, retries=1), work_list(1, 1))


def test_what_came_before_a_server_died_is_given(fake: FakeOpenAI, opened: Open) -> None:
    fake.dies_after = 5
    found = []
    with pytest.raises(ConnectionError, match=r"no answer from .*5 responses had come and are kept"):
        for completions in opened(retries=1, concurrency=1).sample(work_list()):
            found += completions
    assert len(found) == 5


def test_what_is_in_flight_when_one_fails_is_given_and_nothing_more_is_asked(fake: FakeOpenAI, opened: Open) -> None:
    fake.faults, fake.delay = ["stall"], 0.4
    found = []
    with pytest.raises(
        TimeoutError, match=r"no whole response within 1 seconds.* responses had come and are kept"
    ) as raised:
        for completions in opened(retries=0, concurrency=4, deadline=1).sample(work_list(10, 4)):
            found += completions
    wait_until(lambda: fake.flying == 0)
    # What was begun after the one that failed, and was under way at the end of its second, came too.
    assert 0 < len(found) == len(fake.answered) == len(fake.bodies) - 1 < 40
    assert f"; {len(found)} responses had come" in str(raised.value)
