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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from selftrain import registry
from selftrain.judging import Judgement, checked
from selftrain.types import Problem, Verdict
from selftrain.verifiers.judge import Judge, Refused, shown

JUDGE = "judge"


@dataclass(frozen=True)
class Cascade:
    """A verifier by rules, and a judge model behind it."""

    rules: Any = None
    """A verifier: its name, or a mapping of ``kind`` and options."""
    judge: Judge = field(default_factory=Judge)

    speed = tuple(f"judge.{name}" for name in Judge.speed)

    def __post_init__(self) -> None:
        if isinstance(self.judge, Mapping):
            object.__setattr__(self, "judge", Judge(**self.judge))
        if self.rules is None:
            near = registry.nearest("", registry.TABLES["verifier"])
            raise ValueError(f"rules: name the verifier that is asked first ({near})")
        self.judge.check()
        if not callable(self._rules):
            raise ValueError(f"rules: '{self._kind}' cannot be called; it is no verifier")

    def __call__(self, problem: Problem, response: str) -> Verdict:
        verdict = self._judged_by_rules(problem, response)
        if not self._undecided(problem, verdict):
            return verdict
        try:
            answer = shown(verdict.answer or "", self.judge.max_characters)
        except Refused as refused:
            return dataclasses.replace(verdict, reason=f"{verdict.reason or verdict.status}; not shown: {refused}")
        return self._asked(problem, verdict, answer)

    def sources(self) -> list[Path]:
        """Files beside the options that verdicts follow from."""
        own = Path(self._kind.rpartition(":")[0])
        return [*([own] if own.suffix == ".py" else []), *self.judge.sources()]

    def _judged_by_rules(self, problem: Problem, response: str) -> Verdict:
        judgement: Judgement = checked(self._rules(problem, response), 1.0)
        status, value, answer, reason, by = judgement
        return Verdict(status, value, answer, reason, by=by)

    def _undecided(self, problem: Problem, verdict: Verdict) -> bool:
        if not verdict.answer or verdict.status not in ("unparsed", "wrong"):
            return False
        says = getattr(self._rules, "undecided", None)
        return bool(says(problem, verdict)) if says else verdict.status == "unparsed"

    def _asked(self, problem: Problem, verdict: Verdict, answer: str) -> Verdict:
        said = self.judge.equal(problem, answer)
        if said.equal is None:
            return Verdict("error", None, verdict.answer, said.reason, by=JUDGE)
        status = "right" if said.equal else "wrong"
        return Verdict(status, float(said.equal), verdict.answer, said.reason, by=JUDGE)  # type: ignore[arg-type]

    @property
    def _kind(self) -> str:
        return str(self.rules if isinstance(self.rules, str) else self.rules.get("kind"))

    @cached_property
    def _rules(self) -> Callable[[Problem, str], Verdict | float | bool]:
        options = {} if isinstance(self.rules, str) else {k: v for k, v in self.rules.items() if k != "kind"}
        try:
            return registry.build("verifier", self._kind, options)  # type: ignore[no-any-return]
        except TypeError as error:
            raise ValueError(f"rules: {error}") from error
