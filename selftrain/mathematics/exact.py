"""The exact value of an expression where it is rational, within bounds that are checked before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from selftrain.mathematics.nodes import Node

MAX_EXACT_BITS = 80_000
MAX_FACTORIAL = 2000


class TooLarge(ArithmeticError):
    """Beyond the bounds: cannot be decided."""


class Undefined(ArithmeticError):
    """No value there: division by zero, the logarithm of zero."""


def exact(node: Node) -> Fraction | None:
    """The rational value of a node; None where it has none that plain arithmetic finds.

    Raises:
        TooLarge, Undefined
    """
    if node.op == "num":
        return Fraction(node.value)
    if node.op not in ("add", "mul", "div", "pow", "fn"):
        return None
    values = []
    for part in node.args:
        value = exact(part)
        if value is None:
            return None
        values.append(value)
    if node.op == "add":
        return _bounded(sum(values, Fraction(0)))
    if node.op == "mul":
        return _bounded(math.prod(values, start=Fraction(1)))
    if node.op == "div":
        if not values[1]:
            raise Undefined("division by zero")
        return _bounded(values[0] / values[1])
    return _exact_power(*values) if node.op == "pow" else _exact_function(node.name, values)


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > MAX_EXACT_BITS:
        raise TooLarge("a number has too many digits")
    return value


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        return None
    if not base and exponent < 0:
        raise Undefined("division by zero")
    if abs(base) in (0, 1):
        return base if base >= 0 and exponent else (Fraction(1) if exponent % 2 == 0 else base)
    if _bits(base) * abs(exponent) > MAX_EXACT_BITS:
        return None  # A floating-point value may still do.
    return base ** int(exponent)


def _exact_function(name: str, values: list[Fraction]) -> Fraction | None:
    value = values[0]
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    if name in _SIMPLE:
        return _SIMPLE[name](value)
    if all(other.denominator == 1 for other in values):
        return _whole_function(name, [int(other) for other in values])
    return None


_SIMPLE: dict[str, Callable[[Fraction], Fraction]] = {
    "abs": abs,
    "floor": lambda value: Fraction(math.floor(value)),
    "ceil": lambda value: Fraction(math.ceil(value)),
    "re": lambda value: value,
    "conj": lambda value: value,
}


def _whole_function(name: str, values: list[int]) -> Fraction | None:
    if name in ("gcd", "lcm"):
        return Fraction((math.gcd if name == "gcd" else math.lcm)(*values))
    if name == "factorial" and values[0] >= 0:
        check_factorial(values[0])
        return Fraction(math.factorial(values[0]))
    if name == "binom" and min(values) >= 0:
        if min(values[1], abs(values[0] - values[1])) > MAX_FACTORIAL or values[0].bit_length() > 64:
            raise TooLarge("a binomial coefficient is too large")
        return _bounded(Fraction(math.comb(values[0], values[1])))
    return None


def check_factorial(value: Any) -> None:
    if abs(value) > MAX_FACTORIAL:
        raise TooLarge("a factorial is too large")
