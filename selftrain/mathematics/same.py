r"""Whether two expressions are equal: by their spelling, exactly, or by their values at several points.

The points are fixed by the names of the symbols, so a verdict never changes. Values are first compared in floating
point, which tells most apart. Equality is accepted from values whose precision follows from the largest and the
smallest magnitude met on the way: ``1/2^{99}`` and ``1/2^{98}`` differ, and so do ``0`` and ``10^{-30} + \sin\pi``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

from selftrain.mathematics.exact import TooLarge, Undefined, exact
from selftrain.mathematics.nodes import Node, key, symbols, walk
from selftrain.mathematics.values import Evaluator

Domain = Literal["real", "positive", "complex"]
"""What symbols stand for."""

POINTS = 5
SPARE_BITS = 256
MAX_WORK = 1_500_000
"""Nodes times bits of precision."""
_FLOAT_TOLERANCE = 1e-3
_SIGNS = ((1, 1, 1), (1, 1, 1), (1, -1, 1), (-1, -1, -1), (-1, 1, 1))
"""Of the first, second and third symbol at each point."""


class Undecided(ArithmeticError):
    """Beyond the bounds, or without a value anywhere."""


def same(left: Node, right: Node, domain: Domain = "real") -> bool:
    """Whether two expressions are equal wherever both have a value.

    Raises:
        Undecided
    """
    if left == right:
        return True
    if left.op == "matrix" or right.op == "matrix":
        return _same_matrices(left, right, domain)
    try:
        exactly = exact(left), exact(right)
    except TooLarge as error:
        raise Undecided(str(error)) from error
    except Undefined:
        return False
    if exactly[0] is not None and exactly[1] is not None:
        return exactly[0] == exactly[1]
    if key(left) == key(right):
        return True
    names = symbols(left, right)
    if any(_apart(left, right, _point(names, index, domain)) for index in range(POINTS if names else 1)):
        return False
    return all(close(one, other, bits) for one, other, bits in _values(left, right, domain))


def _same_matrices(left: Node, right: Node, domain: Domain) -> bool:
    if left.op != right.op or len(left.args) != len(right.args):
        return False
    return all(
        len(one.args) == len(other.args) and all(same(a, b, domain) for a, b in zip(one.args, other.args, strict=True))
        for one, other in zip(left.args, right.args, strict=True)
    )


def ratio(left: Node, right: Node, domain: Domain = "real") -> Literal[-1, 0, 1]:
    """The sign of ``left / right`` where that is one number other than zero everywhere; 0 where it is not.

    Raises:
        Undecided
    """
    first: Any = None
    sign: Literal[-1, 0, 1] = 0
    for one, other, bits in _values(left, right, domain):
        if abs(other) < 2.0 ** -min(bits + 100, 1000) or abs(one) < 2.0 ** -min(bits + 100, 1000):
            return 0
        quotient = one / other
        if first is not None and not close(quotient, first, bits + 64):
            return 0
        if getattr(quotient, "imag", 0):
            return 0
        first = quotient
        sign = 1 if quotient.real > 0 else -1
    return sign


def close(left: Any, right: Any, bits: int) -> bool:
    """Equal but for rounding, where no magnitude on the way was above ``bits`` or below its inverse."""
    difference = left - right
    context = _context()
    if not context.isfinite(difference):
        return bool(left == right)
    return not difference or int(context.mag(difference)) < -bits - SPARE_BITS // 2


@lru_cache(maxsize=1)
def _context() -> Any:
    from mpmath.ctx_mp import MPContext

    return MPContext()


def _values(left: Node, right: Node, domain: Domain) -> Iterator[tuple[Any, Any, int]]:
    """Values of both at each point, and the largest magnitude met."""
    names = symbols(left, right)
    if len(names) > 40:
        raise Undecided("too many symbols")
    size = sum(1 for node in (left, right) for _ in walk(node))
    found = 0
    for index in range(POINTS if names else 1):
        point = _point(names, index, domain)
        try:
            yield _precisely(left, right, point, size)
        except Undefined:
            continue
        except TooLarge as error:
            raise Undecided(str(error)) from error
        found += 1
    if not found or (names and found < 2):
        raise Undecided("no value at any point")


def _point(names: list[str], index: int, domain: Domain) -> dict[str, Any]:
    point: dict[str, Any] = {}
    for place, name in enumerate(names):
        draw = zlib.crc32(f"{name}/{index}".encode("utf-8", "replace"))
        # Some are large enough for powers of negative numbers to leave the principal branch.
        size = Fraction(draw % 9973 + 3000, 8191 if index < 3 else 3001)
        sign = _SIGNS[index][place % 3] if domain == "real" else 1
        point[name] = (sign * size, Fraction(draw // 9973 % 997 + 100, 499) if domain == "complex" else None)
    return point


def _at(point: dict[str, Any], context: Any) -> dict[str, Any]:
    def number(value: Fraction) -> Any:
        return context.mpf(value.numerator) / context.mpf(value.denominator)

    return {
        name: number(real) if imaginary is None else context.mpc(number(real), number(imaginary))
        for name, (real, imaginary) in point.items()
    }


def _apart(left: Node, right: Node, point: dict[str, Any]) -> bool:
    """Whether floating point tells two values apart; beyond its range it does not."""
    from mpmath import fp

    try:
        evaluator = Evaluator(fp, _at(point, fp))
        one, other = evaluator.value(left), evaluator.value(right)
        sizes = sorted((abs(one), abs(other)))
        return bool(1e-6 < sizes[1] < 1e200 and abs(one - other) > _FLOAT_TOLERANCE * sizes[1])
    except (ArithmeticError, ValueError, TypeError, NotImplementedError):
        return False


def _precisely(left: Node, right: Node, point: dict[str, Any], size: int) -> tuple[Any, Any, int]:
    context = _context()
    bits = 0
    for precision in (SPARE_BITS // 2, None):
        context.prec = precision or 2 * bits + SPARE_BITS
        if context.prec * size > MAX_WORK:
            raise TooLarge("too much to compute")
        evaluator = Evaluator(context, _at(point, context))
        try:
            values = evaluator.value(left), evaluator.value(right)
        except (ValueError, TypeError, OverflowError, NotImplementedError) as error:
            raise TooLarge(str(error)) from error
        bits = max(bits, evaluator.bits) if precision else bits
    return *values, bits


def within(left: Node, right: Node, bound: Fraction) -> bool:
    """Whether two constants differ by at most ``bound``.

    Raises:
        Undecided
    """
    if symbols(left, right):
        return False
    for one, other, _ in _values(left, right, "real"):
        context = _context()
        return bool(abs(one - other) <= context.mpf(bound.numerator) / context.mpf(bound.denominator))
    return False


def rough(node: Node) -> float | None:
    """A constant in floating point; None where it is none, or not real."""
    from mpmath import fp

    if symbols(node):
        return None
    try:
        value = Evaluator(fp, {}).value(node)
        return float(value) if not getattr(value, "imag", 0) else None
    except (ArithmeticError, ValueError, TypeError, NotImplementedError):
        return None
