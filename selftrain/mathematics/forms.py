r"""What a final answer is: one value, a list, a point, a set, a union of intervals, a relation, a ratio, a text.

The reading only says what is written; `compare` says which forms stand for each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from selftrain.mathematics.nodes import Node

RELATIONS = {"=", "<", ">", r"\le", r"\ge", r"\ne", r"\equiv", r"\subset", r"\subseteq", r"\supset", r"\sim", r"\cong",
             r"\perp", r"\parallel", r"\Rightarrow", r"\to", r"\iff", r"\notin", r"\propto", r"\supseteq"}  # fmt: skip


@dataclass(frozen=True)
class Value:
    """An expression, perhaps with a unit."""

    node: Node
    unit: str = ""
    ulp: Fraction | None = None
    """Of a number written with a decimal point: one unit of its last digit."""
    digits: int = 0
    """Of such a number: how many significant digits it has."""
    base: str = ""
    """Of digits with an index: ``3`` of ``1202_3``; ``node`` is their value."""


@dataclass(frozen=True)
class Sequence:
    """Several answers (``list``), a point or vector (``tuple``), ``[a, b]`` (``bracket``), or a finite ``set``."""

    kind: Literal["list", "tuple", "bracket", "set"]
    items: tuple[Form, ...]
    alternatives: bool = False
    """Joined by ``or``."""


@dataclass(frozen=True)
class Interval:
    low: Node
    high: Node
    closed: tuple[bool, bool]


@dataclass(frozen=True)
class Union:
    """A set of numbers: intervals and points in any order."""

    parts: tuple[Interval | Node, ...]


@dataclass(frozen=True)
class Relation:
    """``sides[0] signs[0] sides[1] signs[1] ...``"""

    sides: tuple[Form, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Ratio:
    """``2:3``; also a time of day."""

    terms: tuple[Node, ...]
    time: tuple[int, int] | None = None
    """Hours and minutes where it may be one."""
    half: str = ""
    """``am`` or ``pm``."""


@dataclass(frozen=True)
class Text:
    """Words in lower case, without articles."""

    words: str


@dataclass(frozen=True)
class Unread:
    """What the grammar does not cover: equal only as it is written."""

    reason: str


Form = Value | Sequence | Union | Relation | Ratio | Text | Unread
