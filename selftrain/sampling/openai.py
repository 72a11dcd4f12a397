"""Sampling from any server that speaks OpenAI's protocol, by its URL: a teacher, which the server knows by name.

One request per sample, each with its own seed; whether a server answers a seed twice alike is the server's to say.
Finished responses are kept in a journal by the stage. An unfinished one begins anew after a kill: the protocol has no
way to go on with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from selftrain.ranges import Count, Positive
from selftrain.sampling.base import ALL, Answers, Completion, Place, Request
from selftrain.sampling.openai_server import Server
from selftrain.sampling.openai_wire import OWN
from selftrain.sampling.order import order

HEARTBEAT = 0.5
"""Seconds after which verdicts are looked at, also where no response has come: some may have become superfluous."""


@dataclass(frozen=True)
class OpenAI:
    """Options of the sampler; needs the package `openai` (pip's extra ``openai``)."""

    url: str = ""
    """Where the server's API begins, such as ``http://127.0.0.1:8000/v1``."""
    endpoint: Literal["auto", "completions", "chat"] = "auto"
    """auto: chat where the prompt is a chat, completions where it is plain text."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable with the API key, which is sent to ``url`` and never stored; without it a placeholder is."""
    concurrency: Count = 64
    """Requests in flight at most."""
    requests_per_minute: Count | None = None
    """Requests begun per minute at most, evenly spread; what is asked again after an error comes on top."""
    deadline: Positive = 600.0
    """Seconds one response may take in all, retries included."""
    retries: Count = 5
    """Times a request is sent again after an overload (429), a server error, a broken connection or a torn reply."""
    token_ids: Literal["auto", "never"] = "auto"
    """auto: ask for the ids of the response's tokens, which vLLM gives; other servers do without."""
    prompt_ids: bool = False
    """Send the prompt as token ids of the policy, to a server of a model with the same tokenizer."""
    served_as: str | None = None
    """What the server calls the model in its replies, where that is another name than it is asked by."""
    reasoning: tuple[str, str] = ("<think>", "</think>")
    """Put around what a server returns apart as reasoning; the answer follows it."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of every request, such as ``chat_template_kwargs``."""

    name = "openai"
    speed = ("url", "key_env", "concurrency", "requests_per_minute", "deadline", "retries")
    remote = True
    journaled = True

    def check(self) -> None:
        """Raises ValueError, the option first, where nothing could be asked this way."""
        from importlib.util import find_spec

        if find_spec("openai") is None:
            raise ValueError("kind: openai needs the package of that name; pip install 'selftrain[openai]'")
        _check_url(self.url)
        if self.prompt_ids and (self.endpoint == "chat" or self.token_ids == "never"):
            raise ValueError(
                "prompt_ids: needs the completions endpoint, and token_ids=auto to see that the server read them"
            )
        for key in OWN.intersection(self.extra):
            raise ValueError(f"extra.{key}: the sampler sets it; remove it")

    def open(self, checkpoint: Path) -> OpenAISampler:
        """``checkpoint`` is the name of the model."""
        return OpenAISampler(self, str(checkpoint))


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"url: '{url}' is no address; give one such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise ValueError("url: holds a user or password; put a key into the environment variable key_env names")


class OpenAISampler:
    """One model of one server."""

    def __init__(self, options: OpenAI, model: str) -> None:
        self._options = options
        self._server = Server(options, model)
        self._next = 0.0
        """When the next request may begin, on the monotonic clock."""

    def close(self) -> None:
        self._server.close()

    def sample(self, work: Sequence[Request], answers: Answers = ALL) -> Iterator[list[Completion]]:
        """As `Sampler.sample`. After a failure nothing more is asked, and what is in flight may still come, each
        within its deadline: it may have been paid for.

        Raises:
            ConnectionError: the server cannot be reached, or answers nothing that can be used.
            TimeoutError: a response took longer than the deadline.
            RuntimeError: the server refuses the requests, or answers as another model.
        """
        todo = order(work, answers, self._options.concurrency)
        flying: dict[Place, Future[Completion]] = {}
        more, finished, failure = True, 0, None
        try:
            while more or flying:
                for place in answers.dropped():
                    if future := flying.pop(place, None):
                        future.cancel()
                more = more and self._launch(work, todo, flying)
                landed, error = self._land(flying)
                finished += len(landed)
                if error:
                    more, failure = False, failure or error
                if landed or answers.by_index:
                    yield landed
            if failure:
                raise type(failure)(f"{failure}; {finished} responses had come and are kept") from failure
        finally:
            for future in flying.values():
                future.cancel()

    def _launch(self, work: Sequence[Request], todo: Iterator[Place], flying: dict[Place, Future[Completion]]) -> bool:
        """Begin as many requests as there is room for; whether there are more."""
        while len(flying) < self._options.concurrency and self._wait() == 0:
            place = next(todo, None)
            if place is None:
                return False
            flying[place] = self._server.ask(work[place[0]], place)
            if self._options.requests_per_minute:
                self._next = max(self._next, time.monotonic()) + 60 / self._options.requests_per_minute
        return True

    def _wait(self) -> float:
        """Seconds until the next request may begin."""
        return max(0.0, self._next - time.monotonic())

    def _land(self, flying: dict[Place, Future[Completion]]) -> tuple[list[Completion], OSError | RuntimeError | None]:
        """Responses that have come, and what went wrong; waits for one for a moment."""
        pause = min(HEARTBEAT, self._wait() or HEARTBEAT)
        if not flying:
            time.sleep(self._wait())
        landed, failure = [], None
        done = wait(flying.values(), timeout=pause, return_when=FIRST_COMPLETED).done
        for place in [place for place, future in flying.items() if future in done]:
            try:
                landed.append(flying.pop(place).result())
            except (ConnectionError, TimeoutError, RuntimeError) as error:
                failure = error
        return landed, failure
