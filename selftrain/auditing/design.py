"""Which responses a person is asked to judge: a stratified draw with known inclusion probabilities.

Responses are sorted into strata by task, verdict, and whether something about them makes a mistake of the verifier
likelier. Each stratum gets its part of the draw by Neyman's rule, k_h in proportion to N_h sigma_h (Cochran 1977, 5.5),
with sigma_h from a guess of how often verdicts of its kind are wrong: a bad guess costs precision, never truth.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selftrain.types import UNJUDGED, Status

GUESSED = {
    "right": 0.04,
    "right, odd": 0.15,
    "right by the judge": 0.2,
    "wrong": 0.06,
    "wrong, odd": 0.3,
    "unparsed": 0.15,
    "unparsed, odd": 0.4,
    "not judged": 0.5,
}
"""Share of verdicts of a kind taken to be mistaken before anything is known."""
ACCEPTED = tuple(kind for kind in GUESSED if kind.startswith("right"))
FEWEST = 4
"""Drawn of every stratum, or all it holds."""
ODD_FROM = 100
"""Judgements per task from which odd responses are drawn apart: split among many small strata, fewer tell less."""
SMALL = 12
"""An odd stratum of fewer responses is no stratum of its own."""
TAIL = 400
"""Characters of a response in which its answer is looked for."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A response of the population."""

    id: str
    problem_id: str
    task: str
    status: Status
    answer: str | None
    reason: str | None
    text: str
    gold: str
    finish_reason: str
    by_judge: bool = False
    """Whether a judge model accepted it, where no rule could decide."""
    agreed: bool | None = None
    """Whether its answer is the most frequent one of its problem; None with nothing to compare."""


def odd(one: Judged) -> bool:
    """Whether a mistake of the verifier is likelier here than elsewhere.

    Accepted, and the gold answer does not stand in the end of the response, or the response was cut off, or other
    responses to the problem agree on another answer. Not accepted, and the gold answer does stand there, or others
    agree with it, or the verifier saw an answer and gave a reason not to take it.
    """
    gold = re.escape(one.gold.strip().casefold())
    stands = bool(gold) and re.search(rf"(?<![\w.]){gold}(?!\w)", one.text[-TAIL:].casefold()) is not None
    if one.status == "right":
        return not stands or one.finish_reason in ("length", "context") or one.agreed is False
    return stands or one.agreed is True or (one.answer is not None and one.reason is not None)


def strata(population: Sequence[Judged], *, apart: bool = True) -> dict[str, list[Judged]]:
    """Responses by stratum, ``task: kind``.

    Args:
        apart: odd ones have strata of their own, where they are not too few; else all stand with their status.
    """
    kinds = [(one, _plain(one)) for one in population]
    odd_kinds = {id(one): f"{kind}, odd" for one, kind in kinds if apart and f"{kind}, odd" in GUESSED and odd(one)}
    counts = Counter((one.task, odd_kinds[id(one)]) for one in population if id(one) in odd_kinds)
    found: dict[str, list[Judged]] = {}
    for one, kind in kinds:
        named = odd_kinds.get(id(one), kind)
        found.setdefault(f"{one.task}: {named if counts[one.task, named] >= SMALL else kind}", []).append(one)
    return dict(sorted(found.items()))


def kind_of(stratum: str) -> str:
    return stratum.rpartition(": ")[2]


def _plain(one: Judged) -> str:
    if one.status in UNJUDGED:
        return "not judged"
    return "right by the judge" if one.status == "right" and one.by_judge else one.status


def allocate(sizes: Mapping[str, int], k: int) -> dict[str, int]:
    """How many to draw of each stratum: in proportion to ``N_h sigma_h``, `FEWEST` at least, at most all there are.

    Raises:
        ValueError: ``k`` is too small for `FEWEST` of each.
    """
    fewest = {name: min(size, FEWEST) for name, size in sizes.items()}
    if k < sum(fewest.values()):
        raise ValueError(f"{k} are too few for {len(sizes)} strata: draw {sum(fewest.values())} at least")
    claims = {name: size * math.sqrt((guess := GUESSED[kind_of(name)]) * (1 - guess)) for name, size in sizes.items()}

    def drawn(scale: float) -> dict[str, int]:
        return {name: min(size, max(fewest[name], int(scale * claims[name]))) for name, size in sizes.items()}

    low, high = 0.0, max(sizes.values()) / min(claims.values()) + 1
    for _ in range(50):  # The largest scale whose sum is within k.
        middle = (low + high) / 2
        low, high = (middle, high) if sum(drawn(middle).values()) <= k else (low, middle)
    found = drawn(low)
    left = min(k, sum(sizes.values())) - sum(found.values())
    for name in sorted(sizes, key=lambda name: (found[name] + 1) / claims[name]):
        if left and found[name] < sizes[name]:
            found[name], left = found[name] + 1, left - 1
    return found


def draw(members: Mapping[str, Sequence[Judged]], wanted: Mapping[str, int], seed: int) -> list[tuple[str, Judged]]:
    """Stratum and response, in random order: the first m judged are then a random part of each stratum, too."""
    source = random.Random(seed)
    chosen = [
        (name, one)
        for name, group in members.items()
        for one in source.sample(sorted(group, key=lambda one: one.id), wanted[name])
    ]
    source.shuffle(chosen)
    return chosen
