"""What a reward source says of responses, against what the verifier says of them."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from selftrain.intervals import mean_interval
from selftrain.monitors.responses import Values, average


class Scored(NamedTuple):
    """One response with a number from a source."""

    problem_id: str
    right: bool | None
    """None where it could not be judged."""
    reward: float
    steps: tuple[float, ...] | None = None
    """Rewards of its steps; None where the source knows no steps."""
    tokens: int = 0
    """Its length, where there are steps."""

    @property
    def process_return(self) -> float:
        """The sum of its step rewards, or the reward where there are none."""
        return math.fsum(self.steps) if self.steps else self.reward


def scores(found: Sequence[Scored]) -> Values:
    """All monitors of one source in one iteration."""
    judged = [one for one in found if one.right is not None]
    rewards = {flag: [one.reward for one in judged if one.right is flag] for flag in (True, False)}
    mixed = by_problem(judged)
    return {
        "scored": len(found),
        "mixed_problems": len(mixed),
        "reward": average([one.reward for one in found]),
        **estimate("pair_accuracy", [auc(right, wrong) for right, wrong in mixed]),
        "auc": auc(rewards[True], rewards[False]) if all(rewards.values()) else None,
        "correlation": correlation([one.process_return for one in judged], [bool(one.right) for one in judged]),
        **estimate("best_right", [best_right(right, wrong) for right, wrong in mixed]),
        "best_right_chance": average([len(right) / (len(right) + len(wrong)) for right, wrong in mixed]),
        **last_least([one.steps for one in found if one.steps]),
        **lengths(found),
    }


def by_problem(judged: Sequence[Scored]) -> list[tuple[list[float], list[float]]]:
    """Rewards of the right and of the wrong responses to each problem that has both."""
    groups: dict[str, tuple[list[float], list[float]]] = {}
    for one in judged:
        groups.setdefault(one.problem_id, ([], []))[not one.right].append(one.reward)
    return [group for group in groups.values() if all(group)]


def auc(right: Sequence[float], wrong: Sequence[float]) -> float:
    """The chance that a right response has a larger reward than a wrong one, ties counted as one half (the area under
    the ROC curve; Mann and Whitney's U over the number of pairs)."""
    order = sorted(wrong)
    wins = sum(bisect_left(order, reward) + bisect_right(order, reward) for reward in right)
    return wins / 2 / (len(right) * len(wrong))


def best_right(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Whether the response with the largest reward is right; the share of right ones among equals."""
    most = max(*right, *wrong)
    tied = right.count(most), wrong.count(most)
    return tied[0] / sum(tied)


def correlation(returns: Sequence[float], rights: Sequence[bool]) -> float | None:
    """Pearson's, of the process return with the verdict as 0 or 1; None where one of them is always the same."""
    if len(set(rights)) < 2 or len(set(returns)) < 2:
        return None
    centre, share = math.fsum(returns) / len(returns), sum(rights) / len(rights)
    # Scaled first: the square of a tiny difference is 0.
    scale = max(abs(value - centre) for value in returns)
    own = [(value - centre) / scale for value in returns]
    together = math.fsum(value * (flag - share) for value, flag in zip(own, rights, strict=True))
    spread = math.fsum(value * value for value in own) * len(rights) * share * (1 - share)
    return together / math.sqrt(spread)


def last_least(found: Sequence[tuple[float, ...]]) -> Values:
    """Share of responses of two and more steps whose last step has the least reward, the share that chance would give
    (1 / steps), and what it is above that. Of equal steps each counts for its share."""
    several = [steps for steps in found if len(steps) > 1]
    shares = [(steps[-1] == min(steps)) / steps.count(min(steps)) for steps in several]
    share, chance = average(shares), average([1 / len(steps) for steps in several])
    excess = None if share is None or chance is None else share - chance
    return {"last_least": share, "last_least_chance": chance, "last_least_excess": excess}


def lengths(found: Sequence[Scored]) -> Values:
    """Steps of a response, and tokens of a step over all of them."""
    stepped = [one for one in found if one.steps]
    steps = sum(len(one.steps or ()) for one in stepped)
    return {
        "steps": steps / len(stepped) if stepped else None,
        "tokens_per_step": sum(one.tokens for one in stepped) / steps if steps else None,
    }


def estimate(name: str, values: Sequence[float]) -> Values:
    """The mean of one value per problem with its 95 % interval."""
    if not values:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    return dict(zip((name, f"{name}_low", f"{name}_high"), mean_interval(values), strict=True))
