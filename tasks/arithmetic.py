"""Chained arithmetic with written steps: a generated task whose every step can be checked.

A problem is a chain of single-digit operations, evaluated from left to right modulo a number::

    question       7+5*3-2=
    demonstration  7+5=12 12*3=36 36-2=34 #34

The difficulty of a problem is its number of operations. ``demonstrations`` and ``train`` are different problems:
only the former carry worked solutions, so what a model gains on ``train`` it found itself. ``transfer`` holds chains
longer than any of the other splits.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from selftrain.types import Problem

SPLITS = ("test", "val", "demonstrations", "train", "transfer")
MOST = 1 << 24
"""Problems of a split; they are held in memory."""
STEP = re.compile(r"(\d+)([+\-*])(\d+)=(\d+)")


@dataclass(frozen=True)
class Arithmetic:
    """Options of the task; sizes are numbers of problems."""

    sizes: dict[str, int] = field(
        default_factory=lambda: {"demonstrations": 500, "train": 4000, "val": 200, "test": 500, "transfer": 200}
    )
    operations: str = "+-*"
    lengths: tuple[int, int] = (2, 6)
    """Smallest and largest number of operations, both included."""
    transfer_lengths: tuple[int, int] = (7, 8)
    modulus: int = 100
    seed: int = 0
    """Seed of the problems themselves; runs with different run seeds share them."""

    verifier = "numeric_answer"
    licence, source = "none needed", "generated"

    def __post_init__(self) -> None:
        unknown = set(self.sizes) - set(SPLITS)
        if unknown:
            raise ValueError(f"sizes: unknown split {', '.join(sorted(unknown))}; known: {', '.join(SPLITS)}")
        if not self.operations or set(self.operations) - set("+-*"):
            raise ValueError(f"operations must be made of + - *, got '{self.operations}'")
        if min(self.sizes.values(), default=0) < 0:
            raise ValueError(f"sizes must not be negative, got {min(self.sizes.values())}")
        if max(self.sizes.values(), default=0) > MOST:
            raise ValueError(f"sizes must be at most {MOST:,}, got {max(self.sizes.values())}")
        for low, high in (self.lengths, self.transfer_lengths):
            if not 1 <= low <= high:
                raise ValueError(f"lengths must be a smallest and a largest number from 1 on, got [{low}, {high}]")

    def splits(self) -> tuple[str, ...]:
        return tuple(name for name in SPLITS if self.sizes.get(name))

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split. No question occurs in two splits, whatever their sizes."""
        seen: set[str] = set()
        for name in SPLITS:
            lengths = self.transfer_lengths if name == "transfer" else self.lengths
            questions = list(self._fresh(name, lengths, seen))
            if name == split:
                return [self._problem(name, *chain) for chain in questions]
        raise ValueError(f"arithmetic has no split '{split}'; known: {', '.join(SPLITS)}")

    def _fresh(self, split: str, lengths: tuple[int, int], seen: set[str]) -> Iterator[tuple[list[int], list[str]]]:
        rng = random.Random(f"arithmetic/{self.seed}/{split}")
        wanted, misses = self.sizes.get(split, 0), 0
        left = self._different(lengths) - sum(lengths[0] <= length_of(question) <= lengths[1] for question in seen)
        if wanted > left:
            raise self._too_few(split, lengths, f"{left} are left")
        while wanted:
            length = rng.randint(*lengths)
            numbers = [rng.randint(1, 9) for _ in range(length + 1)]
            operators = [rng.choice(self.operations) for _ in range(length)]
            question = render(numbers, operators)
            if question in seen:
                misses += 1
                if misses > 1000 * self.sizes[split]:
                    raise self._too_few(split, lengths, f"of {left} the last are not met by chance")
                continue
            seen.add(question)
            wanted -= 1
            yield numbers, operators

    def _different(self, lengths: tuple[int, int]) -> int:
        """Questions there are of so many operations; where all splits may have fewer, not all are counted."""
        kinds, found = len(set(self.operations)), 0
        for length in range(lengths[0], lengths[1] + 1):
            found += 9 ** (length + 1) * kinds**length
            if found > MOST * len(SPLITS):
                break
        return found

    def _too_few(self, split: str, lengths: tuple[int, int], why: str) -> ValueError:
        return ValueError(
            f"arithmetic: there are too few different problems of {lengths[0]}-{lengths[1]} operations for "
            f"{self.sizes[split]} in '{split}' ({why}); make sizes smaller or lengths larger"
        )

    def _problem(self, split: str, numbers: list[int], operators: list[str]) -> Problem:
        steps, value = [], numbers[0]
        for operator, number in zip(operators, numbers[1:], strict=True):
            result = apply(value, operator, number, self.modulus)
            steps.append(f"{value}{operator}{number}={result}")
            value = result
        worked = " ".join([*steps, f"#{value}"])
        question = render(numbers, operators)
        # By what is asked, so that runs with other sizes or lengths are never compared on different problems.
        asked = hashlib.sha256(f"{question} mod {self.modulus}".encode()).hexdigest()[:12]
        return Problem(
            id=f"arithmetic/{split}/{asked}",
            task="arithmetic",
            split=split,
            question=question,
            answer=str(value),
            demonstration=worked if split == "demonstrations" else None,
            difficulty=len(operators),
        )


def render(numbers: list[int], operators: list[str]) -> str:
    return str(numbers[0]) + "".join(f"{o}{n}" for o, n in zip(operators, numbers[1:], strict=True)) + "="


def length_of(question: str) -> int:
    """How many operations a rendered question has; all its numbers are of one digit."""
    return len(question) // 2 - 1


def apply(value: int, operator: str, number: int, modulus: int) -> int:
    result = {"+": value + number, "-": value - number, "*": value * number}[operator]
    return result % modulus


def first_wrong_step(question: str, response: str, modulus: int = 100) -> int | None:
    """Index of the first step of a response that is not the right one; None where all steps are right.

    A missing step counts as wrong at its index, a superfluous one likewise.
    """
    numbers = [int(n) for n in re.findall(r"\d+", question)]
    operators = re.findall(r"[+\-*]", question)
    written = STEP.findall(response)
    value = numbers[0]
    for index, (operator, number) in enumerate(zip(operators, numbers[1:], strict=True)):
        result = apply(value, operator, number, modulus)
        if index >= len(written) or written[index] != (str(value), operator, str(number), str(result)):
            return index
        value = result
    return len(operators) if len(written) > len(operators) else None
