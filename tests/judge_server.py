"""A small server that judges: it speaks OpenAI's protocol on loopback, and keeps what it was asked."""

from __future__ import annotations

import json
import re

from loopback import Handler, Served


class JudgeServer(Served):
    """A context manager; says Yes where the two quoted answers have the same letters and digits, No elsewhere."""

    def __init__(self) -> None:
        self.says: str | None = None
        """In place of its judgement."""
        self.status = 200
        super().__init__(Asked)

    def prompts(self) -> list[str]:
        return [str(body["messages"][0]["content"]) for body in self.bodies]

    def judgement(self, prompt: str) -> str:
        if self.says is not None:
            return self.says
        pair = re.findall(r"^(?:reference answer|answer to check): (.*)$", prompt, re.MULTILINE)
        gold, answer = (re.sub(r"\W", "", str(json.loads(text))).lower() for text in pair)
        return "Yes" if gold == answer else "No."


class Asked(Handler):
    def do_POST(self) -> None:
        judge, body = self.server.fake, self.body()
        with judge.asked_for(body):
            words = judge.judgement(body["messages"][0]["content"])
            choice = {"index": 0, "message": {"role": "assistant", "content": words}}
            reply = {"model": body["model"], "choices": [choice]}
            self.send(judge.status, reply if judge.status == 200 else {"error": {"message": "no"}})
