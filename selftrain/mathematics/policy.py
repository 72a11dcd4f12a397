"""What counts as the same answer where mathematics leaves it open: the options of ``math_answer``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from selftrain.mathematics.same import Domain


@dataclass(frozen=True)
class Policy:
    """Which forms of an answer stand for each other."""

    tolerance: float = 0.0
    """Largest relative difference to the gold number; 0 compares exactly."""
    rounded_digits: int = 10
    """A decimal of at least so many significant digits stands for the number that it rounds: 0.0833333333333 for 1/12;
    0: never."""
    percent: Literal["either", "unit", "value"] = "either"
    """What 50% is: 50 (unit), 0.5 (value), or whichever of them the other answer is."""
    units: Literal["optional", "required"] = "optional"
    """optional: a unit may be left out. Two different units are wrong in any case, 5 m for 500 cm too."""
    names: Literal["optional", "required"] = "optional"
    """optional: 3 stands for x = 3, and x^2 for f(x) = x^2."""
    ordered_lists: bool = False
    """Whether 1, 2 differs from 2, 1. Tuples, vectors and matrices are always ordered, sets never."""
    list_brackets: Literal["optional", "required"] = "optional"
    """optional: 1, 2 stands for the point (1, 2), in this order, and for the set {1, 2}."""
    inequalities: Literal["sets", "relations"] = "sets"
    """sets: 1 < x < 2 stands for the interval (1, 2)."""
    decimal_comma: bool = False
    """Whether 1,5 is 1.5. Thousands stand in groups of three with commas otherwise."""
    symbols: Domain = "real"
    """What letters stand for, where two expressions are compared: sqrt(x^2) is x for positive ones alone."""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must be at least 0 and below 1, not {self.tolerance}")
        if self.rounded_digits < 0:
            raise ValueError(f"rounded_digits must not be negative, not {self.rounded_digits}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")


_CHOICES = {
    "percent": ("either", "unit", "value"),
    "units": ("optional", "required"),
    "names": ("optional", "required"),
    "list_brackets": ("optional", "required"),
    "inequalities": ("sets", "relations"),
    "symbols": ("real", "positive", "complex"),
}
