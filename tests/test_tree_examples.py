"""What learners are fitted to of a search tree: where targets stand, end tokens, pairs of steps."""

from __future__ import annotations

import math

from selftrain.labelling.trees import step_pairs
from selftrain.stages.tree_examples import EndToken, pair_examples, value_examples
from selftrain.types import Example, TreeNode

EOS = 1
END = EndToken(EOS, frozenset({0, EOS}))


def node(
    place: int, parent: int, ids: tuple[int, ...], state: str = "open", q: float = 0.0, **more: object
) -> TreeNode:
    depth = 0 if parent < 0 else parent + 1
    told = {"state": state, "visits": 2, "value_sum": 2 * q, "sample_id": f"s{place}" if state == "end" else None}
    return TreeNode("t", "p", place, parent, depth, ids, "x", **{**told, **more})  # type: ignore[arg-type]


def grown(*last: TreeNode) -> list[TreeNode]:
    """A step, and what follows it."""
    return [node(0, -1, ()), node(1, 0, (5, 6)), *last]


def told(example: Example) -> dict[int, float]:
    return {place: target for place, target in enumerate(example.targets or ()) if not math.isnan(target)}


def test_targets_stand_where_steps_end_and_a_shared_step_is_told_once() -> None:
    tree = grown(node(2, 1, (7, EOS), "end"), node(3, 1, (8,), "end"), node(4, 1, (9, 9)))
    made = list(value_examples(tree, {1: 0.5, 2: 1.0, 3: 0.25}, END))
    assert [one.response_ids for one in made] == [(5, 6, 7, EOS), (5, 6, 8, EOS)]
    assert [told(one) for one in made] == [{1: 0.5, 3: 1.0}, {2: 0.25, 3: 0.25}]
    assert [one.eos_added for one in made] == [False, True] and made[0].sample_id == "s2"


def test_an_end_without_tokens_is_told_at_its_end_token() -> None:
    """A stop id alone, or a stop string right behind a step."""
    tree = grown(node(2, 1, (), "end"))
    (one,) = value_examples(tree, {1: 0.5, 2: 1.0}, END)
    assert one.response_ids == (5, 6, EOS) and told(one) == {1: 0.5, 2: 1.0} and one.eos_added


def test_an_end_of_which_nothing_is_known_gets_no_end_token() -> None:
    (one,) = value_examples(grown(node(2, 1, (7,), "end")), {1: 0.5}, END)
    assert one.response_ids == (5, 6) and told(one) == {1: 0.5} and not one.eos_added


def test_sides_of_a_pair_for_a_value_head_and_for_a_policy() -> None:
    tree = grown(node(2, 1, (7, 7), q=0.2), node(3, 1, (8,), "end", q=0.9))
    pairs = step_pairs(tree)
    assert pairs == [(3, 2)]
    for is_valued in (True, False):
        chosen, rejected = pair_examples(tree, pairs[0], END, is_valued)
        assert chosen.pair_id == rejected.pair_id and (chosen.role, rejected.role) == ("chosen", "rejected")
        assert chosen.prompt_ids == rejected.prompt_ids == (5, 6)
        assert (chosen.response_ids, rejected.response_ids) == ((8, EOS), (7, 7))
        assert (chosen.eos_added, rejected.eos_added) == (True, False)
        assert (told(chosen), told(rejected)) == (({1: 1.0}, {1: 0.0}) if is_valued else ({}, {}))


def test_a_side_without_tokens_is_its_end_token() -> None:
    tree = grown(node(2, 1, (7,), q=0.2), node(3, 1, (), "end", q=0.9))
    chosen, _ = pair_examples(tree, step_pairs(tree)[0], END, True)
    assert chosen.response_ids == (EOS,) and told(chosen) == {0: 1.0}


def test_steps_that_a_limit_cut_short_stand_in_no_pair() -> None:
    whole, cut = node(2, 1, (7,), q=0.9), node(3, 1, (8, 8), "closed", q=0.1, reason="length")
    assert step_pairs(grown(whole, cut)) == []
    assert step_pairs(grown(whole, node(3, 1, (8, 8), "closed", q=0.1, reason="depth"))) == [(2, 3)]


def test_the_first_pairs_are_of_many_places() -> None:
    """Four children of the root and two of one of them: the second place comes before the second pair of the first."""
    tree = [node(0, -1, ()), *(node(place, 0, (place + 4,), q=place / 10) for place in (1, 2, 3, 4))]
    tree += [node(5, 4, (9,), q=0.5), node(6, 4, (10,), q=0.1)]
    assert step_pairs(tree) == [(4, 1), (5, 6), (3, 2), (4, 2), (3, 1)]
