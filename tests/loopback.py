"""What the small HTTP servers of the tests share: real sockets on loopback, and counts of what they are asked."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    fake: Any

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is none of ours."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Served:
    """A context manager; serves from its making on, so what a handler reads of it is set before."""

    path = "/v1"

    def __init__(self, handler: type[Handler]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.flying = self.most = 0
        self.lock, self.released = threading.Lock(), threading.Event()
        self._server = Listener(("127.0.0.1", 0), handler)
        self._server.fake = self
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name=type(self).__name__).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{self.path}"

    @contextmanager
    def asked_for(self, body: dict[str, Any]) -> Iterator[None]:
        """Inside, a request is under way."""
        with self.lock:
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.flying += 1
            self.most = max(self.most, self.flying)
        try:
            yield
        finally:
            with self.lock:
                self.flying -= 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Listener

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def body(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return read

    def send(self, status: int, data: Any, headers: dict[str, str] | None = None) -> None:
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(raw)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)
