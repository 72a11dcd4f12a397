"""What a response earns beside being right: ``format_gate`` and ``length_penalty``.

Both pass on what the verifier inside says where it could not judge, or where the problem is not its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from selftrain.asking import ask
from selftrain.nested import VerifierPart
from selftrain.ranges import Count, Share, Size
from selftrain.types import Problem, Verdict


@dataclass(frozen=True)
class FormatGate:
    """Nothing counts unless the format holds: another verifier is asked only where the pattern is found.

    A response without it is ``wrong`` with the value 0, and the reason says so. A pattern that takes for ever on some
    responses is a ``timeout``, as of any verifier.

    Raises:
        ValueError: no pattern is given, or it is no regular expression.
    """

    pattern: str = ""
    r"""Python regular expression, searched for in the response: anchor it by ``\A`` and ``\Z`` to describe all of it;
    ``(?s)`` in front lets ``.`` match line breaks."""
    verifier: VerifierPart = None
    """Who judges what has the format; None: the format alone is right."""

    follows_parts = True
    golds = "all"

    def __post_init__(self) -> None:
        if not self.pattern:
            raise ValueError(r"pattern: give a regular expression, such as (?s)\A<think>.*</think>")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is not a regular expression: {error}") from error

    @cached_property
    def _format(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    async def __call__(self, problem: Problem, response: str) -> Any:
        if self._format.search(response) is None:
            return Verdict("wrong", 0.0, reason=f"the format does not hold: no match of {self.pattern!r}"[:200])
        if self.verifier is None:
            return True
        verdict = await ask(self.verifier, problem, response)
        return NotImplemented if verdict is None else verdict


@dataclass(frozen=True)
class LengthPenalty:
    """Takes some of the value of long responses; whether they are right stays as it is.

    The value loses nothing up to ``start`` characters, ``most`` from ``end`` characters on, linearly more in between,
    and never falls below 0: the shape of the soft overlong punishment of DAPO (arXiv 2503.14476, equation 13), which
    counts tokens. A verifier sees text, so these are characters of what it is given: with ``model.chat.reasoning``
    those that follow the reasoning.

    Raises:
        ValueError: there is no verifier, or ``end`` is not above ``start``.
    """

    verifier: VerifierPart = None
    """Who judges."""
    start: Size = 2000
    """Characters that cost nothing."""
    end: Count = 4000
    """Characters from which on all of ``most`` is taken."""
    most: Share = 1.0
    """What the value loses at most."""

    follows_parts = True
    golds = "all"

    def __post_init__(self) -> None:
        if self.verifier is None:
            raise ValueError("verifier: say who judges, such as verifier=numeric_answer")
        if self.end <= self.start:
            raise ValueError(f"end must be above start, {self.start} characters, not {self.end}")

    async def __call__(self, problem: Problem, response: str) -> Any:
        verdict = await ask(self.verifier, problem, response)
        if verdict is None:
            return NotImplemented
        excess = min(max(len(response) - self.start, 0) / (self.end - self.start), 1.0)
        if not verdict.value or not excess:
            return verdict
        told = f"{len(response):,} characters: {self.most * excess:.3g} less"
        reason = f"{told}; {verdict.reason}" if verdict.reason else told
        return replace(verdict, value=max(0.0, verdict.value - self.most * excess), reason=reason)
