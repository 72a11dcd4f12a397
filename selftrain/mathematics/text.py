"""Answers in words."""

from __future__ import annotations

from fractions import Fraction

from selftrain.mathematics.forms import Text
from selftrain.mathematics.tokens import FUNCTIONS, Token

_UP_TO_TWENTY = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_TENS = dict(thirty=30, forty=40, fifty=50, sixty=60, seventy=70, eighty=80, ninety=90)
_POWERS = dict(hundred=100, thousand=1000, million=1_000_000, billion=1_000_000_000)
_PARTS = dict(half=2, third=3, fourth=4, fifth=5, sixth=6, eighth=8, tenth=10, hundredth=100, thousandth=1000)
MULTIPLES: dict[str, Fraction] = {
    **{word: Fraction(number) for word, number in {**_POWERS, "trillion": 10**12, "dozen": 12}.items()},
    **{name: Fraction(1, part) for word, part in _PARTS.items() for name in (word, f"{word}s")},
    "halves": Fraction(1, 2),
}
"""What a word after a number multiplies it by; quarters are coins."""
_NUMBERS = {word: number for number, word in enumerate(_UP_TO_TWENTY)} | _TENS | _POWERS
_MONTHS = {
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
}  # fmt: skip
ORDINALS = {"st", "nd", "rd", "th"}
_ARTICLES = {"a", "an", "the"}
_SYNONYMS = {
    "yes": "true", "no": "false", "no solutions": "no solution", "no real solution": "no solution",
    "no real solutions": "no solution", "empty set": "no solution", "none": "no solution", "dne": "undefined",
    "there is no solution": "no solution", "there are no solutions": "no solution", "does not exist": "undefined",
}  # fmt: skip
DENIALS = {"not", "no", "never", "wrong", "incorrect", "false", "isn", "neither", "nor", "except", "without", "unless"}
CHANGES = DENIALS | {"or", "if", "than", "remainder", "root", "factorial", "choose", "below"}
OPERATORS = {"plus", "minus", "times", "by", "over"}
"""Words that change what stands before them, so that it is no value with its unit: some always, some with a value
after them."""
_PUNCTUATION = frozenset(".-'!?()&/")
_SIGNS = frozenset("-!'()/")
_PLAIN_WORD = 4
"""Letters from which a run outside a text font is a word; shorter ones may be products."""


def word_number(token: Token) -> int | None:
    """``five`` as 5."""
    return _NUMBERS.get(token.text.lower()) if token.kind in ("id", "text") else None


def spelled_number(tokens: list[Token]) -> int | None:
    """``five`` as 5, ``forty-two`` as 42, ``two hundred five`` as 205; None for other words or another order."""
    total, below = 0, 0
    last = None
    for token in tokens:
        number = word_number(token)
        if token.text == "-" and last in _TENS.values():
            continue
        if number is None:
            return None
        if number in _POWERS.values():
            if last == 0 or (below == 0 and last is not None):
                return None
            below = (below or 1) * number
            if number > 100:
                total, below = total + below, 0
        elif last is None or (last in _POWERS.values() and number) or (20 <= last < 100 and 0 < number < 10):
            below += number
        else:
            return None
        last = number
    return None if last is None else total + below


def is_text(tokens: list[Token]) -> bool:
    """Whether an answer is words, perhaps with numbers after them; lists of words are lists."""
    if len(tokens) > 1 and tokens[0].kind == "num" and tokens[-1].text.lower() in _MONTHS:
        return len(tokens) == 2 or (len(tokens) == 3 and tokens[1].text in ORDINALS)
    first = next((token for token in tokens if token.text not in _PUNCTUATION), tokens[0])
    if tokens[0].text == "-" or not _is_word(first, tokens) or word_number(first) is not None:
        return False
    return all(token.kind in ("id", "text", "num") or token.text in _PUNCTUATION for token in tokens)


def _is_word(token: Token, tokens: list[Token]) -> bool:
    if token.kind == "text":
        return len(token.text) > 1 or (len(tokens) > 1 and sum(len(other.text) > 1 for other in tokens) > 0)
    several = sum(other.kind in ("id", "text") and len(other.text) > 1 for other in tokens) > 1
    long = len(token.text) >= _PLAIN_WORD or several
    return token.kind == "id" and long and token.text.lower() not in FUNCTIONS and not _algebra(tokens)


def _algebra(tokens: list[Token]) -> bool:
    """Whether a function is named, or signs stand between letters that may be products: ``bx - ay``, ``ab/cd``."""
    if any(token.text in FUNCTIONS for token in tokens):
        return True
    long = any(
        token.kind == "text" or len(token.text) >= _PLAIN_WORD or token.text.lower() in _SYNONYMS for token in tokens
    )
    return not long and any(token.text in _SIGNS for token in tokens)


def text_of(tokens: list[Token]) -> Text:
    words = [_lowered(token) for token in tokens if token.kind in ("id", "text", "num")]
    kept = [word for word in words if word not in _ARTICLES] or words
    if any(word in _MONTHS for word in kept):
        kept = [word for word in kept if word not in ORDINALS]
    if len(kept) == 2 and kept[0].isdigit() and kept[1] in _MONTHS:
        kept.reverse()
    joined = " ".join(kept)
    return Text(_SYNONYMS.get(joined.lower(), joined))


def _lowered(token: Token) -> str:
    """In lower case, unless it may be symbols, a few letters with capitals among them: ``CD``, ``nM``."""
    word = token.text
    plain = len(word) >= _PLAIN_WORD or word.istitle() or word.lower() in _SYNONYMS
    return word.lower() if plain else word


def words_of(tokens: list[Token]) -> str:
    """The words of an answer that is nothing but words of two letters or more in all; else an empty string."""
    if (tokens[:1] and tokens[0].text == "-") or not any(len(token.text) > 1 for token in tokens):
        return ""
    if _algebra(tokens) or not all(token.kind in ("id", "text") or token.text in _PUNCTUATION for token in tokens):
        return ""
    words = text_of(tokens).words
    return words if len(words) > 1 else ""
