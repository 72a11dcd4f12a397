"""Letters in an expression: known names, products of letters, symbols with an index, functions that are applied."""

from __future__ import annotations

from selftrain.mathematics.commands import CONSTANTS, Commands
from selftrain.mathematics.cursor import NotRead
from selftrain.mathematics.nodes import INFINITY, PI, Node, mul, power, sym
from selftrain.mathematics.tokens import FUNCTIONS

MAX_LETTERS = 8

_WORDS = {"inf": INFINITY, "infinity": INFINITY, "oo": INFINITY, "Infinity": INFINITY, "infty": INFINITY, "pi": PI}
_GREEK = frozenset(
    [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "sigma",
        "tau",
        "chi",
        "psi",
        "omega",
    ]
)
_ENDING = {
    ")", "]", "}", ",", ";", "+", "-", "*", "/", "=", "<", ">", r"\le", r"\ge", r"\ne", r"\in", r"\cup", r"\cap", "&",
    "\\\\", r"\rfloor", r"\rceil", r"\}", r"\rangle", r"\approx", r"\to", r"\equiv", r"\pm", r"\mp", r"\setminus",
    ":", r"\end", r"\pmod", r"\subset", r"\subseteq", r"\supset", r"\notin", r"\sim", r"\cong", r"\Rightarrow",
    r"\dots", ".", "?", '"', r"\{", "'", "^", "_", "@", "#", r"\forall", r"\exists", r"\wedge", r"\vee", r"\langle",
    r"\parallel", r"\perp", r"\over", r"\choose",
}  # fmt: skip
"""No factor begins with one of these."""


class Names(Commands):
    """The rules of the grammar for letters."""

    def begins_factor(self) -> bool:
        token = self.next
        if not token or self.kind == "text" or token in _ENDING or token in ("%", "!", r"\circ"):
            return False
        return token != "|" or not self.bars

    def letters(self, word: str) -> Node:
        """A name that is known, else a product of its letters; the last one may be indexed or applied."""
        if word in FUNCTIONS:
            return self.function(word)
        if word in _WORDS:
            return _WORDS[word]
        if word in CONSTANTS:
            return CONSTANTS[word] if self.next != "_" else self.symbol(word)
        if word in _GREEK:
            return self.symbol("\\" + word)
        if len(word) == 1:
            return self.symbol(word)
        if len(word) > 2 and word.isupper() and self.next not in ("_", "^", "'"):
            return sym(word)  # A figure: ABC is not ACB.
        if len(word) > MAX_LETTERS:
            raise NotRead("a word")
        letters = [CONSTANTS.get(letter) or sym(letter) for letter in word[:-1]]
        rest = self.letters(word[-1])
        if self.next == "^":  # The power belongs to the last letter alone.
            self.at += 1
            rest = power(rest, self.exponent())
        return mul(*letters, rest)

    def symbol(self, name: str) -> Node:
        """A symbol with its index and primes; applied to arguments where it is a function's name."""
        name += self.index()
        while prime := self.take("'"):
            name += prime
        if self.next == "(" and (name[0] in "fgh" or self.raw(3) == ["(", "0", ")"]):
            return Node("opaque", self.arguments(), name)
        if name[0] in "fgh" and self.next == "^" and self.raw(4)[:4] == ["^", "{", "-", "1"]:
            self.at += 5
            return Node("opaque", self.arguments() if self.next == "(" else (), name + "^-1")
        return sym(name)

    def index(self) -> str:
        if not self.take("_"):
            return ""
        if not self.take("{"):
            self.at += 1
            return "_" + self.tokens[self.at - 1].text if self.at <= len(self.tokens) else "_"
        start, depth = self.at, 1
        while depth and self.at < len(self.tokens):
            depth += (self.next == "{") - (self.next == "}")
            self.at += 1
        return "_" + "".join(token.text for token in self.tokens[start : self.at - 1])
