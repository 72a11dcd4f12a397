r"""From the tokens of a final answer to its form."""

from __future__ import annotations

from itertools import pairwise

from selftrain.mathematics.cursor import MAX_TOKENS, NotRead
from selftrain.mathematics.forms import (
    RELATIONS,
    Form,
    Interval,
    Relation,
    Sequence,
    Text,
    Union,
    Unread,
    Value,
)  # fmt: skip
from selftrain.mathematics.lead import without_lead
from selftrain.mathematics.nodes import INFINITY, Node, neg
from selftrain.mathematics.parser import Parser
from selftrain.mathematics.single import matrix, ratio, value
from selftrain.mathematics.split import is_enclosed, outside, parts_of
from selftrain.mathematics.text import is_text, text_of
from selftrain.mathematics.tokens import Token

MAX_ITEMS, MAX_SIGNS = 120, 4

_SET_SIGNS = {r"\cup", r"\cap", r"\setminus"}
_WHOLE = {r"\reals": Union((Interval(neg(INFINITY), INFINITY, (False, False)),))}
_EMPTY = Text("no solution")
_IN_WORDS: dict[str, Form] = {
    **dict.fromkeys(("all real numbers", "all reals", "all real", "real numbers", "reals"), _WHOLE[r"\reals"]),
    **dict.fromkeys(("infinity", "positive infinity", "plus infinity"), Value(INFINITY)),
    **dict.fromkeys(("negative infinity", "minus infinity"), Value(neg(INFINITY))),
}
_PM = {r"\pm": ("+", "-"), r"\mp": ("-", "+")}


def read(tokens: list[Token]) -> Form:
    """The form of an answer; ``Unread`` where the grammar does not cover it."""
    if len(tokens) > MAX_TOKENS:
        return Unread("too long")
    if not tokens:
        return Unread("empty")
    try:
        return _answer(tokens, 0)
    except NotRead as error:
        return Unread(str(error))


def _answer(tokens: list[Token], depth: int) -> Form:
    """An answer or a list of answers."""
    if depth > 12:
        raise NotRead("nested too deeply")
    tokens = without_lead(tokens)
    if not tokens:
        raise NotRead("empty")
    if is_text(tokens):
        text = text_of(tokens)
        return _IN_WORDS.get(text.words, text)
    if (tokens[0].text == "]" or tokens[-1].text == "[") and (interval := _interval(tokens)):
        return Union((interval,))
    if [token.text for token in tokens[1:-1]] == ["to"] and tokens[0].kind == tokens[2].kind == "num":
        tokens[1] = Token("op", ":")  # 3 to 4
    signs = sum(token.text in _PM for token in tokens)
    parts, alternatives = parts_of(tokens)
    if len(parts) > 1:
        if len(parts) > MAX_ITEMS:
            raise NotRead("too many items")
        items = [item for part in parts for item in _several(part, depth + 1)]
        return Sequence("list", _named_alike(items), alternatives)
    tokens = parts[0] if parts else tokens
    if signs and not is_enclosed(tokens):
        found = _several(tokens, depth)
        return found[0] if len(found) == 1 else Sequence("list", tuple(found))
    return _one(tokens, depth)


def _several(tokens: list[Token], depth: int) -> list[Form]:
    r"""One answer, or the two or four that its ``\pm`` stands for."""
    places = [index for index, token in enumerate(tokens) if token.text in _PM]
    if not places:
        return [_answer(tokens, depth + 1)]
    if len(places) > MAX_SIGNS:
        raise NotRead("too many signs")
    together = any(token.text == r"\mp" for token in tokens)
    found = []
    for choice in range(2 if together else 2 ** len(places)):
        chosen = list(tokens)
        for order, index in enumerate(places):
            chosen[index] = Token("op", _PM[tokens[index].text][choice if together else choice >> order & 1])
        found.append(_answer(chosen, depth + 1))
    return found


def _named_alike(items: list[Form]) -> tuple[Form, ...]:
    """``n = 2, 3, 4`` gives every item the name of the first."""
    first = items[0]
    if (
        not isinstance(first, Relation)
        or first.signs != ("=",)
        or any(isinstance(item, Relation) for item in items[1:])
    ):
        return tuple(items)
    return (first, *(Relation((first.sides[0], item), ("=",)) for item in items[1:]))


def _one(tokens: list[Token], depth: int) -> Form:
    top = outside(tokens)
    texts = [tokens[index].text for index in top]
    if r"\in" in texts:
        return _member(tokens, top[texts.index(r"\in")], depth)
    if r"\approx" in texts:
        return _approximate(tokens, top[texts.index(r"\approx")], depth)
    if any(text in RELATIONS for text in texts):
        return _relation(tokens, [index for index in top if tokens[index].text in RELATIONS], depth)
    if any(text in _SET_SIGNS for text in texts):
        return _set_expression(tokens, top, depth)
    if ":" in texts:
        return ratio(tokens)
    if len(tokens) == 1 and tokens[0].text in _WHOLE:
        return _WHOLE[tokens[0].text]
    if len(tokens) == 1 and tokens[0].text == r"\emptyset":
        return _EMPTY
    if tokens[0].text in ("]", "[", "(") and tokens[-1].text in ("]", "[", ")") and (bare := _interval(tokens)):
        return Union((bare,))
    if is_enclosed(tokens):
        return _bracketed(tokens, depth)
    return value(tokens)


