"""A server of your own as a verifier: one POST of JSON per response.

Sent: ``{"id", "task", "question", "answer", "response", "metadata"}``. A reply with the status 200 holds a number or a
bool, or an object with ``value`` or ``status`` and, where it has them, ``answer`` and ``reason``: what a verifier may
return. ``null`` means: not mine.

What may pass (no connection, 429, 5xx, a reply that is torn) is asked again, later each time, or when ``Retry-After``
says, until the deadline. No failure is ever ``wrong``: it is ``timeout`` where the deadline came, else ``error``.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from selftrain.ranges import Count, Positive, Share, Size
from selftrain.types import Problem, Verdict

if TYPE_CHECKING:
    from httpx import AsyncClient, Response

FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0
"""Seconds between two tries; doubled each time."""
QUOTED_CHARACTERS = 200
KEYS = {"status", "value", "answer", "reason"}


class Passing(Exception):
    """A failure that may be none the next time; the message says what it was.

    Args:
        wait: seconds the server asks to be left alone.
    """

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Refused(Exception):
    """A failure that will be the same again."""


@dataclass(frozen=True)
class HTTPEndpoint:
    """Right where the server says so.

    Raises:
        ValueError: the url is none.
    """

    url: str = ""
    """Where to POST, such as ``http://localhost:8000/judge``."""
    key_env: str = ""
    """Environment variable with a key; sent as ``Authorization: Bearer``."""
    deadline: Positive = 8.0
    """Seconds for one response, tries and waiting together; keep it below ``reward.verify.seconds``."""
    retries: Size = 5
    """Further tries, while there is time."""
    concurrency: Count = 16
    """Requests each verifier worker has under way at once."""
    right_at: Share = 1.0
    """The number from which on a response is right."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url: give one such as http://localhost:8000/judge, not {self.url!r}")

    async def __call__(self, problem: Problem, response: str) -> Any:
        last: list[str] = []
        try:
            async with asyncio.timeout(self.deadline):
                return self._verdict(await self._asked(problem, response, last))
        except Refused as error:
            return Verdict("error", reason=str(error))
        except TimeoutError:
            why = f" (last: {last[-1]})" if last else ""
            return Verdict("timeout", reason=f"{self.url} gave no answer within {self.deadline:g} s{why}")

    def _verdict(self, answer: Any) -> Any:
        """What a server answered, as a verifier returns it."""
        if not isinstance(answer, dict):
            return NotImplemented if answer is None else answer
        value = answer.get("value")
        if "status" not in answer and isinstance(value, int | float):
            answer = {**answer, "status": "right" if value >= self.right_at else "wrong"}
        return Verdict(**{"status": "error", "reason": f"{self.url} replied the value {value!r}", **answer})

    async def _asked(self, problem: Problem, response: str, failures: list[str]) -> Any:
        """The answer; ``failures`` gets what every try before it failed with."""
        body = {name: getattr(problem, name) for name in ("id", "task", "question", "answer", "metadata")}
        content = json.dumps({**body, "response": response}).encode()  # Escapes what is no UTF-8.
        wait = FIRST_WAIT
        while True:
            try:
                return _answer(self.url, await self._post(content))
            except Passing as error:
                failures.append(str(error))
                if len(failures) > self.retries:
                    raise Refused(f"{error}, {len(failures)} times") from error
                await asyncio.sleep(max(wait, error.wait))
                wait = min(2 * wait, LONGEST_WAIT)

    async def _post(self, content: bytes) -> Response:
        from httpx import TransportError

        try:
            return await self._client.post(self.url, content=content)
        except TransportError as error:
            raise Passing(f"{self.url}: {type(error).__name__}: {error}") from error

    @cached_property
    def _client(self) -> AsyncClient:
        from httpx import AsyncClient, Limits

        headers = {"Content-Type": "application/json"}
        if self.key_env:
            headers["Authorization"] = f"Bearer {os.environ.get(self.key_env, '')}"
        return AsyncClient(headers=headers, timeout=self.deadline, limits=Limits(max_connections=self.concurrency))


def _answer(url: str, reply: Response) -> Any:
    """The JSON of a reply."""
    told = f"{url} replied {reply.status_code}: {reply.text[:QUOTED_CHARACTERS]!r}"
    if reply.status_code == 429 or reply.status_code >= 500:
        after = reply.headers.get("Retry-After", "")
        raise Passing(told, float(after) if after.isdecimal() else 0.0)
    if reply.status_code != 200:
        raise Refused(told)
    try:
        answer = json.loads(reply.content)
    except ValueError as error:
        raise Passing(f"{told}, which is no JSON") from error
    known = answer.keys() <= KEYS and answer.keys() & {"status", "value"} if isinstance(answer, dict) else True
    if not known or isinstance(answer, list | str):
        raise Refused(f"{told}; expected a number, or an object with value or status, answer and reason")
    return answer
