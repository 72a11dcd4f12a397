"""Values of worked solutions and of mistakes in them, labels of steps as targets of tokens."""

from __future__ import annotations

import math
from random import Random

import pytest

from selftrain.rewards import worked
from selftrain.rewards.steps import step_targets
from selftrain.rewards.worked import Worked, mistake_value, mistaken, right, worked_values

NAN = math.nan


def ended(targets: tuple[float, ...]) -> dict[int, float]:
    return {place: target for place, target in enumerate(targets) if not math.isnan(target)}


def test_values_of_the_paper() -> None:
    """root -> A -> B (right), A -> C (wrong), root -> D (wrong): V = 0.5, 1.0, 0.25 and 0."""
    assert worked_values(2) == (0.5, 1.0)
    assert mistake_value(1, 2) == 0.25 and mistake_value(0, 2) == 0.0
    assert worked_values(4) == (0.25, 0.5, 0.75, 1.0)
    # v = 0.5 with three of 4 steps' distance, 0.75 with two.
    assert [mistake_value(before, 4) for before in range(4)] == pytest.approx(
        [0, 0.25 - 0.75 / 4, 0.5 - 0.5 / 3, 0.625]
    )


A = worked.cut((5, 6, 7, 8, 9), ("2", "+", "2\n", "#", "4"), (3, 5))
B = Worked(((5, 6), (7,), (8, 4)), ("3+\n", "2\n", "#3"))


def test_a_solution_is_cut_into_steps_and_told_what_they_are_worth() -> None:
    assert A.ids == ((5, 6, 7), (8, 9)) and A.texts == ("2+2\n", "#4")
    assert right(A).ids == (5, 6, 7, 8, 9) and ended(right(A).targets) == {2: 0.5, 4: 1.0}
    assert ended(worked.last_only(right(A)).targets) == {4: 1.0}


def test_a_mistake_is_a_step_of_another_solution_and_the_last_thing_said() -> None:
    found = {made for seed in range(60) if (made := mistaken((A, B), 0, Random(seed))) is not None}
    by_ids = {made.ids: ended(made.targets) for made in found}
    # Other steps for a step, the other answer for the answer.
    assert by_ids == {(5, 6): {1: 0.0}, (7,): {0: 0.0}, (5, 6, 7, 8, 4): {2: 0.5, 4: 0.25}}
    assert mistaken((A, B), 0, Random(7)) == mistaken((A, B), 0, Random(7))


def test_there_is_no_mistake_where_every_step_reads_the_same() -> None:
    same = Worked(((1, 2), (3,)), (" 2+2\n ", "#4"))
    assert all(mistaken((A, same), 0, Random(seed)) is None for seed in range(20))
    assert all(mistaken((A,), 0, Random(seed)) is None for seed in range(20))


def test_labels_stand_where_a_reader_by_separators_finds_the_ends() -> None:
    """Steps of two lines, a line break that shares a token with what follows, nothing known of one step."""
    texts = ["a", "\nb", "b", "\n", "c", "\n\n", "d", ""]
    found = step_targets(texts, "\n", ["a\nbb", "c\n", "d"], [1.0, None, 0.0])
    assert ended(found) == {3: 1.0, 7: 0.0} and len(found) == 8


def test_tokens_that_do_not_keep_steps_apart_are_refused() -> None:
    with pytest.raises(ValueError, match=r"end 1 steps by '\\n', and it has 2"):
        step_targets(["a\nb"], "\n", ["a", "b"], [1.0, 0.0])
