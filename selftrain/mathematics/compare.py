"""Whether two answers are the same, by their forms and the policy."""

from __future__ import annotations

from collections.abc import Sequence as List

from selftrain.mathematics.forms import Form, Ratio, Relation, Sequence, Text, Union, Unread, Value
from selftrain.mathematics.measures import same_ratios, same_values
from selftrain.mathematics.nodes import ONE, Node, div
from selftrain.mathematics.policy import Policy
from selftrain.mathematics.relations import equivalent, named, union_of
from selftrain.mathematics.same import Undecided, same
from selftrain.mathematics.unions import same_union

_MANY = 100
_FEW = 20


def equal(gold: Form, answer: Form, policy: Policy) -> bool:
    """
    Raises:
        Undecided: the rules do not reach that far.
    """
    if isinstance(gold, Unread) or isinstance(answer, Unread):
        raise Undecided(
            gold.reason if isinstance(gold, Unread) else answer.reason if isinstance(answer, Unread) else ""
        )
    match gold, answer:
        case Value(), Value():
            return same_values(gold, answer, policy)
        case Text(), Text():
            return gold.words == answer.words
        case Sequence(), Sequence():
            if _sequences(gold, answer, policy):
                return True
        case Ratio(), Ratio():
            return same_ratios(gold, answer, policy)
        case Union(), Union():
            return same_union(gold, answer, policy.symbols)
        case Relation(), Relation():
            if equivalent(gold, answer, policy.symbols, lambda one, other: equal(one, other, policy)):
                return True
    return _across(gold, answer, policy)


def _across(gold: Form, answer: Form, policy: Policy) -> bool:
    """Answers of different forms that may stand for each other."""
    if policy.inequalities == "sets" and (isinstance(gold, Union | Relation) or isinstance(answer, Union | Relation)):
        sets = union_of(gold), union_of(answer)
        if sets[0] and sets[1] and not (isinstance(gold, Relation) and isinstance(answer, Relation)):
            return same_union(sets[0], sets[1], policy.symbols)
    spread = _spread(gold), _spread(answer)
    if spread != (gold, answer) and all(isinstance(form, Sequence) and _loosely_named(form.items) for form in spread):
        return equal(spread[0], spread[1], policy)
    plain = named(gold, gold=True, policy=policy, equal=equal), named(answer, gold=False, policy=policy, equal=equal)
    if plain != (gold, answer) and policy.names == "optional":
        return not _named_otherwise(gold, answer) and equal(plain[0], plain[1], policy)
    match gold, answer:
        case Ratio(terms=(over, under), half=""), Value(node=node):
            return same(div(over, under), node, policy.symbols)
        case Value(node=node), Ratio(terms=(over, under), half=""):
            return same(div(over, under), node, policy.symbols)
        case (Sequence(), Value()) | (Value(), Sequence()):
            return _single(gold, answer, policy)
    return False


def _spread(form: Form) -> Form:
    """``(x, y) = (1, 2)`` as ``x = 1, y = 2``."""
    match form:
        case Relation(sides=(Sequence(items=names), Sequence(items=items)), signs=("=",)) if len(names) == len(items):
            named_items = zip(names, items, strict=True)
            return Sequence("list", tuple(Relation((name, item), ("=",)) for name, item in named_items))
    return form


def _named_otherwise(gold: Form, answer: Form) -> bool:
    """Whether both say what they are the value of, and it is not the same: x = 1 and y = 1."""
    if isinstance(gold, Sequence) and isinstance(answer, Sequence):
        return _loosely_named(gold.items) and _loosely_named(answer.items)
    if not (isinstance(gold, Relation) and isinstance(answer, Relation)):
        return False
    one, other = gold.sides[0], answer.sides[0]
    if isinstance(one, Text) or isinstance(other, Text):
        return False
    return _bare_name(one) != _bare_name(other)


def _bare_name(form: Form) -> Form:
    """``|AB|`` names what ``AB`` does."""
    bars = isinstance(form, Value) and form.node.name == "abs"
    return Value(form.node.args[0]) if bars and isinstance(form, Value) else form


