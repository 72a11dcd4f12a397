r"""Reads the tokens of one expression by a closed grammar; nothing is ever evaluated by Python's own parser.

::

    sum      ["+" | "-"] product (("+" | "-") product)*
    product  power (["*" | "/"] power)*            an operator may be left out before anything but a number
    power    postfix ["^" exponent]
    postfix  primary ("!" | "%" | "^" "\circ")*
    primary  number | symbol | "(" sum ")" | "|" sum "|" | \frac, \sqrt, \binom | function | operator | matrix

``3\frac12`` and ``3 1/2`` are mixed numbers. ``f(x)`` is a function for f, g and h, for other letters a product.
Commands without a meaning here are symbols.
"""

from __future__ import annotations

from fractions import Fraction

from selftrain.mathematics.cursor import MAX_DEPTH, NotRead
from selftrain.mathematics.matrices import minus, over, plus, raised, times
from selftrain.mathematics.names import Names
from selftrain.mathematics.nodes import ONE, PI, Node, add, div, fn, mul, neg, num
from selftrain.mathematics.tokens import Token

MAX_DIGITS = 4000
MAX_POSTFIXES = 4

_BRACKETS = {"(": ")", "[": "]", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil", r"\|": r"\|"}


class Parser(Names):
    """Recursive descent over the grammar above, one method a rule."""

    def whole(self) -> Node:
        """The one expression that all tokens make."""
        node = self.group()
        if self.at < len(self.tokens):
            raise NotRead(f"not expected: {self.next}")
        return node

    def group(self) -> Node:
        r"""What stands in braces: a sum, or ``1 \over 2`` or ``n \choose k``."""
        node = self.sum()
        if self.take(r"\over"):
            return over(node, self.sum())
        if self.take(r"\choose"):
            return fn("binom", node, self.sum())
        return node

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotRead("nested too deeply")
        terms = []
        sign = self.signs()
        while True:
            term = self.product()
            terms.append(minus(term) if sign else term)
            if self.next not in ("+", "-"):
                break
            sign = self.signs()
        self.depth -= 1
        return plus(terms)

    def signs(self) -> bool:
        """Whether the signs that stand here make a minus."""
        minus = False
        while sign := self.take("+", "-"):
            minus ^= sign == "-"
        return minus

    def product(self) -> Node:
        node = self.power()
        mixed = node.op == "num" and node.value.denominator == 1 and self._fraction_follows()
        if mixed:
            part = self.power()
            if part.op == "num" and self.take("/"):
                part = div(part, self.power())
            node = add(node, part) if part.op == "num" else mul(node, part)
            if part.op == "num":
                node = num(sum(term.value for term in node.args))
        while True:
            if self.take("*"):
                node = times(node, self.signed_power())
            elif self.take("/"):
                under = self.signed_power()
                node = mul(node, div(ONE, under)) if node.op in ("mul", "div") else over(node, under)
            elif self.begins_factor():
                if self.kind == "num" and self.at and self.tokens[self.at - 1].kind == "num":
                    raise NotRead("two numbers side by side")
                node = times(node, self.power())
            else:
                return node

    def _fraction_follows(self) -> bool:
        r"""``\frac12`` of two numbers, or ``1/2`` after a space: the fraction of a mixed number."""
        rest = self.tokens[self.at : self.at + 7]
        if not rest or rest[0].text == "}" or (self.at and self.tokens[self.at - 1].kind != "num"):
            return False
        texts = [token.text for token in rest if token.text not in "{}"]
        if texts[:1] == [r"\frac"]:
            return len(texts) > 1 and texts[1].isdigit() and (len(texts[1]) == 2 or texts[2:3] > ["0"])
        return len(texts) > 2 and rest[0].spaced and texts[0].isdigit() and texts[1] == "/" and texts[2].isdigit()

    def signed_power(self) -> Node:
        return minus(self.power()) if self.signs() else self.power()

    def power(self) -> Node:
        node = self.postfix(self.primary())
        if self.next == "^" and self.at + 1 < len(self.tokens):
            self.at += 1
            node = raised(node, self.exponent())
            node = self.postfix(node)
        return node

    def exponent(self) -> Node:
        minus = self.signs()
        if self.next == "{":
            exponent = self.argument()
        else:
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise NotRead("nested too deeply")
            exponent = self.power()
            self.depth -= 1
        return neg(exponent) if minus else exponent

    def postfix(self, node: Node) -> Node:
        for _ in range(MAX_POSTFIXES):
            if self.next == "!":
                self.at += 1
                node = fn("factorial", node)
            elif self.next == "%":
                self.at += 1
                node = div(node, num(100))
            elif self._degrees():
                node = mul(node, div(PI, num(180)))
            else:
                break
        return node

    def _degrees(self) -> bool:
        texts = [token.text for token in self.tokens[self.at : self.at + 4]]
        for pattern in (["^", r"\circ"], ["^", "{", r"\circ", "}"], [r"\circ"]):
            if texts[: len(pattern)] == pattern:
                self.at += len(pattern)
                return True
        return False

    def primary(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotRead("nested too deeply")
        node = self._primary()
        self.depth -= 1
        return node

    def _primary(self) -> Node:
        if self.at >= len(self.tokens):
            raise NotRead("ends early")
        token = self.tokens[self.at]
        self.at += 1
        if token.kind == "num":
            return _number(token.text)
        if token.kind == "id":
            return self.letters(token.text)
        if token.kind == "text":
            if len(token.text) > 1:
                raise NotRead("a word")
            return self.symbol(token.text)
        if token.text in _BRACKETS:
            return self._bracketed(token.text)
        if token.text == "{":
            self.at -= 1
            return self.argument()
        if token.text == "|":
            return self._bars_around()
        if token.kind == "cmd":
            return self.command(token.text)
        raise NotRead(f"not expected: {token.text}")

    def _bracketed(self, opening: str) -> Node:
        bars, self.bars = self.bars, 0
        node = self.sum()
        self.need(_BRACKETS[opening])
        self.bars = bars
        if opening in ("(", "["):
            return node
        if opening == r"\|":
            return Node("opaque", (node,), "norm")
        return fn("floor" if opening == r"\lfloor" else "ceil", node)

    def _bars_around(self) -> Node:
        self.bars += 1
        node = self.sum()
        self.need("|")
        self.bars -= 1
        return fn("abs", node)

    def argument(self) -> Node:
        """What stands in braces, or one token; of a number its first digit."""
        if self.take("{"):
            bars, self.bars = self.bars, 0
            node = self.group()
            self.need("}")
            self.bars = bars
            return node
        if self.kind == "num" and len(self.next) > 1 and self.next.isdigit():
            token = self.tokens[self.at]
            self.tokens[self.at : self.at + 1] = [Token("num", token.text[0]), Token("num", token.text[1:])]
        if self.kind == "id" and len(self.next) > 1:
            token = self.tokens[self.at]
            self.tokens[self.at : self.at + 1] = [Token("id", token.text[0]), Token("id", token.text[1:])]
        return self.primary()

    def arguments(self) -> tuple[Node, ...]:
        self.need("(")
        bars, self.bars = self.bars, 0
        found = [self.sum()]
        while self.take(",", ";"):
            found.append(self.sum())
        self.need(")")
        self.bars = bars
        return tuple(found)


def _number(text: str) -> Node:
    if len(text) > MAX_DIGITS:
        raise NotRead("a number has too many digits")
    if text.isdigit():
        return num(int(text))
    exponent = text.lower().partition("e")[2]
    if exponent and (len(exponent) > 5 or abs(int(exponent)) > MAX_DIGITS):
        raise NotRead("an exponent is too large")
    return num(Fraction(text))
