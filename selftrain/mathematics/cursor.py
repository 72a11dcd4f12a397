"""A place in a list of tokens: what the grammar of expressions is read with."""

from __future__ import annotations

from selftrain.mathematics.tokens import Token

MAX_TOKENS = 800
MAX_DEPTH = 60


class NotRead(ValueError):
    """What stands there is no expression by the grammar, or a too large one."""


class Cursor:
    """Takes tokens from left to right."""

    def __init__(self, tokens: list[Token]) -> None:
        if len(tokens) > MAX_TOKENS:
            raise NotRead("too long")
        self.tokens, self.at, self.depth = list(tokens), 0, 0
        self.bars = 0

    @property
    def next(self) -> str:
        return self.tokens[self.at].text if self.at < len(self.tokens) else ""

    @property
    def kind(self) -> str:
        return self.tokens[self.at].kind if self.at < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        token = self.next if self.next in wanted else ""
        self.at += bool(token)
        return token

    def need(self, wanted: str) -> None:
        if not self.take(wanted):
            raise NotRead(f"expected {wanted}")

    def raw(self, count: int) -> list[str]:
        return [token.text for token in self.tokens[self.at : self.at + count]]
