"""What stands before an answer and says nothing about it."""

from __future__ import annotations

from selftrain.mathematics.cursor import NotRead
from selftrain.mathematics.split import closing, is_plain_group
from selftrain.mathematics.text import DENIALS, is_text
from selftrain.mathematics.tokens import Token


def without_lead(tokens: list[Token]) -> list[Token]:
    """Without quotes, braces around all, and words before a colon or a verb: ``Solution is:``, ``the answer is``."""
    tokens = [token for token in tokens if token.text not in ('"', "#")]
    while (
        len(tokens) > 2 and tokens[0].text == "{" and closing(tokens, 0) == len(tokens) - 1 and is_plain_group(tokens)
    ):
        tokens = tokens[1:-1]
    if len(tokens) > 1 and tokens[0].text.lower() in ("negative", "minus"):
        tokens = [Token("op", "-"), *tokens[1:]]
    if [token.text for token in tokens[1:4]] == ["{", "cases", "}"] and all(token.text != "&" for token in tokens):
        tokens = tokens[4:-4]  # A system of equations; with conditions it is a function by cases.
    words = 0
    while words < len(tokens) and tokens[words].kind in ("id", "text") and len(tokens[words].text) > 1:
        words += 1
    if words < len(tokens) and not is_text(tokens) and any(token.text.lower() in DENIALS for token in tokens[:words]):
        raise NotRead("words that deny")
    if 0 < words < len(tokens) and words < 8:
        if tokens[words].text == ":":
            return tokens[words + 1 :]
        if tokens[words - 1].text.lower() in ("is", "are", "equals", "approximately", "about"):
            return tokens[words:]
    return tokens
