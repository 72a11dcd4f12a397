"""Whether an answer equals a gold answer, as lighteval 0.13.0 decides it with sympy.

Numbers, expressions, equations, inequalities, sets, tuples, intervals and matrices. The gold answer leads: of an answer
written as an equation its right side counts where the gold answer is none. What raises in the middle of a comparison
makes the answer wrong, so only those failures are caught here after which the harness goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def attempt(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What the function returns; None where it fails."""
    try:
        return function(*arguments, **options)
    except Exception:  # sympy and its parsers raise anything on what models write; the harness takes all of it so.
        return None


def sympy_equal(gold: Any, answer: Any, precision: int) -> bool:
    """Whether they are the same as they stand, by value rounded to ``precision`` decimals, or after simplification."""
    from sympy import Set, Symbol, Tuple

    gold, answer = alike(gold, answer)
    sides = done(gold), done(answer)
    if attempt(lambda: sides[0] == sides[1] or str(sides[0]).strip() == str(sides[1]).strip()):
        return True
    if is_relation(gold) and is_relation(answer):
        return relations_equal(gold, answer, precision)
    if isinstance(gold, (Set, Tuple)) or isinstance(answer, (Set, Tuple)):
        return sets_equal(gold, answer, precision)
    if isinstance(gold, Symbol) or isinstance(answer, Symbol):
        return symbols_equal(gold, answer)
    return numeric_equal(gold, answer, precision) or symbolic_equal(gold, answer)


def alike(gold: Any, answer: Any) -> tuple[Any, Any]:
    """Both sides in one form: ``5`` of ``x = 5`` where only one is an equation, a set of ``x < 5`` beside a set."""
    from sympy import Set

    if is_assignment(gold) and not is_equation(answer):
        gold = last_relation(gold).rhs
    if is_equation(answer) and not is_equation(gold):
        answer = last_relation(answer).rhs
    if is_relation(gold) and isinstance(answer, Set):
        solutions = attempt(lambda: functions_as_symbols(gold).as_set())
        gold = gold if solutions is None else solutions
    return gold, answer


def is_relation(value: Any) -> bool:
    return _consists_of("Rel", value)


def is_equation(value: Any) -> bool:
    return _consists_of("Eq", value)


def _consists_of(kind: str, value: Any) -> bool:
    """A relation of the kind, or a conjunction of nothing else."""
    import sympy

    relation = getattr(sympy, kind)
    if isinstance(value, sympy.And):
        return all(isinstance(part, relation) for part in value.args)
    return isinstance(value, relation)


def is_assignment(value: Any) -> bool:
    """An equation, or a chain of them, with nothing but symbols on the left."""
    from latex2sympy2_extended.latex2sympy2 import is_expr_of_only_symbols
    from sympy import And

    if not is_equation(value):
        return False
    first = value.args[0] if isinstance(value, And) else value
    return bool(is_expr_of_only_symbols(first.lhs))


def last_relation(value: Any) -> Any:
    from sympy import And

    while isinstance(value, And):
        value = value.args[-1]
    return value


def functions_as_symbols(value: Any) -> Any:
    """``f(x)`` as one symbol, so that an inequality in it has a set of solutions."""
    from sympy import Basic, Symbol
    from sympy.core.function import UndefinedFunction

    if not isinstance(value, Basic):
        return value
    if isinstance(value.func, UndefinedFunction):
        inside = "_".join(str(functions_as_symbols(argument)) for argument in value.args)
        return Symbol(f"{value.func.__name__}_{inside}")
    if not value.args:
        return value
    rebuilt = attempt(lambda: value.func(*map(functions_as_symbols, value.args)))
    return value if rebuilt is None else rebuilt


def relations_equal(gold: Any, answer: Any, precision: int) -> bool:
    """Both sides moved to the left, also with the answer turned round: ``a < b`` is ``b > a``."""
    from sympy import And, Eq, GreaterThan, LessThan, StrictGreaterThan, StrictLessThan

    if isinstance(gold, And):
        pairs = zip(gold.args, answer.args, strict=False)
        return all(relations_equal(one, other, precision) for one, other in pairs)
    if type(gold) is type(answer):
        difference = attempt(lambda: sympy_equal(gold.lhs - gold.rhs, answer.lhs - answer.rhs, precision))
        if difference:
            return True
    turned = (
        (GreaterThan, LessThan),
        (LessThan, GreaterThan),
        (StrictGreaterThan, StrictLessThan),
        (StrictLessThan, StrictGreaterThan),
        (Eq, Eq),
    )
    if not any(isinstance(gold, one) and isinstance(answer, other) for one, other in turned):
        return False
    return bool(attempt(lambda: sympy_equal(gold.lhs - gold.rhs, answer.rhs - answer.lhs, precision)))


