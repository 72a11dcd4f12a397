"""The task ``gsm8k`` of Hugging Face's lighteval (0.13.0, version 0 of the task).

The question alone, or after worked examples drawn from train for each question; graded by ``extractive_match``. The
gold answer is read out of the worked solution as upstream writes it, with the same patterns as the response.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from selftrain.protocols.base import Splits, cut
from selftrain.protocols.extractive_match import ExtractiveMatch
from selftrain.protocols.lighteval import check_installed, solution, without_thinking
from selftrain.schema import Sampling
from selftrain.types import Problem

STOP = ("Question:",)
SEED = 42
MATCH = ExtractiveMatch(latex_gold=False, boxed=0, precision=5)


@dataclass(frozen=True)
class LightevalGSM8K:
    """Options of the protocol."""

    num_fewshots: int = 0
    """Worked examples before the question: the number behind ``|`` in the name of its task."""

    metrics: ClassVar[tuple[str, ...]] = ("extractive_match",)

    def __post_init__(self) -> None:
        if self.num_fewshots < 0:
            raise ValueError(f"num_fewshots must not be negative, got {self.num_fewshots}")

    def check(self) -> None:
        check_installed()

    def shots(self, splits: Splits, split: str) -> Mapping[str, Sequence[Problem]]:
        """Examples by id: one stream of random numbers orders the questions, then draws for each in that order."""
        if not self.num_fewshots:
            return {}
        pool = [problem for name in ("train", "val") if name != split for problem in splits.get(name, ())]
        pool.sort(key=row)
        if self.num_fewshots > len(pool):
            raise ValueError(f"num_fewshots is {self.num_fewshots}, but train has {len(pool)} problems")
        stream, order = random.Random(SEED), list(splits[split])
        stream.shuffle(order)
        return {problem.id: stream.sample(pool, self.num_fewshots) for problem in order}

    def prompt(self, problem: Problem, shots: Sequence[Problem] = ()) -> str:
        solution(problem)
        worked = [f"{question(shot)} {solution(shot).strip()}" for shot in shots]
        return "\n\n".join([*worked, question(problem)])

    def sampling(self) -> Sampling:
        return Sampling(temperature=0.0, max_tokens=256, stop=STOP)

    def scores(self, problem: Problem, text: str) -> dict[str, float]:
        text = without_thinking(cut(text, STOP))
        return {"extractive_match": MATCH(f" {solution(problem)}", text)}


def question(problem: Problem) -> str:
    return f"Question: {problem.question}\nAnswer:"


def row(problem: Problem) -> int:
    """Place in the upstream file; validation was carved out of train.

    Raises:
        ValueError: the id does not tell.
    """
    number = problem.id.rpartition("/")[2]
    if not number.isdecimal():
        raise ValueError(
            f"problem {problem.id}: num_fewshots draws worked examples as lighteval does, in the order of the rows of "
            "train, so ids must end in a row number; give every record one (for files of your own a field 'id', or "
            "fields.id), or set num_fewshots to 0"
        )
    return int(number)
