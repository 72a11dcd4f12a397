"""What the policy writes, whoever rewards it: lengths, repetition, and how far it is from where it began."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from selftrain.intervals import mean
from selftrain.types import UNJUDGED, Status

Values = dict[str, float | None]
"""Monitors by name; None where there is nothing to measure."""

LOOPING = 0.5
"""Share of repeated n-grams above which a response counts as one that repeats itself."""
LARGEST = 700.0
"""Nats; exp of more overflows."""


class Response(NamedTuple):
    """One response of the policy."""

    tokens: int
    truncated: bool
    repeated: float | None
    """Share of its n-grams that occurred in it before; None where it is shorter than one."""
    right: bool | None
    """None where it could not be judged."""


class Distance(NamedTuple):
    """Sums over the tokens of one response, in nats."""

    tokens: int
    k1: float
    k3: float


def right(status: Status) -> bool | None:
    return None if status in UNJUDGED else status == "right"


def repeated(ids: Sequence[int], n: int) -> float | None:
    """Share of the n-grams of a response that stood in it before, overlapping ones too; None where it has none."""
    count = len(ids) - n + 1
    if count < 1:
        return None
    return 1.0 - len(set(zip(*(ids[place:] for place in range(n)), strict=False))) / count


def responses(found: Sequence[Response]) -> Values:
    """Means over responses."""
    shares = [one.repeated for one in found if one.repeated is not None]
    return {
        "right": average([one.right for one in found if one.right is not None]),
        "tokens": average([one.tokens for one in found]),
        "truncated": average([one.truncated for one in found]),
        "repetition": average(shares),
        "looping": average([share > LOOPING for share in shares]),
    }


def distance(differences: Iterable[float]) -> Distance:
    """How far a response is from what another model would write.

    With r = p / pi the ratio of that model to the policy that drew the token, ``k1 = -log r`` and ``k3 = r - 1 - log
    r``; the mean of both is KL(pi || p), that of k3 has less variance and no term below 0 (Schulman 2020,
    "Approximating KL Divergence").

    Args:
        differences: log pi - log p of each token the policy drew.
    """
    values = [float(value) for value in differences]
    k3 = math.fsum(math.expm1(min(-value, LARGEST)) + value for value in values)
    return Distance(len(values), math.fsum(values), k3)


def divergence(found: Sequence[Distance]) -> Values:
    """KL(policy || start) in nats: per token, and per response, which is that of whole responses."""
    count = sum(one.tokens for one in found)
    k1, k3 = math.fsum(one.k1 for one in found), math.fsum(one.k3 for one in found)
    return {
        "kl": k1 / count if count else None,
        "kl_k3": k3 / count if count else None,
        "kl_response": k1 / len(found) if found else None,
        "kl_response_k3": k3 / len(found) if found else None,
    }


def average(values: Sequence[float]) -> float | None:
    return mean(values) if values else None
