"""Right and wrong samples against each other: in pairs, or weighed so that neither side counts for more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from selftrain.labelling.pairs import spread
from selftrain.schema import Selection
from selftrain.selection import Candidate, cut_short
from selftrain.types import Example

RIGHT = 0.5
"""The label from which on an example counts as right."""


def paired(candidates: Iterable[Candidate], selection: Selection) -> Iterator[tuple[Candidate, Candidate]]:
    """``(right, wrong)`` samples of the same problem; one that was cut short is never the right one.

    ``one_to_one``: the first with the first and so on (Yuan et al. 2024, section 4.1). ``cartesian``: each with each,
    as the code beside that paper does (Hosseini et al. 2024, "V-STaR", as well); up to ``max_per_problem``.
    """
    sides: defaultdict[str, tuple[list[Candidate], list[Candidate]]] = defaultdict(lambda: ([], []))
    for candidate in candidates:
        wrong_side = candidate.status != "right" or cut_short(candidate)
        sides[candidate.sample.problem_id][wrong_side].append(candidate)
    for right, wrong in sides.values():
        pairs = zip(right, wrong, strict=False) if selection.pairing == "one_to_one" else spread(right, wrong)
        yield from islice(pairs, selection.max_per_problem)


def as_pair(right: Example, wrong: Example) -> tuple[Example, Example]:
    """The two examples of a pair; a sample may stand in several."""
    pair = f"{right.sample_id}>{wrong.sample_id}"
    return (
        replace(right, id=f"{right.source}/{pair}/chosen", pair_id=pair, role="chosen"),
        replace(wrong, id=f"{wrong.source}/{pair}/rejected", pair_id=pair, role="rejected"),
    )


def balanced(examples: Sequence[Example], per_problem: bool) -> list[Example]:
    """Weighed so that right and wrong ones count alike, in every problem or over all, and their weights add up to what
    they did before. Where there is one kind alone, it has nothing to be weighed against and is left out.
    """
    sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for one in examples:
        sums[one.problem_id if per_problem else ""][_right(one)] += one.weight
    weighed = []
    for one in examples:
        both = sums[one.problem_id if per_problem else ""]
        if all(both):
            weighed.append(replace(one, weight=one.weight * sum(both) / 2 / both[_right(one)]))
    return weighed


def _right(example: Example) -> bool:
    return (example.label or 0.0) >= RIGHT
