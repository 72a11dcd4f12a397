"""The value of an expression at a point, within bounds that are checked first.

Nothing is expanded, simplified or integrated. What would grow beyond the bounds raises ``TooLarge`` before it is
computed, so no power tower, factorial or exponent can hang a worker.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from selftrain.mathematics.exact import TooLarge, Undefined, check_factorial, exact
from selftrain.mathematics.nodes import UNKNOWN, Node, key

MAX_BITS = 8192
"""Largest binary exponent of any value on the way."""
MAX_ANGLE_BITS = 300

_HYPERBOLIC = {"sinh", "cosh", "tanh", "coth", "sech", "csch"}


class Evaluator:
    """Values of expressions at one point.

    Args:
        context: arithmetic, an mpmath context.
        point: the value of each symbol.
    """

    def __init__(self, context: Any, point: Mapping[str, Any]) -> None:
        self._context, self._point = context, point
        self.bits = 0
        """Largest magnitude met, of large numbers and of small ones, in bits."""
        self._floating = not hasattr(context, "prec") or context.prec == 53

    def value(self, node: Node) -> Any:
        """
        Raises:
            TooLarge, Undefined
        """
        ctx = self._context
        match node.op:
            case "num":
                return self._seen(ctx.mpf(node.value.numerator) / ctx.mpf(node.value.denominator))
            case "sym":
                return self._point[node.name]
            case "const":
                return {"pi": +ctx.pi, "e": +ctx.e, "i": ctx.mpc(0, 1), "inf": ctx.inf}[node.name]
            case "add":
                return self._large(sum(map(self.value, node.args), ctx.mpf(0)))
            case "mul":
                return self._large(math.prod(map(self.value, node.args), start=ctx.mpf(1)))
            case "div":
                return self._divided(*map(self.value, node.args))
            case "pow":
                return self._power(node.args[0], node.args[1])
            case "root":
                return self._rooted(self.value(node.args[0]), node.args[1])
        return self._applied(node)

    def _applied(self, node: Node) -> Any:
        if node.op == "fn":
            return self._function(node.name, [self.value(part) for part in node.args])
        if node.op in ("matrix", "row"):
            raise TooLarge("a matrix inside an expression")
        return self._opaque(node)

    def _magnitude(self, value: Any) -> int:
        if self._floating or not value or not self._context.isfinite(value):
            return 0
        return int(self._context.mag(value))

    def _seen(self, value: Any) -> Any:
        self.bits = max(self.bits, abs(self._magnitude(value)))
        return self._checked(value)

    def _large(self, value: Any) -> Any:
        """Sums and products: a small one may be nothing but rounding."""
        self.bits = max(self.bits, self._magnitude(value))
        return self._checked(value)

    def _checked(self, value: Any) -> Any:
        if self.bits > MAX_BITS:
            raise TooLarge("a number is too large")
        return value

    def _is_zero(self, value: Any) -> bool:
        return not value or (not self._floating and self._context.mag(value) < -self._context.prec // 2 - self.bits)

    def _divided(self, over: Any, under: Any) -> Any:
        if self._is_zero(under):
            raise Undefined("division by zero")
        return self._large(over / under)

    def _power(self, base_node: Node, exponent_node: Node) -> Any:
        exponent_exact = exact(exponent_node)
        if base_node == Node("const", name="e"):
            return self._exponential(self.value(exponent_node))
        base = self.value(base_node)
        if exponent_exact is not None and exponent_exact.denominator != 1:
            return self._rational_power(base, exponent_exact)
        exponent = self.value(exponent_node) if exponent_exact is None else exponent_exact
        if self._is_zero(base):
            if exponent_exact is None or exponent_exact <= 0:
                raise Undefined("a power of zero")
            return self._context.mpf(0)
        grown = abs(exponent) * max(1, abs(self._magnitude(base)))
        if grown > MAX_BITS and abs(base) != 1:
            raise TooLarge("a power is too large")
        return self._seen(base ** (int(exponent) if exponent_exact is not None else exponent))

    def _rational_power(self, base: Any, exponent: Fraction) -> Any:
        """Roots of odd degree of negative numbers are real, as at school."""
        ctx = self._context
        if self._is_zero(base):
            if exponent < 0:
                raise Undefined("division by zero")
            return ctx.mpf(0)
        if abs(exponent) * max(1, abs(self._magnitude(base))) > MAX_BITS:
            raise TooLarge("a power is too large")
        quotient = self._seen(ctx.mpf(exponent.numerator) / ctx.mpf(exponent.denominator))
        if ctx.im(base) == 0 and ctx.re(base) < 0 and exponent.denominator % 2:
            size = ctx.power(-ctx.re(base), quotient)
            return self._seen(-size if exponent.numerator % 2 else size)
        return self._seen(ctx.power(base, quotient))

    def _rooted(self, base: Any, degree: Node) -> Any:
        exact_degree = exact(degree)
        if exact_degree is None:
            return self._context.power(base, 1 / self.value(degree))
        if not exact_degree:
            raise Undefined("a root of degree zero")
        return self._rational_power(base, 1 / exact_degree)

    def _exponential(self, exponent: Any) -> Any:
        self._check_angle(exponent)
        if abs(self._context.re(exponent)) > MAX_BITS:
            raise TooLarge("a power is too large")
        return self._seen(self._context.exp(exponent))

    def _check_angle(self, value: Any) -> None:
        if self._magnitude(value) > MAX_ANGLE_BITS:
            raise TooLarge("an argument is too large")

    def _function(self, name: str, values: list[Any]) -> Any:
        ctx, value = self._context, values[0]
        self._check_angle(value)
        if name == "factorial":
            check_factorial(value)
            return self._large(ctx.factorial(value))
        if name == "binom":
            check_factorial(value)
            return self._large(ctx.binomial(*values))
        if name in ("log", "ln") and (self._is_zero(value) or (name == "log" and self._is_zero(ctx.ln(values[1])))):
            raise Undefined("the logarithm of zero")
        if name == "log":
            return ctx.ln(value) / ctx.ln(values[1])
        if name in ("max", "min"):
            return self._chosen(max if name == "max" else min, values)
        if name in ("gcd", "lcm"):
            return self._unknown(f"{name}{sorted(self._spelled(value) for value in values)}")
        if name == "cis":
            return self._exponential(value * ctx.mpc(0, 1))
        if name in _HYPERBOLIC:
            if abs(ctx.re(value)) > MAX_BITS:
                raise TooLarge("a power is too large")
            self.bits = max(self.bits, 3 * int(abs(ctx.re(value))))  # tanh(100) is nearly 1.
        function: Callable[[Any], Any] = getattr(ctx, name if name != "abs" else "fabs")
        return self._large(function(value))

    def _chosen(self, choose: Callable[[list[Any]], Any], values: list[Any]) -> Any:
        if any(self._context.im(value) for value in values):
            raise Undefined("no order among complex numbers")
        return choose(values)

    def _opaque(self, node: Node) -> Any:
        """A made-up number that depends on the name and on the values of the arguments alone."""
        if node.name.startswith("\\"):  # Sums and integrals bind a variable: equal only as they are written.
            return self._unknown(key(node))
        return self._unknown(f"{node.name}{[self._spelled(self.value(part)) for part in node.args]}")

    def _spelled(self, value: Any) -> str:
        return str(self._context.nstr(self._context.mpc(value), 8))

    def _unknown(self, text: str) -> Any:
        text += str(self._point.get(UNKNOWN))
        return self._context.mpf(zlib.crc32(text.encode("utf-8", "replace")) % 999_983 + 1) / 600_011
