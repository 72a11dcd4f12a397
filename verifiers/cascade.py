"""Rules first; a judge model for the final answers that rules cannot decide.

``verifier: {kind: cascade, rules: numeric_answer, judge: {url: ..., model: ...}}``. Precise rules reject some right
answers, and models that judge are fooled by whoever is trained against them (Huang et al. 2025, arXiv:2505.22203:
empty characters, gibberish, special tokens). So the judge decides little and sees little: a final answer and the gold
answer, never the response around it.

What rules cannot decide is what they call ``unparsed`` while they name an ``answer``: they found the one final answer
and could not read it. Without an answer there is nothing to show, and ``wrong`` is a decision. This goes by the status
and a field because a reason is a text for people, and may be worded anew. A verifier that calls such answers ``wrong``
can say which with a method ``undecided(problem, verdict) -> bool``, which decides where there is one.

What the judge decided has ``by: judge`` in its verdict. Its acceptances are counted in the tables of a run, and
`selftrain audit` draws from them apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selftrain.asking import ask
from selftrain.nested import VerifierPart
from selftrain.types import Problem, Status, Verdict
from selftrain.verifiers.judge import Judge, Refused, shown

JUDGE = "judge"


@dataclass(frozen=True)
class Cascade:
    """A verifier by rules, and a judge model behind it."""

    rules: VerifierPart = None
    """Who is asked first."""
    judge: Judge = field(default_factory=Judge)

    follows_parts = True
    speed = tuple(f"judge.{name}" for name in Judge.speed)

    def __post_init__(self) -> None:
        if isinstance(self.judge, Mapping):
            object.__setattr__(self, "judge", Judge(**self.judge))
        if self.rules is None:
            raise ValueError("rules: say who is asked first, such as rules=math_answer")
        self.judge.check()

    async def __call__(self, problem: Problem, response: str) -> Any:
        verdict = await ask(self.rules, problem, response)
        if verdict is None:
            return NotImplemented
        if not self._undecided(problem, verdict):
            return verdict
        try:
            answer = shown(verdict.answer or "", self.judge.max_characters)
        except Refused as refused:
            return dataclasses.replace(verdict, reason=f"{verdict.reason or verdict.status}; not shown: {refused}")
        return self._asked(problem, verdict, answer)

    def sources(self) -> list[Path]:
        """Files beside the options that verdicts follow from."""
        return self.judge.sources()

    def _undecided(self, problem: Problem, verdict: Verdict) -> bool:
        if not verdict.answer or verdict.status not in ("unparsed", "wrong"):
            return False
        says = getattr(getattr(self.rules, "verifier", self.rules), "undecided", None)
        return bool(says(problem, verdict)) if says else verdict.status == "unparsed"

    def _asked(self, problem: Problem, verdict: Verdict, answer: str) -> Verdict:
        said = self.judge.equal(problem, answer)
        if said.equal is None:
            return Verdict("error", None, verdict.answer, said.reason, by=JUDGE)
        status: Status = "right" if said.equal else "wrong"
        return Verdict(status, float(said.equal), verdict.answer, said.reason, by=JUDGE)
