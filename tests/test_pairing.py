"""Right and wrong samples against each other: which pairs are made, in which order, and what examples weigh."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, product

import pytest
import torch

from selftrain.labelling.pairs import spread
from selftrain.pairing import as_pair, balanced, paired
from selftrain.schema import Selection
from selftrain.selection import Candidate, as_example
from selftrain.training.data import micro_batches, units
from selftrain.types import Example, Sample, Status

END = 1
SIZES = list(product(range(1, 7), repeat=2))


def candidate(problem: str, index: int, status: Status) -> Candidate:
    sample = Sample(f"{problem}{index}", problem, 1, "draft", index, (5, 6), (7, END), "x", "eos", "policy", "scripted")
    return Candidate(sample, status, float(status == "right"), "x", None)


def group(problem: str, statuses: str) -> list[Candidate]:
    """``r`` right, ``w`` wrong, ``u`` unparsed, by index."""
    named: dict[str, Status] = {"r": "right", "w": "wrong", "u": "unparsed"}
    return [candidate(problem, index, named[letter]) for index, letter in enumerate(statuses)]


def names(candidates: Sequence[Candidate], **options: object) -> list[tuple[str, str]]:
    selection = Selection("draft", kind="pairs", **options)  # type: ignore[arg-type]
    return [(right.sample.id, wrong.sample.id) for right, wrong in paired(candidates, selection)]


def test_one_to_one_is_by_index_and_leaves_the_rest() -> None:
    assert names(group("a", "wrrwrr")) == [("a1", "a0"), ("a2", "a3")]
    assert names(group("a", "ruw")) == [("a0", "a1")]


def test_one_that_was_cut_short_is_never_the_chosen_side() -> None:
    right, long, wrong = group("a", "rrw")
    long = long._replace(sample=replace(long.sample, finish_reason="length"))
    assert names([long, right, wrong], pairing="cartesian") == [("a0", "a1"), ("a0", "a2")]


def test_problems_with_one_kind_make_no_pair() -> None:
    every = [*group("a", "rrr"), *group("b", "wu"), *group("c", "wr")]
    for pairing in ("one_to_one", "cartesian"):
        assert names(every, pairing=pairing) == [("c1", "c0")]


@pytest.mark.parametrize("first, second", SIZES)
def test_spread_is_every_pair_once(first: int, second: int) -> None:
    pairs = list(spread(range(first), range(second)))
    assert sorted(pairs) == sorted(product(range(first), range(second)))


@pytest.mark.parametrize("first, second", SIZES)
def test_nobody_comes_again_before_all_of_their_side_have_come(first: int, second: int) -> None:
    """However few pairs are taken, a sample stands in one more than another of its side at most; taking them row by
    row would put the first right response into all of them."""
    for taken in range(first * second + 1):
        for side, size in enumerate((first, second)):
            counts = Counter(pair[side] for pair in islice(spread(range(first), range(second)), taken))
            assert max(counts.values(), default=0) - min(counts[i] for i in range(size)) <= 1
    rows = Counter(right for right, _ in islice(product(range(first), range(second)), second))
    assert rows == {0: second}


def test_a_bound_is_for_each_problem() -> None:
    every = [*group("a", "rrrwww"), *group("b", "rw")]
    found = names(every, pairing="cartesian", max_per_problem=4)
    assert Counter(right[0] for right, _ in found) == {"a": 4, "b": 1}
    assert len({right for right, _ in found}) == 4
    assert names(every, max_per_problem=1) == [("a0", "a3"), ("b0", "b1")]


def test_both_examples_of_a_pair_name_it_and_their_side() -> None:
    selection = Selection("draft", kind="pairs", weight=0.5)
    right, wrong = (as_example("own", selection, one, END) for one in group("a", "rw"))
    chosen, rejected = as_pair(right, wrong)
    assert (chosen.role, rejected.role, chosen.pair_id) == ("chosen", "rejected", rejected.pair_id)
    assert (chosen.label, rejected.label, chosen.weight) == (1.0, 0.0, 0.5)
    other, _ = as_pair(right, as_example("own", selection, group("a", "rww")[2], END))
    assert other.id != chosen.id and other.pair_id != chosen.pair_id


def labelled(problem: str, labels: Sequence[float], weight: float = 1.0) -> list[Example]:
    return [Example(f"{problem}{i}", problem, "own", (5,), (END,), weight, label=own) for i, own in enumerate(labels)]


def weights(examples: Sequence[Example], right: bool) -> float:
    return sum(one.weight for one in examples if ((one.label or 0.0) >= 0.5) == right)


def test_balance_by_problem() -> None:
    every = [*labelled("a", [1, 0, 0, 0]), *labelled("b", [1, 1, 0], 0.5), *labelled("c", [1, 1]), *labelled("d", [0])]
    found = {name: [one for one in balanced(every, True) if one.problem_id == name] for name in "abcd"}
    assert [one.weight for one in found["a"]] == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3])
    assert weights(found["b"], True) == pytest.approx(0.75) == weights(found["b"], False)
    assert not found["c"] and not found["d"]


def test_balance_over_all_keeps_every_example_and_the_sum() -> None:
    every = [*labelled("a", [1, 1, 1, 0.7]), *labelled("b", [0, 0.2], 0.25)]
    found = balanced(every, False)
    assert weights(found, True) == pytest.approx(weights(found, False)) == pytest.approx(2.25)
    assert [one.id for one in found] == [one.id for one in every]
    assert balanced(labelled("a", [1, 1]), False) == []


def side(pair: str, role: str | None, source: str = "own", response: int = 1) -> Example:
    return Example(f"{pair}{role}", "p", source, (5, 6), (7,) * response, pair_id=pair, role=role)  # type: ignore[arg-type]


def test_units_keep_pairs_together() -> None:
    alone = Example("alone", "p", "own", (5,), (END,))
    made = [side("x", "rejected"), alone, side("y", "chosen"), side("x", "chosen"), side("y", "rejected")]
    assert units(made) == [[3, 0], [1], [2, 4]]


def test_a_pair_that_comes_again_is_learnt_again() -> None:
    """As in an epoch of fewer pairs than a step has; each chosen one has a rejected one of its own."""
    twice = [side("x", "chosen"), side("x", "rejected"), side("x", "chosen"), side("x", "rejected")]
    assert units(twice) == [[0, 1], [2, 3]]
    assert units([twice[0], twice[2], twice[1], twice[3]]) == [[0, 2], [1, 3]]
    (batch,) = micro_batches(twice, batching="bucketed", max_tokens=100, pad=0)
    assert batch.terms.pairs is not None
    assert batch.terms.pairs.tolist() == [[0, 1], [2, 3]]


def test_pairs_of_two_selections_do_not_mix() -> None:
    made = [side("x", "chosen"), side("x", "chosen", "other"), side("x", "rejected", "other"), side("x", "rejected")]
    assert units(made) == [[0, 3], [1, 2]]


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="pair x is not made of one chosen and one rejected"):
        units([side("x", "chosen")])
    with pytest.raises(ValueError, match="neither chosen nor rejected"):
        units([side("x", "chosen"), side("x", None)])


@pytest.mark.parametrize("max_tokens", [1, 14, 1000])
def test_a_pass_holds_whole_pairs_whatever_their_lengths(max_tokens: int) -> None:
    """Its halves in order of length are not the chosen ones and the rejected ones."""
    made = [
        side(f"{i}", role, response=n)
        for i, ns in enumerate([(9, 1), (2, 7), (3, 3)])
        for role, n in zip(("chosen", "rejected"), ns, strict=True)
    ]
    seen = torch.zeros(len(made))
    for batch in micro_batches(made, batching="bucketed", max_tokens=max_tokens, pad=0):
        assert batch.terms.pairs is not None
        for chosen, rejected in batch.terms.pairs.tolist():
            own, other = made[batch.examples[chosen]], made[batch.examples[rejected]]
            assert (own.pair_id, own.role, other.role) == (other.pair_id, "chosen", "rejected")
        seen[batch.examples] += 1
    assert seen.tolist() == [1] * len(made)
