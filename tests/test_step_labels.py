"""Labels of steps: read off search trees, worked out from completions."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from selftrain.labelling.monte_carlo import (
    Labels,
    agreed,
    consensus,
    first_wrong,
    hard,
    of_nodes,
    progress,
    relative_progress,
    shares,
    soft,
    until_first_wrong,
)
from selftrain.labelling.trees import path, simple_targets, step_pairs, value_targets
from selftrain.types import TreeNode


def tree(*parents: int, **columns: Mapping[int, object]) -> list[TreeNode]:
    """A tree by the parents of its nodes; columns by name, their values by node id."""
    depths = [0]
    for parent in parents:
        depths.append(depths[parent] + 1)
    given = [{name: column[i] for name, column in columns.items() if i in column} for i in range(len(depths))]
    return [
        TreeNode("t", "p", i, parent, depths[i], (i,) if i else (), f"step {i}", **given[i])  # type: ignore[arg-type]
        for i, parent in enumerate((-1, *parents))
    ]


# root -> A (1) -> B (2, right), A -> C (3, wrong), root -> D (4, wrong)
GOLDEN = tree(0, 1, 1, 0)


def test_values_of_the_papers_example() -> None:
    assert value_targets(GOLDEN, {2: True, 3: False, 4: False}) == {1: 0.5, 2: 1.0, 3: 0.25, 4: 0.0}


def test_the_order_in_which_ends_are_named_changes_nothing() -> None:
    assert value_targets(GOLDEN, {4: False, 3: False, 2: True}) == {1: 0.5, 2: 1.0, 3: 0.25, 4: 0.0}


def test_a_tree_without_a_right_end_teaches_no_value() -> None:
    assert value_targets(GOLDEN, {2: False, 3: False}) == {}
    assert value_targets(GOLDEN, {}) == {}


def test_nodes_without_a_judged_end_below_are_dropped() -> None:
    assert value_targets(GOLDEN, {2: True}) == {1: 0.5, 2: 1.0}
    # 3 -> 5 -> 6 leads nowhere; 7 hangs below a wrong step that no end follows.
    assert value_targets(tree(0, 1, 1, 0, 3, 5, 4), {2: True}) == {1: 0.5, 2: 1.0}


def test_the_distance_is_that_of_the_nearest_right_end() -> None:
    """Root -> 1 -> 2 -> 3 (right) and root -> 1 -> 4 (right): m of 1 is 2, so V(1) = 1/2."""
    found = value_targets(tree(0, 1, 2, 1), {3: True, 4: True})
    assert found == {1: 0.5, 2: 0.75, 3: 1.0, 4: 1.0}


def test_a_wrong_branch_takes_over_the_distance_above_it_all_the_way() -> None:
    """Root -> 1 -> 2 (right); 1 -> 3 -> 4 (wrong), 3 -> 5 (wrong): m = 2 for 3, 4 and 5."""
    found = value_targets(tree(0, 1, 1, 3, 3), {2: True, 4: False, 5: False})
    assert found == {1: 0.5, 2: 1.0, 3: 0.25, 4: 0.0, 5: 0.0}  # 0.25 - 0.75 / 2 is below 0.


def test_simple_targets_count_along_the_one_solution() -> None:
    """Root -> 1 -> 2 -> 3 is the solution; 4 leaves it at the root, 5 at 1, 6 at 2; 7 is further off."""
    found = simple_targets(tree(0, 1, 2, 0, 1, 2, 5), 3)
    assert found == pytest.approx({1: 1 / 3, 2: 2 / 3, 3: 1.0, 4: 0.0, 5: 0.0, 6: 1 / 3})


def test_paths_begin_at_the_root() -> None:
    assert path(GOLDEN, 3) == [0, 1, 3]
    assert path(GOLDEN, 0) == [0]


def test_pairs_of_steps_are_the_two_best_against_the_two_worst() -> None:
    visits = dict.fromkeys(range(1, 6), 2)
    nodes = tree(0, 0, 0, 0, 0, visits=visits, value_sum={1: 0.2, 2: 1.8, 3: 1.0, 4: 1.6, 5: 0.4})
    assert step_pairs(nodes) == [(2, 1), (4, 5), (2, 5), (4, 1)]
    assert step_pairs(nodes, margin=0.65) == [(2, 1), (2, 5), (4, 1)]
    assert step_pairs(nodes, most=1) == [(2, 1)]


def test_no_step_is_chosen_and_rejected_and_equals_make_no_pair() -> None:
    three = tree(0, 0, 0, mc={1: 0.5, 2: 1.0, 3: 0.0})
    assert step_pairs(three, "mc") == [(2, 3)]
    assert step_pairs(tree(0, 0, mc={1: 0.5, 2: 0.5}), "mc") == []
    assert step_pairs(tree(0, 0, mc={1: 0.5}), "mc") == []
    assert step_pairs(tree(0, 0), "q") == []  # Never visited.
    assert step_pairs(tree(0, 1, 1, value={2: 0.1, 3: 0.4}), "value") == [(3, 2)]


def test_the_same_step_twice_is_no_pair() -> None:
    one, other = tree(0, 0, mc={1: 0.0, 2: 1.0})[1:]
    root = GOLDEN[0]
    same = TreeNode("t", "p", 2, 0, 1, one.ids, other.text, mc=1.0)
    assert step_pairs([root, one, same], "mc") == []


def test_shares_of_completions() -> None:
    assert shares([4, 0, 1], [8, 8, 0 + 4]) == [0.5, 0.0, 0.25]
    assert shares([0], [0]) == [None]
    with pytest.raises(ValueError, match="3 right of 2 completions"):
        shares([3], [2])


@pytest.mark.parametrize(
    "wrong_up_to, expected",
    [(0.0, [1.0, 1.0, 0.0, None]), (0.125, [1.0, 0.0, 0.0, None]), (0.5, [0.0, 0.0, 0.0, None])],
)
def test_hard_labels_are_wrong_up_to_a_threshold(wrong_up_to: float, expected: Labels) -> None:
    assert hard([0.5, 0.125, 0.0, None], wrong_up_to) == expected
    assert soft([0.5, 0.125, 0.0, None]) == [0.5, 0.125, 0.0, None]


def test_relative_progress_of_the_known_path() -> None:
    """MC .5 -> .5, .45, .2, 0: ratios 1, .9, .444, 0, so labels 1, 1, 0, 0 from 0.8 on."""
    assert relative_progress([0.5, 0.45, 0.2, 0.0], 0.5) == pytest.approx([1.0, 0.9, 4 / 9, 0.0])
    assert progress([0.5, 0.45, 0.2, 0.0], 0.5) == [1.0, 1.0, 0.0, 0.0]
    assert progress([0.5, 0.45, 0.2, 0.0], 0.5, at_least=0.4) == [1.0, 1.0, 1.0, 0.0]


def test_relative_progress_where_a_share_is_0_or_not_known() -> None:
    assert relative_progress([0.5, 0.0, 0.5], 0.5) == [1.0, 0.0, 0.0]  # 0 once is 0 from there on.
    assert relative_progress([0.5, 0.5], 0.0) == [None, None]  # Nothing solves the problem.
    assert relative_progress([0.5, None, 0.5, 0.25], 0.25) == [2.0, None, None, 0.5]
    assert relative_progress([0.5, 0.25], None) == [None, 0.5]
    assert progress([None, 0.5], 0.5) == [None, None]


def test_what_follows_the_first_wrong_step_is_not_known() -> None:
    assert until_first_wrong([1.0, 0.0, 1.0, 0.0]) == [1.0, 0.0, None, None]
    assert until_first_wrong([0.5, 0.25]) == [0.5, 0.25]
    assert (first_wrong([1.0, 0.0]), first_wrong([1.0, None]), first_wrong([])) == (1, -1, -1)


@pytest.mark.parametrize(
    "own, judge, expected",
    [
        ([1.0, 0.0, 0.0], [1.0, 0.0, 1.0], [1.0, 0.0, None]),
        ([1.0, 1.0], [1.0, 1.0], [1.0, 1.0]),
        ([1.0, 0.0], [0.0, 0.0], None),
        ([1.0, 1.0], [1.0, 0.0], None),
        ([None, 0.0], [1.0, 0.0], None),  # The one that is not known could be the first.
        ([1.0, 0.0, None], [1.0, 0.0, None], [1.0, 0.0, None]),
        ([1.0, None], [1.0, 1.0], None),
    ],
)
def test_consensus_keeps_what_both_find(own: Labels, judge: Labels, expected: Labels | None) -> None:
    assert consensus(own, judge) == expected


def test_consensus_is_about_one_solution() -> None:
    with pytest.raises(ValueError, match="2 and of 1 steps"):
        consensus([1.0, 1.0], [1.0])


def test_agreement_is_found_by_the_steps_of_responses() -> None:
    """Two responses behind a shared step; the judge reads an end token behind the second."""
    nodes = [
        TreeNode("t", "p", 0, -1, 0, (), ""),
        TreeNode("t", "p", 1, 0, 1, (1, 2), "a "),
        TreeNode("t", "p", 2, 1, 2, (3,), "b", state="end", sample_id="x"),
        TreeNode("t", "p", 3, 1, 2, (4, 5), "c", state="end", sample_id="y"),
    ]
    own = {1: 1.0, 2: 0.0, 3: 1.0}
    judge = {"x": ((2, 3), (1.0, 0.0)), "y": ((2, 5), (1.0, 1.0))}
    assert agreed(nodes, own, judge) == own
    assert agreed(nodes, own, judge | {"y": ((2, 5), (1.0, 0.0))}) == {1: 1.0, 2: 0.0}
    assert agreed(nodes, own, {"x": ((2, 3), (0.0, 0.0))}) == {}
    assert agreed(nodes, own, {"x": ((3,), (1.0,)), "y": ((1, 5), (1.0, 1.0))}) == {}  # Other steps.


def test_labels_of_the_nodes_completions_were_drawn_from() -> None:
    nodes = tree(0, 1, 1, mc={0: 0.5, 1: 0.25, 3: 0.0})
    assert of_nodes(nodes) == {1: 0.25, 3: 0.0}
    assert of_nodes(nodes, is_hard=True) == {1: 1.0, 3: 0.0}
