"""A small server that judges: it speaks OpenAI's protocol on loopback, and keeps what it was asked."""

from __future__ import annotations

import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class JudgeServer:
    """A context manager; says Yes where the two quoted answers have the same letters and digits, No elsewhere."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.says: str | None = None
        """In place of its judgement."""
        self.status = 200
        self._server = Listener(("127.0.0.1", 0), Handler)
        self._server.judge = self
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="judge").start()

    def __enter__(self) -> JudgeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def prompts(self) -> list[str]:
        return [str(body["messages"][0]["content"]) for body in self.asked]

    def judgement(self, prompt: str) -> str:
        if self.says is not None:
            return self.says
        pair = re.findall(r"^(?:reference answer|answer to check): (.*)$", prompt, re.MULTILINE)
        gold, answer = (re.sub(r"\W", "", str(json.loads(text))).lower() for text in pair)
        return "Yes" if gold == answer else "No."


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    judge: JudgeServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Listener

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        judge = self.server.judge
        judge.asked.append(body)
        words = judge.judgement(body["messages"][0]["content"])
        reply = {"model": body["model"], "choices": [{"index": 0, "message": {"role": "assistant", "content": words}}]}
        raw = json.dumps(reply if judge.status == 200 else {"error": {"message": "no"}}).encode()
        self.send_response(judge.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
