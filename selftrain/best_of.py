"""Choosing among the samples of one problem by a reward: how often the choice is right.

All numbers are chances over draws of ``n`` out of the problem's ``N`` samples, so that one evaluation gives the whole
curve over n. A reward is a number, or None where a sample could not be scored.

Sources: best-of-n is Stiennon et al. 2020, "Learning to summarize from human feedback", its unbiased estimate is from
Hilton and Gao 2022, "Measuring Goodhart's law". Choosing the answer with the largest sum of rewards is Li et al. 2023,
"Making Language Models Better Reasoners with Step-Aware Verifier", and the weighted best-of-n of Yuan et al. 2024,
"Free Process Rewards without Process Labels".
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from typing import Literal

from selftrain.intervals import mean

Weighting = Literal["exp", "sigmoid", "sum"]
Rewards = Sequence[float | None]


def curve_sizes(n: int) -> list[int]:
    """1, 2, 4 ... up to ``n``, and ``n`` itself."""
    return sorted({n, *(2**power for power in range(n.bit_length()) if 2**power <= n)})


def best_of_n(rewards: Rewards, right: Sequence[bool], n: int) -> float:
    """Chance that the sample with the largest reward among n is right.

    The mean over all subsets of n samples, in closed form: with ``b`` samples below a reward and ``t`` that share it,
    ``[C(b + t, n) - C(b, n)] / C(N, n)`` of the subsets have it as their largest. Ties are broken at random, so their
    credit is the share of right ones among the tied: equal for every one of these subsets on average. A sample without
    a reward is chosen only where the subset has no other. Only the order of the rewards matters.

    Raises:
        ValueError: n is no number of samples, lengths differ, or a reward is not finite.
    """
    _check(rewards, right, n)
    order = sorted(range(len(rewards)), key=lambda i: _rank(rewards[i]))
    below, won = 0, 0.0
    for _, group in groupby(order, key=lambda i: _rank(rewards[i])):
        tied = list(group)
        subsets = math.comb(below + len(tied), n) - math.comb(below, n)
        won += subsets / math.comb(len(rewards), n) * mean([right[i] for i in tied])
        below += len(tied)
    return won


def weighted_best_of_n(
    rewards: Rewards, answers: Sequence[str | None], right: Sequence[bool], n: int, weighting: Weighting = "exp"
) -> float:
    """Chance that the answer with the largest sum of `weights` among n samples is right.

    The first n samples vote, then the next n: the mean over the ``N // n`` disjoint groups by index, as maj@n. Samples
    without an answer or without a reward do not vote; where no sample of a group that has an answer has a reward, each
    of them counts the same. Ties between answers are broken at random. Equal rewards make it maj@n.

    Raises:
        ValueError: as `best_of_n`.
    """
    _check(rewards, right, n)
    starts = range(0, len(answers) - n + 1, n)
    groups = [slice(start, start + n) for start in starts]
    return mean([_vote(rewards[own], answers[own], right[own], weighting) for own in groups])


def weights(rewards: Sequence[float], weighting: Weighting) -> list[float]:
    """What rewards count for in a vote. A weight below 0 would make a second sample of an answer a reason against it.

    ``exp``: ``exp(r - max r)``, always positive. A constant added to all rewards of a problem changes nothing, which is
    what is known of rewards that were trained within problems: log-ratios are shifted by how unlikely the reference
    finds any answer. Of rewards that are log-odds it is the odds. Large rewards come to best-of-n, small ones to
    maj@n. ``sigmoid``: the chance to be right that a log-odds reward states, for rewards that are calibrated.
    ``sum``: the rewards as they are, as published; for those that are not below 0.
    """
    if weighting == "sum":
        return list(rewards)
    if weighting == "sigmoid":
        return [math.exp(min(r, 0.0)) / (1 + math.exp(-abs(r))) for r in rewards]
    highest = max(rewards, default=0.0)
    return [math.exp(r - highest) for r in rewards]


def _vote(rewards: Rewards, answers: Sequence[str | None], right: Sequence[bool], weighting: Weighting) -> float:
    voters = [i for i, answer in enumerate(answers) if answer is not None]
    scored = [(i, reward) for i in voters if (reward := rewards[i]) is not None]
    counts = weights([reward for _, reward in scored], weighting) if scored else [1.0] * len(voters)
    votes: defaultdict[str | None, list[float]] = defaultdict(list)
    credit: defaultdict[str | None, list[bool]] = defaultdict(list)
    for i, weight in zip([i for i, _ in scored] or voters, counts, strict=True):
        votes[answers[i]].append(weight)
        credit[answers[i]].append(right[i])
    sums = {answer: math.fsum(own) for answer, own in votes.items()}  # Whatever the order: equal votes are a tie.
    most = max(sums.values(), default=0.0)
    return mean([mean(credit[answer]) for answer, total in sums.items() if total == most])


def _rank(reward: float | None) -> float:
    return -math.inf if reward is None else reward


def _check(rewards: Rewards, right: Sequence[bool], n: int) -> None:
    if len(rewards) != len(right):
        raise ValueError(f"{len(rewards)} rewards for {len(right)} samples")
    if not 1 <= n <= len(rewards):
        raise ValueError(f"best of {n} needs at least {max(n, 1)} samples per problem, there are {len(rewards)}")
    if wrong := [reward for reward in rewards if reward is not None and not math.isfinite(reward)]:
        raise ValueError(f"a reward is {wrong[0]}; a sample that could not be scored has None")
