"""A small server that speaks OpenAI's protocol on loopback, with switches for what servers do wrong.

What it answers follows from the prompt and the seed. Its tokens are characters, and NUL at the end,
where it is given no other tokenizer.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from loopback import Handler, Served


def codes(text: str) -> list[int]:
    return [*map(ord, text)]


def characters(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def number_and_answer(prompt: str, seed: int) -> str:
    return f"{seed} #7"


class FakeOpenAI(Served):
    """Answers as its fields say."""

    def __init__(self, model: str = "teacher") -> None:
        self.model = self.replies_as = model
        self.write: Callable[[str, int], str] = number_and_answer
        self.encode: Callable[[str], Any] = codes
        self.decode: Callable[[Any], Any] = characters
        self.end = 0
        self.faults: list[str] = []
        """What becomes of the first requests: ``429``, ``500``, ``drop``, ``torn``, ``stall``, ``empty``."""
        self.unanswered: set[int] = set()
        """Seeds to which nothing is ever said."""
        self.refuses: dict[str, str] = {}
        """Fields that are refused with status 400, and what is said."""
        self.key = ""
        self.gives_ids = True
        self.echo: list[int] | None = None
        """Prompt ids it says it read; None: those it did."""
        self.delay = 0.0
        self.dies_after: int | None = None
        """Whole replies after which connections end without any."""
        self.paths: list[str] = []
        self.answered: list[tuple[str, int]] = []
        """Prompt and seed of every whole reply."""
        self.abandoned = 0
        super().__init__(Asked)

    def prompt_of(self, body: dict[str, Any]) -> str:
        prompt = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        return str(prompt if isinstance(prompt, str) else self.decode(prompt))

    def reply(self, body: dict[str, Any], chat: bool) -> dict[str, Any]:
        prompt = self.prompt_of(body)
        text = self.write(prompt, body["seed"])
        ids, reason, by = [*self.encode(text), self.end], "stop", None
        room = body.get("max_tokens") or body["max_completion_tokens"]
        for stop in body.get("stop", ()):
            if stop in text:
                text, _, rest = text.partition(stop)
                ids, by = ids[: -len(rest) - 1], stop
        if len(ids) > room:
            ids, text, reason, by = ids[:room], text[:room], "length", None
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "stop_reason": by}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        read = self.encode(prompt) if self.echo is None else self.echo
        whole: dict[str, Any] = {"model": self.replies_as, "choices": [choice]}
        if self.gives_ids and body.get("return_token_ids"):
            choice["token_ids"] = ids
            (whole if chat else choice)["prompt_token_ids"] = read
        return whole


class Asked(Handler):
    def do_GET(self) -> None:
        self.send(200, {"data": [{"id": self.server.fake.model}]} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        fake, body = self.server.fake, self.body()
        with fake.asked_for(body):
            with fake.lock:
                fake.paths.append(self.path)
                fault = fake.faults.pop(0) if fake.faults else ""
            self._answer(fake, body, fault)

    def _answer(self, fake: FakeOpenAI, body: dict[str, Any], fault: str) -> None:
        time.sleep(fake.delay)
        refused = [said for field, said in fake.refuses.items() if field in body]
        if fake.dies_after is not None and len(fake.answered) >= fake.dies_after:
            self.close_connection = True
        elif fault == "stall" or body["seed"] in fake.unanswered:
            self._stall(fake)
        elif fault in ("429", "500"):
            self.send(int(fault), {"error": {"message": "busy"}}, {"Retry-After": "0.9"} if fault == "429" else {})
        elif fake.key and self.headers["Authorization"] != f"Bearer {fake.key}":
            self.send(401, {"error": {"message": f"bad key {self.headers['Authorization']}"}})
        elif body["model"] != fake.model:
            self.send(404, {"error": {"message": "no such model"}})
        elif refused:
            self.send(400, {"error": {"message": refused[0]}})
        else:
            self._reply(fake, body, fault)

    def _reply(self, fake: FakeOpenAI, body: dict[str, Any], fault: str) -> None:
        whole = fake.reply(body, chat=self.path.endswith("/chat/completions"))
        data = json.dumps({"model": fake.model} if fault == "empty" else whole).encode()
        if fault == "torn":
            data = data[:-20]
        if fault == "drop":
            self.close_connection = True
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            return
        if not fault:
            with fake.lock:
                fake.answered.append((fake.prompt_of(body), body["seed"]))
        self.send(200, data)

    def _stall(self, fake: FakeOpenAI) -> None:
        """Say nothing until released; notes where the client leaves."""
        self.close_connection = True
        while not fake.released.is_set():
            if select.select([self.connection], [], [], 0.02)[0] and not self.connection.recv(1, socket.MSG_PEEK):
                with fake.lock:
                    fake.abandoned += 1
                return
