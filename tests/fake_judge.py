"""A server that judges, for the tests of the verifier `http`: real sockets, and it misbehaves as the response says."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PASSING = {"busy": 503, "limit": 429}


class FakeJudge:
    """Replies right where the response is the gold answer; a context manager.

    A response may also be ``busy``, ``limit``, ``torn`` or ``drop``, followed by the number of times it is to be so,
    ``slow``, ``refuse``, or ``say`` and the JSON to reply.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.times: list[float] = []
        self.flying = self.most = 0
        self.lock, self.released = threading.Lock(), threading.Event()
        self._server = Listener(("127.0.0.1", 0), Handler)
        self._server.fake = self
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="fake-judge").start()

    def __enter__(self) -> FakeJudge:
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/judge"

    def asked(self, response: str) -> int:
        """How often."""
        return sum(body["response"] == response for body in self.bodies)


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    fake: FakeJudge

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is none of ours."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Listener

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        fake = self.server.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with fake.lock:
            fake.bodies.append(body)
            fake.times.append(time.monotonic())
            fake.keys.add(self.headers["Authorization"])
            fake.flying += 1
            fake.most = max(fake.most, fake.flying)
        try:
            self._answer(fake, body)
        finally:
            with fake.lock:
                fake.flying -= 1

    def _answer(self, fake: FakeJudge, body: dict[str, Any]) -> None:
        word, _, rest = body["response"].partition(" ")
        failing = rest.isdecimal() and fake.asked(body["response"]) <= int(rest)
        if word in PASSING and failing:
            self._send(PASSING[word], b"later", {"Retry-After": "1"} if word == "limit" else {})
        elif word == "torn" and failing:
            self._send(200, b'{"status": "ri')
        elif word == "drop" and failing:
            self.close_connection = True
        elif word == "slow":
            fake.released.wait(60)
            self.close_connection = True
        elif word == "refuse":
            self._send(422, b"no such problem")
        elif word == "say":
            self._send(200, rest.encode())
        else:
            time.sleep(0.02)
            judged = {"status": "right"} if word == body["answer"] or rest else {"value": 0.25, "answer": word}
            self._send(200, json.dumps(judged).encode())

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
