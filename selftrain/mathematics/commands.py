r"""What the commands of LaTeX and the names of functions stand for in an expression."""

from __future__ import annotations

from abc import ABC, abstractmethod

from selftrain.mathematics.cursor import MAX_DEPTH, Cursor, NotRead
from selftrain.mathematics.matrices import MAX_CELLS, determinant, matrix_of
from selftrain.mathematics.nodes import IMAGINARY, INFINITY, PI, TWO, E, Node, div, fn, mul, num, power, sym
from selftrain.mathematics.tokens import FUNCTIONS

CONSTANTS = {
    "e": E,
    "i": IMAGINARY,
    "pi": PI,
    r"\pi": PI,
    r"\infty": INFINITY,
    r"\infin": INFINITY,
    r"\imath": IMAGINARY,
}
_RENAMED = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arccsc": "acsc", "arcsec": "asec",
    "ctg": "cot", "tg": "tan", "cosec": "csc", "sgn": "sign", "Re": "re", "Im": "im", "arcsinh": "asinh",
    "arccosh": "acosh", "arctanh": "atanh",
}  # fmt: skip
_INVERSE = {"sin", "cos", "tan", "sec", "csc", "cot", "sinh", "cosh", "tanh"}
_SEVERAL = {"max", "min", "gcd", "lcm"}
_OPERATORS = {
    r"\sum", r"\prod", r"\int", r"\lim", r"\iint", r"\iiint", r"\oint", r"\limsup", r"\liminf", r"\sup", r"\inf",
}  # fmt: skip
_DECORATIONS = {
    r"\vec", r"\hat", r"\bar", r"\overline", r"\tilde", r"\dot", r"\overrightarrow", r"\widehat", r"\ddot", r"\overarc",
    r"\widetilde", r"\underline", r"\overleftrightarrow", r"\mathring", r"\check", r"\breve",
}  # fmt: skip
_MATRICES = {"pmatrix", "bmatrix", "matrix", "array", "Bmatrix", "smallmatrix", "vmatrix", "Vmatrix"}
_NO_OPERAND = {
    r"\begin",
    r"\end",
    r"\cases",
    r"\input",
    r"\include",
    r"\write",
    r"\def",
    r"\csname",
    r"\immediate",
    r"\not",
}


class Commands(Cursor, ABC):
    """The rules of the grammar that begin with a name."""

    @abstractmethod
    def sum(self) -> Node: ...

    @abstractmethod
    def power(self) -> Node: ...

    @abstractmethod
    def argument(self) -> Node: ...

    @abstractmethod
    def arguments(self) -> tuple[Node, ...]: ...

    @abstractmethod
    def symbol(self, name: str) -> Node: ...

    @abstractmethod
    def begins_factor(self) -> bool: ...

    @abstractmethod
    def exponent(self) -> Node: ...

    def command(self, command: str) -> Node:
        if command in CONSTANTS:
            return CONSTANTS[command]
        if command == r"\frac":
            over = self.argument()
            return div(over, self.argument())
        if command == r"\sqrt":
            return self._root()
        if command == r"\binom":
            over = self.argument()
            return fn("binom", over, self.argument())
        if command in _OPERATORS:
            return self._operator(command)
        if command == r"\begin":
            return self._environment()
        if command in _DECORATIONS:
            return self._decorated(command)
        if command[1:] in FUNCTIONS:
            return self.function(command[1:])
        if command == r"\pmod" or command in _NO_OPERAND or not command[1:].isalpha():
            raise NotRead(f"not expected: {command}")
        return self.symbol(command)

    def _root(self) -> Node:
        degree = TWO
        if self.take("["):
            degree = self.sum()
            self.need("]")
        return Node("root", (self.argument(), degree))

    def _decorated(self, command: str) -> Node:
        r"""``\vec{x}`` is a name of its own."""
        start = self.at
        self.argument()
        return self.symbol(command + "".join(self._raw_since(start)))

    def _raw_since(self, start: int) -> list[str]:
        return [token.text for token in self.tokens[start : self.at] if token.text not in "{}"]

    def _operator(self, command: str) -> Node:
        """Its bounds and what it ranges over, never carried out."""
        bounds: list[Node] = []
        while self.next in ("_", "^") and len(bounds) < 2:
            start = self.at
            self.at += 1
            self._skip_group()
            bounds.append(sym("".join(token.text for token in self.tokens[start : self.at])))
        return Node("opaque", (*sorted(bounds), self.operand(50)), command)

    def _skip_group(self) -> None:
        depth = 0
        while self.at < len(self.tokens):
            depth += (self.next == "{") - (self.next == "}")
            self.at += 1
            if not depth:
                return
        raise NotRead("a brace is not closed")

    def function(self, name: str) -> Node:
        name = _RENAMED.get(name, name)
        if name == "sqrt":
            return Node("root", (self.power(), TWO))
        if name == "det":
            return determinant(self.power())
        if name in _SEVERAL:
            return self._several(name)
        base = self._subscript() if name in ("log", "lg") else None
        exponent = self.exponent() if self.take("^") else None
        if exponent == num(-1) and name in _INVERSE:
            name, exponent = f"a{name}", None
        value = self._applied(name, base)
        return value if exponent is None else power(value, exponent)

    def _subscript(self) -> Node:
        return self.argument() if self.take("_") else num(10)

    def _applied(self, name: str, base: Node | None) -> Node:
        if self.next == "(":
            found = self.arguments()
            if len(found) > 2 or (len(found) == 2 and name != "log"):
                raise NotRead("too many arguments")
            argument, base = found[0], found[1] if len(found) == 2 else base
        else:
            argument = self.operand(4)
        if name == "exp":
            return power(E, argument)
        return fn("log", argument, base) if base is not None else fn(name, argument)

    def _several(self, name: str) -> Node:
        if self.next in ("(", "["):
            return fn(name, *self.arguments())
        self.need(r"\{")
        found = [self.sum()]
        while self.take(","):
            found.append(self.sum())
        self.need(r"\}")
        return fn(name, *found)

    def operand(self, most: int) -> Node:
        r"""What follows a function's name without brackets: factors up to a sign or another function."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotRead("nested too deeply")
        factors = [self.power()]
        while self.begins_factor() and len(factors) < most and not (most < 50 and self._begins_function()):
            factors.append(self.power())
        self.depth -= 1
        return mul(*factors)

    def _begins_function(self) -> bool:
        return self.next.removeprefix("\\") in FUNCTIONS or self.next in ("(", "[")

    def _environment(self) -> Node:
        r"""A matrix; of bars around it the determinant is meant."""
        name = self._group_text()
        if name not in _MATRICES:
            raise NotRead(f"not a matrix: {name}")
        if name == "array" and self.next == "{":
            self._group_text()
        rows: list[list[Node]] = []
        row: list[Node] = []
        while not self.take(r"\end"):
            if not row and self.take("\\\\"):
                continue  # \\\\ twice
            row.append(self.sum() if self.next not in ("&", "\\\\", r"\end") else sym("\\blank"))
            if self.take("\\\\"):
                rows.append(row)
                row = []
            elif self.next != r"\end":
                self.need("&")
            if len(rows) * len(row) > MAX_CELLS:
                raise NotRead("a matrix is too large")
        if self._group_text() != name:
            raise NotRead("another end of a matrix")
        rows += [row] if row else []
        matrix = matrix_of(rows)
        return determinant(matrix) if name == "vmatrix" else matrix

    def _group_text(self) -> str:
        self.need("{")
        start = self.at
        while self.next not in ("}", ""):
            self.at += 1
        self.need("}")
        return "".join(token.text for token in self.tokens[start : self.at - 1])
