"""The task ``math_500`` of Hugging Face's lighteval (0.13.0, version 2 of the task).

The question alone, with the wish for a last line ``ANSWER: ...``; graded by ``pass@k`` of one answer. The gold answer
is read out of the worked solution as upstream writes it, with the same patterns as the response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from selftrain.protocols.extractive_match import ExtractiveMatch
from selftrain.protocols.lighteval import check_installed, solution, without_thinking
from selftrain.schema import Sampling
from selftrain.types import Problem

PROMPT = (
    "Solve the following problem. The final line of your response MUST be of the following format:\n"
    '"ANSWER: $ANSWER" (without quotes) where $ANSWER is the final answer. Think step by step before answering.\n\n'
)
MATCH = ExtractiveMatch(latex_gold=True, boxed=55, precision=6)


@dataclass(frozen=True)
class LightevalMATH500:
    """It has no options."""

    metrics: ClassVar[tuple[str, ...]] = ("pass@k:k=1&n=1",)

    def check(self) -> None:
        check_installed()

    def prompt(self, problem: Problem, shots: Sequence[Problem] = ()) -> str:
        solution(problem)
        return f"{PROMPT}{problem.question}"

    def sampling(self) -> Sampling:
        return Sampling(temperature=0.0, max_tokens=32768)

    def scores(self, problem: Problem, text: str) -> dict[str, float]:
        gold = f"ANSWER: {solution(problem)}".strip()
        return dict.fromkeys(self.metrics, MATCH(gold, without_thinking(text).strip()))
