"""A server that judges, for the tests of the verifier `http`: real sockets, and it misbehaves as the response says."""

from __future__ import annotations

import time
from typing import Any

from loopback import Handler, Served

PASSING = {"busy": 503, "limit": 429}


class FakeJudge(Served):
    """Replies right where the response is the gold answer; a context manager.

    A response may also be ``busy``, ``limit``, ``torn`` or ``drop``, followed by the number of times it is to be so,
    ``slow``, ``refuse``, or ``say`` and the JSON to reply.
    """

    path = "/judge"

    def __init__(self) -> None:
        self.keys: set[str | None] = set()
        super().__init__(Asked)

    def asked(self, response: str) -> int:
        """How often."""
        return sum(body["response"] == response for body in self.bodies)


class Asked(Handler):
    def do_POST(self) -> None:
        fake, body = self.server.fake, self.body()
        with fake.asked_for(body):
            with fake.lock:
                fake.keys.add(self.headers["Authorization"])
            self._answer(fake, body)

    def _answer(self, fake: FakeJudge, body: dict[str, Any]) -> None:
        word, _, rest = body["response"].partition(" ")
        failing = rest.isdecimal() and fake.asked(body["response"]) <= int(rest)
        if word in PASSING and failing:
            self.send(PASSING[word], b"later", {"Retry-After": "1"} if word == "limit" else {})
        elif word == "torn" and failing:
            self.send(200, b'{"status": "ri')
        elif word == "drop" and failing:
            self.close_connection = True
        elif word == "slow":
            fake.released.wait(60)
            self.close_connection = True
        elif word == "refuse":
            self.send(422, b"no such problem")
        elif word == "say":
            self.send(200, rest.encode())
        else:
            time.sleep(0.02)
            judged = {"status": "right"} if word == body["answer"] or rest else {"value": 0.25, "answer": word}
            self.send(200, judged)
