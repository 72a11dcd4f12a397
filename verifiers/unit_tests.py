"""A program in a response against tests, in a sandbox.

The program is the last fenced code block of the response (one marked as Python goes before others), or all of a
response that has none. ``problem.answer`` is one object:

- ``{"kind": "asserts", "setup": str, "tests": [str]}`` as MBPP has them: statements, each a test
- ``{"kind": "check", "entry_point": str, "test": str}`` as HumanEval: ``test`` defines ``check(candidate)``
- ``{"kind": "stdio", "cases": [{"input": str, "output": str}]}``: a whole run each; white space at the ends of lines
  and of the output does not count, an exit status other than 0 fails
- ``{"kind": "calls", "entry_point": str, "cases": [{"args": [...], "expected": ...}]}``, compared as JSON data: a bool
  is no number, a tuple counts as a list

``value`` is the fraction of tests passed (``check``: 0 or 1), and ``right`` is all of them. Tests run in an interpreter
of their own and call the program's functions over a pipe, which brings back exact built-in types and nothing else
(`selftrain.sandbox.codec`); a program that ends, hangs or breaks off fails the tests that were still to come. Functions
get copies of their arguments; what one that returns None, as those that work in place do, changes in them reaches the
tests.

A program that takes too long is ``wrong`` with the reason ``timeout``: being quick enough is a part of the task, and
the sandbox ended it in good order. Its clock stands still while it waits for a processor that others have, but not for
longer than ``seconds``: a busy machine must not make a right program wrong. The status ``timeout`` says that a
*verifier* overran, ``error`` that the sandbox failed or the tests cannot be used. To have the last word before its
worker is killed, a judgement takes no longer than `selftrain.deadline.time_left` allows, whatever ``seconds`` says.

What stands before ``</think>`` is no answer. Where ``problem.metadata`` has a ``prefix``, it is run before the program,
and a program that begins indented goes on from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from selftrain.deadline import time_left
from selftrain.sandbox.box import Limits, SandboxError
from selftrain.sandbox.levels import check_level, require, shared
from selftrain.types import Problem, Verdict
from selftrain.verifiers.code_forms import imports_of, number_of, program_of, whole
from selftrain.verifiers.code_runs import Outcome, Time, UnfitTests, run_module, run_script
from selftrain.verifiers.reasoning import after_thinking

LONGEST = 1 << 20
"""Characters of a program that is run."""
LAST_WORD_SECONDS = 0.5
PATIENCE = 2.0
"""How many times its seconds a program may take on a busy machine."""


@dataclass(frozen=True)
class UnitTests:
    """Right where the program of a response passes all tests."""

    seconds: float = 10.0
    """For all tests of a program together, its start included; what it waits for a processor that others have is not
    counted, up to as much again."""
    memory_mb: int = 1024
    """Address space of each of its processes, in MiB."""
    level: Literal["uid", "landlock", "namespaces"] = "uid"
    """The weakest isolation that is accepted; the strongest that the machine has is used (docs/code.md)."""

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.memory_mb < 1:
            raise ValueError(f"seconds and memory_mb must be above 0, not {self.seconds} and {self.memory_mb}")
        check_level(self.level)

    def prepare(self) -> None:
        """Raises SandboxError where the machine does not have the level."""
        require(self.level)

    def __call__(self, problem: Problem, response: str) -> Verdict:
        try:
            total = number_of(problem.answer)
        except ValueError as error:
            return Verdict("error", reason=str(error))
        program = program_of(after_thinking(response))
        if program is None:
            return Verdict("unparsed", 0.0, reason="no program")
        if len(program) > LONGEST:
            return Verdict("wrong", 0.0, reason=f"a program of more than {LONGEST} characters")
        if not total:
            return Verdict("wrong", 0.0, reason="no tests ran: there are none")
        try:
            outcome = self._run(problem, program)
        except (UnfitTests, SandboxError) as error:
            return Verdict("error", reason=str(error))
        share = min(1.0, outcome.passed / total)
        if outcome.passed == total and outcome.reason is None:
            return Verdict("right", 1.0)
        return Verdict("wrong", share, reason=f"{outcome.passed} of {total} tests passed; {outcome.reason}")

    def _run(self, problem: Problem, program: str) -> Outcome:
        longest = min(PATIENCE * self.seconds, time_left() - LAST_WORD_SECONDS)
        if longest <= 0:
            raise SandboxError("there is no time to run a program: raise reward.verify.seconds")
        allowed = Time(min(self.seconds, longest), longest)
        box, limits = shared(require(self.level)), Limits(memory_mb=self.memory_mb)
        prefix = problem.metadata.get("prefix")
        source = whole(program, prefix if isinstance(prefix, str) else imports_of(problem.answer.get("setup", "")))
        if problem.answer["kind"] == "stdio":
            return run_script(box, limits, source, problem.answer["cases"], allowed)
        return run_module(box, limits, source, problem.answer, allowed)