def sets_equal(gold: Any, answer: Any, precision: int) -> bool:
    """Intervals by their ends, finite sets and tuples by their elements; what is none stands for a set of itself."""
    from sympy import FiniteSet, Interval, Set, Tuple

    gold, answer = (side if isinstance(side, (Set, Tuple)) else FiniteSet(side) for side in (gold, answer))
    if isinstance(gold, Interval) and isinstance(answer, Interval):
        open_alike = gold.left_open == answer.left_open and gold.right_open == answer.right_open
        ends = ((gold.start, answer.start), (gold.end, answer.end))
        return open_alike and all(sympy_equal(*pair, precision) for pair in ends)
    if gold == answer:
        return True
    if isinstance(gold, Set) and isinstance(answer, Set) and gold.symmetric_difference(answer).is_empty:
        return True
    gold, answer = point(gold, answer), point(answer, gold)
    finite = isinstance(gold, (FiniteSet, Tuple)) and isinstance(answer, (FiniteSet, Tuple))
    return finite and elements_equal(gold, answer, precision)


def point(value: Any, other: Any) -> Any:
    """The point an open interval may be meant as, where the other side has two elements: both are written (1, 2)."""
    from sympy import FiniteSet, Interval, Tuple

    if isinstance(value, Interval) and value.is_open and isinstance(other, (FiniteSet, Tuple)) and len(other) == 2:
        return Tuple(value.start, value.end)
    return value


def elements_equal(gold: Any, answer: Any, precision: int) -> bool:
    """Element by element: sets in the order of their values, beside a tuple a set of LaTeX as it was written."""
    from latex2sympy2_extended.sets import FiniteSet as WrittenSet
    from sympy import FiniteSet, Tuple

    if len(gold) != len(answer):
        return False
    golds, answers = gold.args, answer.args
    if isinstance(gold, FiniteSet):
        golds, answers = in_order(golds), in_order(answers)
    elif isinstance(gold, Tuple) and isinstance(answer, WrittenSet):
        answers = answer._unsorted_args
    elif isinstance(answer, FiniteSet):
        answers = in_order(answers)
    return all(sympy_equal(one, other, precision) for one, other in zip(golds, answers, strict=False))


def in_order(elements: Any) -> list[Any]:
    from sympy import default_sort_key, ordered

    def key(element: Any) -> Any:
        value = last_relation(element).rhs if is_assignment(element) else element
        place = attempt(lambda: default_sort_key(value.evalf()))
        return default_sort_key(value) if place is None else place

    return list(ordered(elements, keys=key, default=False))


def symbols_equal(gold: Any, answer: Any) -> bool:
    """A symbol against a product of one-letter ones: words are read as such. Case does not count there."""
    from sympy import E, Mul, Symbol

    def named_e(side: Any) -> bool:
        return isinstance(side, Symbol) and side.name.lower() == "e"

    if (named_e(gold) and answer == E) or (named_e(answer) and gold == E):
        return True
    for whole, parts in ((gold, answer), (answer, gold)):
        if not isinstance(whole, Symbol) or not isinstance(parts, Mul):
            continue
        if all(part == E or isinstance(part, Symbol) for part in parts.args):
            word = "".join(part.name if isinstance(part, Symbol) else "e" for part in parts.args)
            return bool(whole.name.lower() == word.lower())
    return bool(gold == answer)


def numeric_equal(gold: Any, answer: Any, precision: int) -> bool:
    """With a float on either side rounded, else exactly; matrices entry by entry; other expressions by their value."""
    from sympy import Float, MatrixBase, MatrixExpr, Number

    if all(isinstance(side, (MatrixBase, MatrixExpr)) for side in (gold, answer)):
        gold, answer = done(gold), done(answer)
        read = isinstance(gold, MatrixBase) and isinstance(answer, MatrixBase) and gold.shape == answer.shape
        return read and all(numeric_equal(*pair, precision) for pair in zip(gold.flat(), answer.flat(), strict=True))
    if not any(is_a(Number, side) for side in (gold, answer)):
        return attempt(lambda: (gold - answer).evalf(chop=True) == 0) is True
    if not any(is_a(Float, side) for side in (gold, answer)):
        return bool(done(gold) == done(answer))
    gold, answer = done(gold), done(answer)
    both = isinstance(gold, Number) and isinstance(answer, Number)
    return both and bool(gold.round(precision) == answer.round(precision))


def symbolic_equal(gold: Any, answer: Any) -> bool:
    from sympy import MatrixBase, simplify

    difference = attempt(lambda: simplify(gold - answer))
    if isinstance(difference, MatrixBase):
        return bool(difference.is_zero_matrix)
    return bool(getattr(difference, "is_zero", False))


def is_a(kind: type, value: Any) -> bool:
    """A number of this kind, or one written as a percentage."""
    from sympy import Mul, Rational

    if isinstance(value, Mul) and len(value.args) == 2 and value.args[1] == Rational(1, 100):
        return isinstance(value.args[0], kind)
    return isinstance(value, kind)


def done(value: Any) -> Any:
    """The value with its operations carried out, or as it is where that fails."""
    found = attempt(lambda: value.doit())
    return value if found is None else found
