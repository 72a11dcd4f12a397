"""Equations and inequalities: which say the same, which value one names, which set one describes."""

from __future__ import annotations

from collections.abc import Callable

from selftrain.mathematics.forms import Form, Interval, Ratio, Relation, Sequence, Text, Union, Value
from selftrain.mathematics.nodes import INFINITY, Node, neg, sub, symbols, walk
from selftrain.mathematics.policy import Policy
from selftrain.mathematics.same import Domain, Undecided, ratio, same

Equal = Callable[[Form, Form, Policy], bool]

_LESS = {"<": (1, True), r"\le": (1, False), ">": (-1, True), r"\ge": (-1, False)}
"""Direction, and whether it is strict."""


def equivalent(gold: Relation, answer: Relation, domain: Domain, equal: Callable[[Form, Form], bool]) -> bool:
    """Whether two relations hold for the same values, up to a constant factor.

    Raises:
        Undecided
    """
    if set(gold.signs) <= set(_LESS) and set(answer.signs) <= set(_LESS):
        return _inequalities(gold, answer, domain)
    if gold.signs != answer.signs:
        return False
    if all(equal(one, other) for one, other in zip(gold.sides, answer.sides, strict=True)):
        return True
    if len(gold.signs) == 1 and gold.signs[0] in ("=", r"\ne"):
        if equal(gold.sides[0], answer.sides[1]) and equal(gold.sides[1], answer.sides[0]):
            return True
        return _equations(gold, answer, domain)
    return False


def _equations(gold: Relation, answer: Relation, domain: Domain) -> bool:
    sides = [side.node for side in (*gold.sides, *answer.sides) if isinstance(side, Value)]
    if len(sides) < 4 or any(node.op == "matrix" for node in sides):
        return False
    left, right = sub(sides[0], sides[1]), sub(sides[2], sides[3])
    return bool(symbols(left) and symbols(right)) and ratio(left, right, domain) != 0


def _inequalities(gold: Relation, answer: Relation, domain: Domain) -> bool:
    steps = _steps(gold), _steps(answer)
    if len(steps[0]) != len(steps[1]):
        return False
    left = list(steps[1])
    for size, strict in steps[0]:
        partner = next((step for step in left if step[1] == strict and _same_sign(size, step[0], domain)), None)
        if partner is None:
            return False
        left.remove(partner)
    return True


def _same_sign(one: Node, other: Node, domain: Domain) -> bool:
    if not symbols(one, other):
        return same(one, other, domain)
    return ratio(one, other, domain) > 0


def _steps(relation: Relation) -> list[tuple[Node, bool]]:
    """What is above zero by each step of a chain, and whether it is strictly."""
    steps = []
    for one, sign, other in zip(relation.sides, relation.signs, relation.sides[1:], strict=False):
        if not (isinstance(one, Value) and isinstance(other, Value)):
            raise Undecided("an inequality that is not read")
        direction, strict = _LESS[sign]
        low, high = (one.node, other.node) if direction > 0 else (other.node, one.node)
        if INFINITY not in (*walk(low), *walk(high)):
            steps.append((sub(high, low), strict))
    return steps


def named(form: Form, gold: bool, policy: Policy, equal: Equal) -> Form:
    """What an answer gives as a value: 3 of ``x = 3``, the points of ``(x, y) = (5, 8), (8, 5)``; else itself.

    Of a response, ``10^3 = 1000`` is 1000; of a gold answer the left side must be a name.
    """
    if isinstance(form, Sequence) and form.kind == "list":
        items = tuple(named(item, gold, policy, equal) for item in form.items)
        return form if items == form.items else Sequence(form.kind, items, form.alternatives)
    if not isinstance(form, Relation) or set(form.signs) != {"="}:
        return form
    sides = list(form.sides)
    while len(sides) > 1 and is_name(sides[0]):
        sides = sides[1:]
    if gold and len(sides) == len(form.sides):
        return form
    last = sides[-1]
    between = sides[:-1]
    if len(sides) < len(form.sides) and isinstance(last, Value) and not symbols(last.node):
        # A = b h / 2 = 12: what depends on letters cannot be compared, and says no other value.
        between = [side for side in between if not (isinstance(side, Value) and symbols(side.node))]
    return last if all(equal(side, last, policy) for side in between) else form


def is_name(form: Form) -> bool:
    r"""Whether a side of an equation only says what the other is the value of: x, f(x), AB, (x, y), \frac{NO}{BO}."""
    match form:
        case Value(node=node, unit=""):
            return bool(symbols(node)) and _is_name(node)
        case Sequence(items=items):
            return all(is_name(item) for item in items)
        case Ratio(terms=terms):
            return all(_is_name(term) for term in terms)
    return isinstance(form, Text)


def _is_name(node: Node) -> bool:
    if node.op in ("sym", "opaque"):
        return not node.name.startswith(("\\sum", "\\int", "\\prod"))
    if node.op == "const":
        return node.name in ("i", "e")  # As letters of a name.
    return (node.op in ("mul", "div") or node.name == "abs") and all(_is_name(part) for part in node.args)


def union_of(form: Form) -> Union | None:
    """The set of numbers that an answer describes, if it does."""
    match form:
        case Union():
            return form
        case Sequence("tuple", (Value(node=low), Value(node=high))):
            return Union((Interval(low, high, (False, False)),))
        case Sequence("bracket", (Value(node=low), Value(node=high))):
            return Union((Interval(low, high, (True, True)),))
        case Sequence("list", items) if all(isinstance(item, Relation) for item in items):
            parts = [union_of(item) for item in items]
            if all(parts) and len({_variable(item) for item in items if isinstance(item, Relation)}) == 1:
                return Union(tuple(piece for part in parts if part for piece in part.parts))
            return None
        case Sequence("set", items) if all(isinstance(item, Value) for item in items):
            return Union(tuple(item.node for item in items if isinstance(item, Value)))
        case Relation():
            return _solution(form)
    return None


def _variable(relation: Relation) -> Node | None:
    nodes = [side.node for side in relation.sides if isinstance(side, Value)]
    if len(nodes) != len(relation.sides):
        return None
    if len(nodes) == 3:
        return nodes[1]
    return next((node for node in nodes if node.op in ("sym", "opaque")), None)


def _solution(relation: Relation) -> Union | None:
    variable = _variable(relation)
    if variable is None or not symbols(variable):
        return None
    nodes = [side.node for side in relation.sides if isinstance(side, Value)]
    if relation.signs == (r"\ne",):
        point = nodes[1] if nodes[0] == variable else nodes[0]
        return Union((Interval(neg(INFINITY), point, (False, False)), Interval(point, INFINITY, (False, False))))
    if not set(relation.signs) <= set(_LESS):
        return None
    directions = {_LESS[sign][0] for sign in relation.signs}
    if len(directions) > 1 or len(nodes) > 3:
        return None
    closed = [not _LESS[sign][1] for sign in relation.signs]
    if directions == {-1}:
        nodes, closed = nodes[::-1], closed[::-1]
    if len(nodes) == 3:
        return Union((Interval(nodes[0], nodes[2], (closed[0], closed[1])),))
    if nodes[0] == variable:
        return Union((Interval(neg(INFINITY), nodes[1], (False, closed[0])),))
    return Union((Interval(nodes[0], INFINITY, (closed[0], False)),))
