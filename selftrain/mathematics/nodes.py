"""Expressions as trees, and one spelling per tree up to the order of sums and products.

A node is ``num`` (an exact value), ``sym`` (a name), ``const`` (``pi``, ``e``, ``i``, ``inf``), ``add``, ``mul``,
``div``, ``pow``, ``root`` (radicand, degree), ``fn`` (a known function by name), ``opaque`` (an unknown function or an
operator that is never carried out, such as an integral) or ``matrix`` (rows).
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple


class Node(NamedTuple):
    """One node of an expression."""

    op: str
    args: tuple[Node, ...] = ()
    name: str = ""
    """Of a symbol, constant or function."""
    value: Fraction | int = 0
    """Of a number."""


def num(value: Fraction | int) -> Node:
    return Node("num", value=value)


def sym(name: str) -> Node:
    return Node("sym", name=name)


def fn(name: str, *args: Node) -> Node:
    return Node("fn", args, name)


ZERO, ONE, TWO = num(0), num(1), num(2)
PI, E, IMAGINARY, INFINITY = (Node("const", name=name) for name in ("pi", "e", "i", "inf"))


def add(*terms: Node) -> Node:
    """A sum; sums inside it are taken apart, so that long ones do not nest."""
    flat = tuple(part for term in terms for part in (term.args if term.op == "add" else (term,)))
    return flat[0] if len(flat) == 1 else Node("add", flat)


def mul(*factors: Node) -> Node:
    flat = tuple(part for factor in factors for part in (factor.args if factor.op == "mul" else (factor,)))
    return flat[0] if len(flat) == 1 else Node("mul", flat)


def neg(node: Node) -> Node:
    return num(-node.value) if node.op == "num" else mul(num(-1), node)


def sub(left: Node, right: Node) -> Node:
    return add(left, neg(right))


def div(over: Node, under: Node) -> Node:
    if over.op == under.op == "num" and under.value:
        return num(Fraction(over.value) / Fraction(under.value))
    return Node("div", (over, under))


def power(base: Node, exponent: Node) -> Node:
    return Node("pow", (base, exponent))


def walk(node: Node) -> Iterator[Node]:
    stack = [node]
    while stack:
        node = stack.pop()
        yield node
        stack += node.args


UNKNOWN = "\0unknown"
"""Stands among the symbols of an expression with opaque parts: their values change from point to point too."""


def symbols(*nodes: Node) -> list[str]:
    parts = [part for node in nodes for part in walk(node)]
    names = {part.name for part in parts if part.op == "sym"}
    return sorted(names | ({UNKNOWN} if any(part.op == "opaque" for part in parts) else set()))


def key(node: Node) -> str:
    """A spelling that does not depend on the order of terms and factors."""
    if node.op == "num":
        return (
            f"{node.value:x}" if isinstance(node.value, int) else f"{node.value.numerator:x}/{node.value.denominator:x}"
        )
    if node.op in ("sym", "const"):
        return f"{node.op}:{node.name}"
    parts = [key(part) for part in node.args]
    if node.op in ("add", "mul"):
        parts.sort()
    return f"{node.op}:{node.name}({','.join(parts)})"
