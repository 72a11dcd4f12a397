"""A reward function written for TRL as a verifier.

The function is called as TRL's GRPOTrainer calls it (https://huggingface.co/docs/trl/grpo_trainer): with lists
``prompts`` and ``completions``, and a list for every column, here the gold answers under the name ``gold`` says and
every field of the problems' metadata; None stands where a problem has no such field. One that takes no ``**kwargs``
gets what it names. It returns a list of rewards, async or not. What a trainer adds besides (``completion_ids``,
``trainer_state`` ...) there is none of.

``None`` means to TRL: this sample is not mine. So it does here: inside ``any``, ``all`` or ``weighted`` the function is
then left out; alone, the response has no judge and is an ``error``, not ``wrong``.
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selftrain.awaiting import settled
from selftrain.judging import batched
from selftrain.nested import FunctionPart
from selftrain.ranges import Finite, Share
from selftrain.types import Problem, Verdict

ONLY_IN_TRAINERS = {"completion_ids", "prompt_ids", "trainer_state", "log_extra", "log_metric", "environments"}
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@batched
@dataclass(frozen=True)
class TRLReward:
    """Rewards from ``low`` to ``high`` become values from 0 to 1; one outside is an ``error``.

    Raises:
        ValueError: no function is given, it cannot be called as one, or ``high`` is not above ``low``.
    """

    function: FunctionPart = None
    """``package.module:name`` or ``path/to/file.py:name``."""
    gold: str = "solution"
    """Name of the column with the gold answers."""
    conversational: bool = False
    """Give prompts and completions as lists of messages, not as text; the functions of TRL itself read messages."""
    low: Finite = 0.0
    high: Finite = 1.0
    right_at: Share = 1.0
    """The value, from 0 to 1, from which on a response is right."""

    def __post_init__(self) -> None:
        if self.function is None:
            raise ValueError("function: name one, such as function=my_rewards.py:accuracy")
        if callable(self.function):  # In a config it is a name yet.
            self._check_function()
        if self.high <= self.low:
            raise ValueError(f"high must be above low, {self.low:g}, not {self.high:g}")

    def __call__(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Any]:
        rewards = settled(self.function(**self._arguments(problems, responses)))
        return [self._verdict(reward) for reward in rewards]

    def _arguments(self, problems: Sequence[Problem], responses: Sequence[str]) -> dict[str, Any]:
        names = dict.fromkeys(name for problem in problems for name in problem.metadata)
        given: dict[str, Any] = {name: [problem.metadata.get(name) for problem in problems] for name in names}
        given[self.gold] = [problem.answer for problem in problems]
        given["prompts"] = [self._turns("user", problem.question) for problem in problems]
        given["completions"] = [self._turns("assistant", response) for response in responses]
        taken = inspect.signature(self.function).parameters
        if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values()):
            return given
        return {name: value for name, value in given.items() if name in taken}

    def _check_function(self) -> None:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        taken = inspect.signature(self.function).parameters
        needed = {key for key, one in taken.items() if one.default is one.empty and one.kind not in VARIADIC}
        if only := sorted(needed & ONLY_IN_TRAINERS):
            raise ValueError(f"function: {name} asks for {' and '.join(only)}, which there is in a trainer alone")
        if "completions" not in taken and all(one.kind is not inspect.Parameter.VAR_KEYWORD for one in taken.values()):
            raise ValueError(
                f"function: {name} takes no completions; where it makes a reward function, "
                "call it in a file of yours, and name what it returns"
            )

    def _turns(self, role: str, text: str) -> str | list[dict[str, str]]:
        return [{"role": role, "content": text}] if self.conversational else text

    def _verdict(self, reward: Any) -> Any:
        if reward is None:
            return NotImplemented
        if not isinstance(reward, numbers.Real) and hasattr(reward, "item"):
            reward = reward.item()
        if not isinstance(reward, numbers.Real):
            return reward  # Whoever called will say what is wrong with it.
        value = (float(reward) - self.low) / (self.high - self.low)
        if 0.0 <= value <= 1.0:
            return value
        return Verdict("error", reason=f"the reward {float(reward):g} is not from {self.low:g} to {self.high:g}")
