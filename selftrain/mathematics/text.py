"""Answers in words."""

from __future__ import annotations

from selftrain.mathematics.forms import Text
from selftrain.mathematics.tokens import FUNCTIONS, Token

_UP_TO_TWENTY = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_TENS = dict(thirty=30, forty=40, fifty=50, sixty=60, seventy=70, eighty=80, ninety=90, hundred=100, thousand=1000)
_NUMBERS = {word: number for number, word in enumerate(_UP_TO_TWENTY)} | _TENS
_ARTICLES = {"a", "an", "the"}
_SYNONYMS = {
    "yes": "true", "no": "false", "no solutions": "no solution", "no real solution": "no solution",
    "no real solutions": "no solution", "empty set": "no solution", "none": "no solution", "dne": "undefined",
    "there is no solution": "no solution", "there are no solutions": "no solution", "does not exist": "undefined",
}  # fmt: skip
_PUNCTUATION = frozenset(".-'!?()&/")
_PLAIN_WORD = 4
"""Letters from which a run outside a text font is a word; shorter ones may be products."""


def word_number(token: Token) -> int | None:
    """``five`` as 5."""
    return _NUMBERS.get(token.text.lower()) if token.kind in ("id", "text") else None


def is_text(tokens: list[Token]) -> bool:
    """Whether an answer is words, perhaps with numbers after them; lists of words are lists."""
    first = next((token for token in tokens if token.text not in _PUNCTUATION), tokens[0])
    if not _is_word(first, tokens) or word_number(first) is not None:
        return False
    return all(token.kind in ("id", "text", "num") or token.text in _PUNCTUATION for token in tokens)


def _is_word(token: Token, tokens: list[Token]) -> bool:
    if token.kind == "text":
        return len(token.text) > 1 or (len(tokens) > 1 and sum(len(other.text) > 1 for other in tokens) > 0)
    several = sum(other.kind in ("id", "text") and len(other.text) > 1 for other in tokens) > 1
    long = len(token.text) >= _PLAIN_WORD or several
    return token.kind == "id" and long and token.text.lower() not in FUNCTIONS and not _algebra(tokens)


def _algebra(tokens: list[Token]) -> bool:
    return any(token.text in FUNCTIONS for token in tokens)


def text_of(tokens: list[Token]) -> Text:
    words = [token.text.lower() for token in tokens if token.kind in ("id", "text", "num")]
    kept = [word for word in words if word not in _ARTICLES] or words
    joined = " ".join(kept)
    return Text(_SYNONYMS.get(joined, joined))


def words_of(tokens: list[Token]) -> str:
    """The words of an answer that is nothing but words of two letters or more in all; else an empty string."""
    if not any(token.kind in ("id", "text") and len(token.text) > 1 for token in tokens):
        return ""
    if not all(token.kind in ("id", "text") or token.text in _PUNCTUATION for token in tokens):
        return ""
    words = text_of(tokens).words
    return words if len(words) > 1 else ""
