"""From scores to what advantages are made of: one response's rewards, and what of them reaches its tokens."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from selftrain.advantages.min_form import PureMinForm
from selftrain.errors import RunError
from selftrain.rewards.base import Judged, Models
from selftrain.rewards.process import step_rewards
from selftrain.stages.advantages import Advantages, rollout_of, with_advantages
from selftrain.stages.examples import used
from selftrain.stages.score import scored
from selftrain.types import Example, Score, Verdict

NO_MODELS: Any = None
"""No source here asks any."""
WEIGHTS = {"verdict": 1.0, "prm": 0.5}


def scores(tokens: tuple[float, ...], ends: tuple[int, ...], outcome: float = 1.0) -> list[Score]:
    process = Score("s", "prm", valid=True, reward=sum(tokens), token_rewards=tokens, step_ends=ends)
    return [Score("s", "verdict", valid=True, reward=outcome), process]


def test_an_end_token_that_was_added_gives_its_reward_to_the_last_token_sampled() -> None:
    """Three sampled tokens, two steps, and the end token that scoring put behind a stop string."""
    found = rollout_of(3, scores((0.2, -0.4, 0.6, 0.8), (2, 4)), WEIGHTS)
    assert found.process.tolist() == pytest.approx([0.1, -0.2, 0.7])
    assert found.unweighted is not None and found.unweighted.tolist() == pytest.approx([0.2, -0.4, 1.4])
    assert found.step_ends == (2, 3)
    assert found.total == pytest.approx(1.0 + 0.5 * 1.2)


def test_a_step_of_the_added_token_alone_is_part_of_the_one_before() -> None:
    found = rollout_of(2, scores((0.2, -0.4, 0.6), (1, 2, 3)), WEIGHTS)
    assert found.step_ends == (1, 2)
    assert step_rewards(found.process, found.step_ends).tolist() == pytest.approx([0.1, 0.1])


def test_an_empty_response_that_a_stop_string_ended_has_no_step() -> None:
    empty = rollout_of(0, scores((0.3,), (1,)), WEIGHTS)
    assert (empty.length, empty.step_ends, empty.total) == (0, (), 1.0)
    other = rollout_of(2, scores((0.1, 0.1), (2,), 0.0), WEIGHTS)
    (found,) = PureMinForm().advantages([[empty, other, replace(empty, step_ends=(0,))]])
    assert [own.shape for own in found] == [(0,), (2,), (0,)]


@dataclass(frozen=True)
class Broken:
    """A source whose numbers are what they are told to be."""

    score: Score

    def scores(self, judged: Sequence[Judged], source: str, models: Models) -> Iterator[Score]:
        return (replace(self.score, sample_id=one.sample_id) for one in judged)


@pytest.mark.parametrize(
    "given",
    [
        Score("", "own", True, math.nan),
        Score("", "own", True, None),
        Score("", "own", True, 1.0, step_rewards=(0.1, math.inf)),
        Score("", "own", True, 1.0, token_rewards=(math.nan,)),
    ],
)
def test_a_source_that_gives_no_number_stops_the_run(given: Score) -> None:
    judged = [Judged("s1", Verdict("right", 1.0))]
    told = r"reward.sources.own gave sample s1 the reward (nan|None|inf); a source says valid=False"
    with pytest.raises(RunError, match=told):
        scored(judged, {"own": Broken(given)}, {"own": 1.0}, NO_MODELS)
    none, total = scored(judged, {"own": Broken(replace(given, valid=False))}, {"own": 1.0}, NO_MODELS)
    assert not none.valid and not total.valid


def test_samples_without_a_valid_reward_are_counted() -> None:
    examples = [Example(f"own/{name}", "p", "own", (2,), (3, 1), sample_id=name) for name in "abc"]
    made = Advantages({"b": np.array([0.5, 0.5])}, flat_groups=0, empty=0)
    reasons = Counter(kept=3, wrong=1)
    (kept,) = used(with_advantages(iter(examples), made), reasons, "no valid reward")
    assert kept.sample_id == "b" and kept.advantages == (0.5, 0.5)
    assert reasons == {"kept": 1, "wrong": 1, "no valid reward": 2}
