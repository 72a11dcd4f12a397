"""Several verifiers as one: ``all``, ``any``, ``weighted``.

Each asks its members in the order they are written. A member whose problem it is not (it returns ``NotImplemented``)
is left out; where that is so of all, it is so of the whole.

A member that could not judge, ``error`` or ``timeout``, is never taken for wrong. The whole has that status (``error``
where both occur), unless the others decide whatever it would have said:

==========  ========================================  ==================  ============================================
kind        right                                     value               decided by one alone
==========  ========================================  ==================  ============================================
all         every member says right                   the smallest        not right and worth 0: the rest is not asked
any         a member says right                       the highest         right: the rest is not asked
weighted    the value is at least ``right_at``        the weighted mean   none: a member with a weight must judge
==========  ========================================  ==================  ============================================

What is not right is ``unparsed`` where no member found an answer to judge (of ``all``: where one found none and none
says wrong), else ``wrong``. The answer is that of the member that decided, or of the first that found one. The reason
says what each said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from selftrain import registry
from selftrain.asking import ask
from selftrain.judging import REASON_CHARACTERS
from selftrain.nested import VerifierParts
from selftrain.ranges import NotNegative, Share
from selftrain.types import Problem, Status, Verdict

ROUNDING = 1e-9
"""A mean this close below ``right_at`` reaches it."""

Said = dict[str, Verdict]
"""By name of the member."""


@dataclass(frozen=True)
class AllOf:
    """Right where every member says so."""

    verifiers: VerifierParts = field(default_factory=dict)
    """By a name of your choice: a verifier, or ``{kind: NAME, ...options}``."""

    follows_parts = True
    golds = "all"

    def __post_init__(self) -> None:
        _check_named(self.verifiers)

    async def __call__(self, problem: Problem, response: str) -> Any:
        said = await _said(self.verifiers, problem, response, _worthless)
        if not said:
            return NotImplemented
        *_, last = said.values()
        if _worthless(last):
            return Verdict(last.status, 0.0, last.answer or _answer(said), _reason(said), by=last.by)
        if (status := _failure(said)) is not None:
            return Verdict(status, None, _answer(said), _reason(said))
        found = {verdict.status for verdict in said.values()}
        worst: Status = "wrong" if "wrong" in found else "unparsed" if "unparsed" in found else "right"
        return Verdict(worst, min(map(_value, said.values())), _answer(said), _reason(said), by=_by(said))


@dataclass(frozen=True)
class AnyOf:
    """Right where a member says so."""

    verifiers: VerifierParts = field(default_factory=dict)
    """By a name of your choice: a verifier, or ``{kind: NAME, ...options}``."""

    follows_parts = True
    golds = "any"

    def __post_init__(self) -> None:
        _check_named(self.verifiers)

    async def __call__(self, problem: Problem, response: str) -> Any:
        said = await _said(self.verifiers, problem, response, _right)
        if not said:
            return NotImplemented
        *_, last = said.values()
        if _right(last):
            return Verdict("right", last.value, last.answer or _answer(said), _reason(said), by=last.by)
        if (status := _failure(said)) is not None:
            return Verdict(status, None, _answer(said), _reason(said))
        return Verdict(_not_right(said), max(map(_value, said.values())), _answer(said), _reason(said), by=_by(said))


@dataclass(frozen=True)
class Weighted:
    """The weighted mean of what the members give."""

    verifiers: VerifierParts = field(default_factory=dict)
    """By a name of your choice: a verifier, or ``{kind: NAME, ...options}``."""
    weights: dict[str, NotNegative] = field(default_factory=dict)
    """By the same names; 1 where none is given. A member of weight 0 is asked and shown, but counts for nothing."""
    right_at: Share = 1.0
    """The mean from which on the whole is right."""

    follows_parts = True
    golds = "all"

    def __post_init__(self) -> None:
        _check_named(self.verifiers)
        for name in self.weights:
            if name not in self.verifiers:
                raise ValueError(f"weights: no verifier '{name}' ({registry.nearest(name, self.verifiers)})")
        if not any(self.weights.get(name, 1.0) for name in self.verifiers):
            raise ValueError("weights: they are all 0; give at least one verifier a weight")

    async def __call__(self, problem: Problem, response: str) -> Any:
        said = await _said(self.verifiers, problem, response, _never)
        counted = {name: verdict for name, verdict in said.items() if self.weights.get(name, 1.0)}
        if not counted:
            return NotImplemented
        if (status := _failure(counted)) is not None:
            return Verdict(status, None, _answer(said), _reason(said))
        weights = {name: self.weights.get(name, 1.0) for name in counted}
        value = math.fsum(weights[name] * _value(counted[name]) for name in counted) / math.fsum(weights.values())
        status = "right" if value >= self.right_at - ROUNDING else _not_right(counted)
        return Verdict(status, min(value, 1.0), _answer(said), _reason(said), by=_by(counted))


async def _said(
    verifiers: Mapping[str, Any], problem: Problem, response: str, enough: Callable[[Verdict], bool]
) -> Said:
    """Verdicts of the members whose problem it is, up to the first that is enough."""
    said: Said = {}
    for name, verifier in verifiers.items():
        verdict = await ask(verifier, problem, response)
        if verdict is not None:
            said[name] = verdict
            if enough(verdict):
                break
    return said


def _right(verdict: Verdict) -> bool:
    return verdict.status == "right"


def _worthless(verdict: Verdict) -> bool:
    return verdict.status in ("wrong", "unparsed") and not verdict.value


def _never(verdict: Verdict) -> bool:
    return False


def _failure(said: Said) -> Status | None:
    found = {verdict.status for verdict in said.values()}
    return "error" if "error" in found else "timeout" if "timeout" in found else None


def _not_right(said: Said) -> Status:
    return "unparsed" if all(verdict.status == "unparsed" for verdict in said.values()) else "wrong"


def _value(verdict: Verdict) -> float:
    return verdict.value or 0.0


def _answer(said: Said) -> str | None:
    return next((verdict.answer for verdict in said.values() if verdict.answer is not None), None)


def _by(said: Said) -> str | None:
    """Where a part of one member decided, it had its share in the whole."""
    return next((verdict.by for verdict in said.values() if verdict.by is not None), None)


def _reason(said: Said) -> str:
    return "; ".join(map(_line, said, said.values()))[:REASON_CHARACTERS]


def _line(name: str, verdict: Verdict) -> str:
    credit = "" if verdict.value in (None, float(verdict.status == "right")) else f" {verdict.value:.3g}"
    return f"{name} {verdict.status}{credit}" + (f" ({verdict.reason})" if verdict.reason else "")


def _check_named(verifiers: Iterable[str]) -> None:
    if not list(verifiers):
        raise ValueError("verifiers: name at least one, such as verifiers.answer=numeric_answer")