def _member(tokens: list[Token], at: int, depth: int) -> Form:
    r"""``x \in S`` is S; with more than a name before it, a relation that is not read."""
    if at > 6 or at + 1 >= len(tokens):
        raise NotRead("membership")
    return _answer(tokens[at + 1 :], depth + 1)


def _approximate(tokens: list[Token], at: int, depth: int) -> Form:
    r"""``\frac23 \approx 0.67`` is its exact side; ``x \approx 0.67`` is the number."""
    left, right = tokens[:at], tokens[at + 1 :]
    named = all(token.kind in ("id", "text") or token.text in "_{}" for token in left)
    if left and any(token.text == "=" for token in left):
        named = False
    return _answer(right if named else left, depth + 1)


def _relation(tokens: list[Token], at: list[int], depth: int) -> Form:
    if len(at) > 8:
        raise NotRead("too many relations")
    bounds = [-1, *at, len(tokens)]
    sides = [tokens[start + 1 : end] for start, end in pairwise(bounds)]
    signs = [tokens[index].text for index in at]
    if not sides[0] and signs == ["="]:
        return _answer(sides[1], depth + 1)
    if not all(sides):
        raise NotRead("a side is missing")
    return Relation(tuple(_answer(side, depth + 1) for side in sides), tuple(signs))


def _set_expression(tokens: list[Token], top: list[int], depth: int) -> Form:
    parts: list[Interval | Node] = []
    signs = [index for index in top if tokens[index].text in _SET_SIGNS]
    if len(signs) > MAX_ITEMS:
        raise NotRead("too many parts")
    bounds = [-1, *signs, len(tokens)]
    for number, (start, end) in enumerate(pairwise(bounds)):
        sign = tokens[start].text if number else r"\cup"
        part = _as_union(_answer(tokens[start + 1 : end], depth + 1))
        if sign == r"\setminus" and parts == list(_WHOLE[r"\reals"].parts):
            parts = list(_reals_without(part))
        elif sign == r"\cup":
            parts += part.parts
        else:
            raise NotRead("a set that is not read")
    return Union(tuple(parts))


def _reals_without(part: Union) -> list[Interval | Node]:
    points = [point for point in part.parts if isinstance(point, Node) and point.op == "num"]
    if len(points) < len(part.parts):
        raise NotRead("a set that is not read")
    points.sort(key=lambda point: point.value)
    ends = [neg(INFINITY), *points, INFINITY]
    return [Interval(low, high, (False, False)) for low, high in pairwise(ends)]


def _as_union(form: Form) -> Union:
    """A set of numbers as a union of intervals and points."""
    match form:
        case Union():
            return form
        case Sequence("tuple", (Value(low), Value(high))):
            return Union((Interval(low, high, (False, False)),))
        case Sequence("bracket", (Value(low), Value(high))):
            return Union((Interval(low, high, (True, True)),))
        case Sequence("set", items) if all(isinstance(item, Value) for item in items):
            return Union(tuple(item.node for item in items if isinstance(item, Value)))
    raise NotRead("a set that is not read")


def _interval(tokens: list[Token]) -> Interval | None:
    r"""``[0,1)``, ``]0,1[``; none where both ends are of one kind, as in ``(0,1)``."""
    ends = tokens[0].text, tokens[-1].text
    if ends in (("(", ")"), ("[", "]")) or len(tokens) < 5:
        return None
    inside = tokens[1:-1]
    commas = [index for index in outside(inside) if inside[index].text in (",", ";")]
    if len(commas) != 1:
        return None
    low, high = Parser(inside[: commas[0]]).whole(), Parser(inside[commas[0] + 1 :]).whole()
    return Interval(low, high, (ends[0] == "[", ends[1] == "]"))


def _bracketed(tokens: list[Token], depth: int) -> Form:
    opening, inside = tokens[0].text, tokens[1:-1]
    if opening == r"\{" and not inside:
        return _EMPTY
    top = outside(inside)
    commas = [index for index in top if inside[index].text in (",", ";")]
    if opening == r"\{":
        bar = [index for index in top if inside[index].text in ("|", ":")]
        if bar and any(inside[index].text in RELATIONS or inside[index].text == r"\in" for index in top):
            return _answer(inside[bar[0] + 1 :], depth + 1)
    kinds: dict[str, str] = {"(": "tuple", r"\langle": "tuple", "[": "bracket", r"\{": "set", "{": "list"}
    if opening not in kinds:
        return value(tokens)
    if not commas and opening in ("(", "[", "{"):
        return _answer(inside, depth + 1) if inside else value(tokens)
    bounds = [-1, *commas, len(inside)]
    parts = [inside[start + 1 : end] for start, end in pairwise(bounds)]
    if len(parts) > MAX_ITEMS or not all(parts):
        raise NotRead("a list that is not read")
    items = tuple(item for part in parts for item in _several(part, depth + 1))
    if (
        opening == "["
        and all(isinstance(item, Sequence) and item.kind == "bracket" for item in items)
        and len(items) > 1
    ):
        return matrix(items)
    return Sequence(kinds[opening], items)  # type: ignore[arg-type]
