r"""One value as it is written: a number or expression with its unit, digits in a base, a ratio or a time."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from selftrain.mathematics.cursor import NotRead
from selftrain.mathematics.forms import Form, Ratio, Sequence, Value
from selftrain.mathematics.matrices import matrix_of
from selftrain.mathematics.nodes import Node, mul, neg, num
from selftrain.mathematics.parser import Parser
from selftrain.mathematics.text import CHANGES, MULTIPLES, OPERATORS, ORDINALS, spelled_number, word_number
from selftrain.mathematics.tokens import FUNCTIONS, Token
from selftrain.mathematics.units import CURRENCY, NO_UNIT, QUOTIENTS, WRITTEN, unit_of

_UNIT_SIGNS = frozenset("^{}/*%.-()") | {r"\circ", r"\$", r"\pmod", "\\"}
_BEFORE, _AFTER = {"square": "2", "cubic": "3", "cube": "3"}, {"squared": "2", "cubed": "3", "per": "/"}
_EXPONENTS = {"1", "2", "3", "4"}
_LONG_WORD = 4
"""Letters from which a run after a value is a unit, also outside a text font."""
_MAX_BASE_DIGITS = 60


def value(tokens: list[Token]) -> Form:
    """
    Raises:
        NotRead
    """
    if based := _based(tokens):
        return based
    tokens, currency = _without_currency(tokens)
    at = _unit_start(tokens)
    times, at = _multiplied(tokens, at)
    unit = _unit(tokens[at:]) or currency
    body = tokens[: at - (times != 1)]
    if times < 1 and body[-1].text == "-":  # two-thirds
        body = body[:-1]
    minus = body[0].text == "-"
    if (number := spelled_number(body[minus:])) is not None:
        return Value(num((-number if minus else number) * times), unit)
    node = Parser(body).whole()
    if times != 1:
        return Value(mul(num(times), node), unit)
    ulp, digits = _precision(body)
    return Value(node, unit, ulp, digits)


def _multiplied(tokens: list[Token], at: int) -> tuple[Fraction | int, int]:
    """What a word after a number multiplies it by (``2.5 million``), and where the unit begins then.

    Raises:
        NotRead: the words change the value otherwise.
    """
    words = [token.text.lower() for token in tokens[at:]]
    plain = [word for word in words if word.isalpha()]
    ordinal = len(plain) > 1 and plain[0] in ORDINALS  # The 5th prime.
    reckoned = ordinal or any(word in OPERATORS and _is_operand(after) for word, after in pairwise(words))
    residue = {r"\pmod", "mod", "modulo"} & {token.text for token in tokens[at:]}
    reckoned |= not residue and any(token.kind == "num" and token.text not in _EXPONENTS for token in tokens[at:])
    if reckoned or any(word in CHANGES for word in words) or (words and words[0] in ("squared", "cubed")):
        raise NotRead("words that are no unit")
    place = at + 1 if words and words[0] in MULTIPLES else at
    before = [token for token in tokens[: max(0, place - 1)] if token.text != "-"][-1:]
    counted = before and (before[0].kind == "num" or word_number(before[0]) is not None)
    if counted and (times := MULTIPLES.get(tokens[place - 1].text.lower())):
        return times, place
    return 1, at


def _is_operand(word: str) -> bool:
    return word.isdigit() or (len(word) == 1 and word != "a")


def _without_currency(tokens: list[Token]) -> tuple[list[Token], str]:
    place = next((index for index, token in enumerate(tokens[:3]) if token.text in CURRENCY), None)
    if place is None or len(tokens) == 1 or any(token.text not in "-+({" for token in tokens[:place]):
        return tokens, ""
    return tokens[:place] + tokens[place + 1 :], unit_of(tokens[place].text)


def _unit_start(tokens: list[Token]) -> int:
    """Where the unit begins, or the length: from there on nothing but words, and powers and quotients of them."""
    start = len(tokens)
    matrix = max((index + 3 for index, token in enumerate(tokens) if token.text == r"\end"), default=0)
    applied = any(token.text.removeprefix("\\") in FUNCTIONS for token in tokens)
    signs = {"%", r"\pmod"} | CURRENCY | (set() if applied else {r"\circ"})
    for index in range(len(tokens) - 1, matrix, -1):
        token = tokens[index]
        if _is_unit_word(token, tokens[index - 1]) or token.text in signs:
            start = index
        elif token.kind not in ("num", "id", "text") and token.text not in _UNIT_SIGNS:
            break
    while start > 1 and tokens[start - 1].text in ("^", "{", "/", "(") and start < len(tokens):
        start -= 1
    for before, token in pairwise(tokens[start - 1 :]):
        if token.kind == "num" and before.kind not in ("id", "text") and before.text not in "^{-":
            return len(tokens)
    balance = sum((token.text in "({") - (token.text in ")}") for token in tokens[start:])
    return start if not balance else len(tokens)


def _is_unit_word(token: Token, before: Token) -> bool:
    if word_number(token) is not None:
        return False
    if token.kind == "text":
        return len(token.text) > 1 or before.kind != "cmd"
    counted = before.kind == "num"  # 15 min, 5 Km
    if token.kind != "id" or before.text in ("^", "_", r"\frac"):
        return False
    if token.text in FUNCTIONS:
        return counted and token.text == "min"
    return (token.text.lower() if counted else token.text) in WRITTEN or len(token.text) >= _LONG_WORD


def _unit(tokens: list[Token]) -> str:
    words = [token for token in tokens if token.text not in "{}.()^*-"]
    names = [unit_of(token.text) if token.kind != "num" else token.text for token in words]
    kept = [name for name in names if name not in NO_UNIT]
    found = [_AFTER.get(name, name) for name in kept if name not in _BEFORE]
    raised = [_BEFORE[name] for name in kept if name in _BEFORE]
    joined = " ".join(found[:1] + raised + found[1:])
    return QUOTIENTS.get(joined, joined)


def _precision(tokens: list[Token]) -> tuple[Fraction | None, int]:
    """One unit of the last digit of a decimal number, and its significant digits."""
    body = [token for token in tokens if token.text not in "+-{}"]
    if not body or body[0].kind != "num" or not ("." in body[0].text or "e" in body[0].text.lower()):
        return None, 0
    mantissa, _, exponent = body[0].text.lower().partition("e")
    shift = int(exponent or 0) - len(mantissa.partition(".")[2])
    if len(body) > 1:
        negative = any(token.text == "-" for token in tokens[tokens.index(body[0]) :])
        rest = [token.text for token in body[1:]]
        if rest[:3] != ["*", "10", "^"] or len(rest) != 4 or not rest[3].isdigit() or len(rest[3]) > 4:
            return None, 0
        shift += -int(rest[3]) if negative else int(rest[3])
    if abs(shift) > 5000:
        raise NotRead("an exponent is too large")
    return Fraction(10) ** shift, len(mantissa.replace(".", "").lstrip("0"))


def _based(tokens: list[Token]) -> Value | None:
    """Digits with an index, ``1202_3``: their value, and the base."""
    texts = [token.text for token in tokens if token.text not in "{}()"]
    if tokens[0].text == "-" and len(tokens) > 1:
        unsigned = _based(tokens[1:])
        return Value(neg(unsigned.node), base=unsigned.base) if unsigned else None
    if "_" not in texts[:6] or len(texts) > 8:
        return None
    at = texts.index("_")
    digits, index = "".join(texts[:at]), texts[at + 1 :]
    if len(index) == 1 and (word := word_number(tokens[-2 if tokens[-1].text in "})" else -1])) is not None:
        index = [str(word)]
    if len(index) != 1 or not index[0].isdigit() or len(index[0]) > 2 or not 2 <= int(index[0]) <= 36:
        return None
    base = int(index[0])
    starts = texts[0][0].isdigit() or (base > 10 and len(digits) > 1 and digits.isupper())
    if not starts or not digits.isalnum() or len(digits) > _MAX_BASE_DIGITS:
        return None
    try:
        return Value(num(int(digits, base)), base=str(base))
    except ValueError:
        return Value(Node("sym", name=f"{digits}_{base}"), base=str(base))


def ratio(tokens: list[Token]) -> Form:
    """
    Raises:
        NotRead
    """
    half = ""
    letters = [token.text.lower() for token in tokens[-4:] if token.kind in ("id", "text")]
    if "".join(letters) in ("am", "pm"):
        half = "".join(letters)
        tokens = [token for token in tokens if token.kind not in ("id", "text") and token.text != "."]
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token.text == ":":
            parts.append([])
        else:
            parts[-1].append(token)
    if not 1 < len(parts) < 20:
        raise NotRead("a ratio that is not read")
    terms = tuple(Parser(part).whole() for part in parts)
    return Ratio(terms, _time(parts), half)


def _time(parts: list[list[Token]]) -> tuple[int, int] | None:
    texts = ["".join(token.text for token in part) for part in parts]
    if len(texts) != 2 or not all(text.isdigit() for text in texts) or len(texts[1]) != 2 or len(texts[0]) > 2:
        return None
    hours, minutes = int(texts[0]), int(texts[1])
    return (hours, minutes) if hours <= 24 and minutes < 60 else None


def matrix(rows: tuple[Form, ...]) -> Form:
    """``[[1, 2], [3, 4]]``"""
    cells = [[cell.node for cell in row.items if isinstance(cell, Value)] for row in rows if isinstance(row, Sequence)]
    return Value(matrix_of(cells))
