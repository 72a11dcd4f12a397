"""Sums, multiples, products and transposes of matrices, carried out while an expression is read."""

from __future__ import annotations

from selftrain.mathematics.cursor import NotRead
from selftrain.mathematics.nodes import Node, add, div, mul, neg, power, sym

MAX_CELLS = 400
_MAX_POWER = 4


def matrix_of(rows: list[list[Node]]) -> Node:
    if not rows or len({len(row) for row in rows}) > 1 or len(rows) * len(rows[0]) > MAX_CELLS:
        raise NotRead("not a matrix")
    return Node("matrix", tuple(Node("row", tuple(row)) for row in rows))


def plus(terms: list[Node]) -> Node:
    matrices = [term for term in terms if term.op == "matrix"]
    if not matrices:
        return add(*terms)
    if len(matrices) < len(terms) or any(_shape(term) != _shape(matrices[0]) for term in matrices):
        raise NotRead("a sum of different shapes")
    rows = zip(*map(_rows, terms), strict=True)
    return matrix_of([[add(*cells) for cells in zip(*row, strict=True)] for row in rows])


def times(left: Node, right: Node) -> Node:
    if left.op == right.op == "matrix":
        return _product(left, right)
    if left.op == "matrix" or right.op == "matrix":
        matrix, factor = (left, right) if left.op == "matrix" else (right, left)
        return matrix_of([[mul(factor, cell) for cell in row] for row in _rows(matrix)])
    return mul(left, right)


def over(left: Node, right: Node) -> Node:
    if right.op == "matrix":
        raise NotRead("division by a matrix")
    return (
        matrix_of([[div(cell, right) for cell in row] for row in _rows(left)])
        if left.op == "matrix"
        else div(left, right)
    )


def minus(node: Node) -> Node:
    return matrix_of([[neg(cell) for cell in row] for row in _rows(node)]) if node.op == "matrix" else neg(node)


def raised(base: Node, exponent: Node) -> Node:
    if base.op != "matrix":
        return power(base, exponent)
    if exponent in (sym("T"), sym("\\top"), sym("\\intercal")):
        return matrix_of([list(column) for column in zip(*_rows(base), strict=True)])
    if exponent.op != "num" or exponent.value not in range(1, _MAX_POWER + 1):
        raise NotRead("a power of a matrix")
    found = base
    for _ in range(int(exponent.value) - 1):
        found = _product(found, base)
    return found


def _product(left: Node, right: Node) -> Node:
    columns = list(zip(*_rows(right), strict=True))
    if len(_rows(left)[0]) != len(_rows(right)) or len(_rows(right)) > 12:
        raise NotRead("a product of shapes that do not fit")
    rows = _rows(left)
    return matrix_of(
        [[add(*(mul(a, b) for a, b in zip(row, column, strict=True))) for column in columns] for row in rows]
    )


def _rows(matrix: Node) -> list[list[Node]]:
    return [list(row.args) for row in matrix.args]


def _shape(matrix: Node) -> tuple[int, int]:
    return len(matrix.args), len(matrix.args[0].args)


def determinant(matrix: Node) -> Node:
    rows = _rows(matrix)
    if matrix.op != "matrix" or len(rows) != len(rows[0]) or len(rows) > 4:
        raise NotRead("no determinant that is read")
    return _determinant(rows)


def _determinant(rows: list[list[Node]]) -> Node:
    if len(rows) == 1:
        return rows[0][0]
    terms = []
    for column, factor in enumerate(rows[0]):
        term = mul(factor, _determinant([row[:column] + row[column + 1 :] for row in rows[1:]]))
        terms.append(neg(term) if column % 2 else term)
    return add(*terms)