def _sequences(gold: Sequence, answer: Sequence, policy: Policy) -> bool:
    kinds = {gold.kind, answer.kind}
    if kinds == {"list", "set"} or kinds == {"list", "tuple"} or kinds == {"list", "bracket"}:
        if policy.list_brackets == "required" or ("bracket" in kinds and len(gold.items) < 3):
            return False
    elif kinds == {"tuple", "bracket"}:
        if len(gold.items) < 3:
            return False
    elif len(kinds) > 1:
        return False
    if "set" in kinds or (kinds == {"list"} and not policy.ordered_lists):
        apart = "set" in kinds or gold.alternatives or answer.alternatives or isinstance(gold.items[0], Sequence)
        return _unordered(gold.items, answer.items, policy, apart)
    return _ordered(gold.items, answer.items, policy)


def _ordered(gold: List[Form], answer: List[Form], policy: Policy) -> bool:
    if len(gold) != len(answer):
        return False
    return all(equal(one, other, policy) for one, other in zip(gold, answer, strict=True))


def _unordered(gold: List[Form], answer: List[Form], policy: Policy, apart: bool) -> bool:
    """Whether each has a partner; ``apart``: equal ones count once."""
    if apart and len(gold) != len(answer):
        gold, answer = _distinct(gold, policy), _distinct(answer, policy)
    if len(gold) != len(answer) or len(gold) > _MANY:
        return False
    if _loosely_named(gold) != _loosely_named(answer) and not _one_name(gold) and not _one_name(answer):
        return _ordered(gold, answer, policy)
    left = list(answer)
    for item in gold:
        partner = next((index for index, other in enumerate(left) if equal(item, other, policy)), None)
        if partner is None:
            return False
        del left[partner]
    return True


def _distinct(items: List[Form], policy: Policy) -> list[Form]:
    found: list[Form] = []
    for item in items[:_MANY]:
        if not any(equal(item, other, policy) for other in found):
            found.append(item)
    return found


def _loosely_named(items: List[Form]) -> bool:
    return all(isinstance(item, Relation) for item in items)


def _one_name(items: List[Form]) -> bool:
    """Whether all are values of one name, with or without an index: x_1 = 2, x_2 = 3."""
    names = set()
    for item in items:
        if isinstance(item, Relation) and isinstance(item.sides[0], Value):
            names.add(item.sides[0].node.name.partition("_")[0] or str(item.sides[0].node))
        else:
            names.add(str(item.sides[0]) if isinstance(item, Relation) else "")
    return len(names) == 1 and names != {""}


def _single(gold: Form, answer: Form, policy: Policy) -> bool:
    """A set or list of one is that one; a vector is the matrix with one row or column."""
    for one, other in ((gold, answer), (answer, gold)):
        if isinstance(one, Sequence) and isinstance(other, Value):
            if other.node.op == "matrix":
                return one.kind in ("tuple", "bracket", "list") and _vector(one, other.node, policy)
            if len(one.items) > _FEW:
                return False
            if one is gold and one.kind == "list" and len(one.items) > 1 and not one.alternatives:
                return False  # Two angles of 75 degrees are not one.
            distinct = _distinct(one.items, policy)
            return len(distinct) == 1 and one.kind in ("list", "set") and equal(distinct[0], other, policy)
    return False


def _vector(sequence: Sequence, matrix: Node, policy: Policy) -> bool:
    rows = matrix.args
    cells = rows[0].args if len(rows) == 1 else tuple(row.args[0] for row in rows if len(row.args) == 1)
    if len(cells) != len(sequence.items) or (len(rows) > 1 and len(cells) != len(rows)):
        return False
    items = [item.node if isinstance(item, Value) else ONE for item in sequence.items]
    if not all(isinstance(item, Value) for item in sequence.items):
        return False
    return all(same(one, other, policy.symbols) for one, other in zip(items, cells, strict=True))
