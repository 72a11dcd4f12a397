"""Evaluation: from judged responses to numbers with 95 % intervals, and to paired tests between two checkpoints.

The unit is always the problem: samples of one problem are not independent, so they are averaged first, and intervals
and tests run over problems (Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640).

Sources: pass@k is Chen et al. 2021, arXiv:2107.03374, equation 1; maj@k is Wang et al. 2022, arXiv:2203.11171.

A response the verifier could not judge (``error``, ``timeout``) stays in every denominator and counts as not right: a
failing verifier lowers pass@k and avg@N, never raises them. Its share stands beside them as ``errors``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selftrain.intervals import mean, mean_interval, paired_test
from selftrain.types import UNJUDGED, FinishReason, Status


@dataclass(frozen=True, slots=True)
class Outcome:
    """What evaluation needs to know of one judged response."""

    problem_id: str
    index: int
    """Position among the problem's responses."""
    status: Status
    value: float | None
    """The verifier's credit in [0, 1]; None where it gave none."""
    answer: str | None
    """The final answer the verifier extracted; None never votes."""
    finish_reason: FinishReason
    difficulty: float | None = None
    n_tokens: int = 0
    """Response tokens, the end token included."""
    by: str | None = None
    """Which part of the verifier decided; None for its rules."""


JUDGE = "judge"
"""Who decided, in `Outcome.by`, where a model did."""

Evaluation = tuple[Sequence[Outcome], Sequence[Outcome]]
"""``(greedy, sampled)`` responses of one checkpoint to one split; either may be empty."""


def is_verdict(row: Mapping[str, Any]) -> bool:
    """Whether a line of metrics counts the run's own verdicts, as those of protocols and kept text do not."""
    return "protocol" not in row and "nll" not in row


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that k of the n samples drawn without replacement, c of them right, hold a right one.

    ``1 - C(n - c, k) / C(n, k)``: Chen et al. 2021, equation 1; unbiased for the chance that k fresh samples do.

    Raises:
        ValueError: ``k > n``, or numbers that are no counts.
    """
    if not 1 <= k <= n:
        raise ValueError(
            f"pass@{k} needs at least {max(k, 1)} samples per problem, there are {n}: sample more or lower k"
        )
    if not 0 <= c <= n:
        raise ValueError(f"{c} right of {n} samples is not a count")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def majority_at_k(answers: Sequence[str | None], right: Sequence[bool], k: int) -> float:
    """Chance that the most frequent answer among k samples is right (Wang et al. 2022), for one problem.

    The first k samples vote, then the next k, and so on: the mean over the ``n // k`` disjoint groups by index. Samples
    without an answer do not vote. Ties are broken at random, so their credit is the share of right ones among the tied.

    Args:
        answers: the extracted answer of each sample, by index.
        right: whether each sample was judged right.

    Raises:
        ValueError: fewer than k samples, or lengths that differ.
    """
    if not 1 <= k <= len(answers):
        raise ValueError(
            f"maj@{k} needs at least {max(k, 1)} samples per problem, there are {len(answers)}: sample more or lower k"
        )
    starts = range(0, len(answers) - k + 1, k)
    return mean([_majority(answers[start : start + k], right[start : start + k]) for start in starts])


def accuracy_by_problem(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Share of right responses per problem id, ids sorted.

    Raises:
        ValueError: as `by_problem`.
    """
    return {key: mean([o.status == "right" for o in group]) for key, group in by_problem(outcomes).items()}


def summarise(
    greedy: Sequence[Outcome],
    sampled: Sequence[Outcome],
    *,
    task: str,
    split: str,
    iteration: int,
    ks: Sequence[int],
) -> dict[str, Any]:
    """One metrics row: every number of one checkpoint on one split, floats rounded to 6 decimals.

    ``pass@1`` is the share of right greedy responses. ``avg@N`` is the mean over problems of the share of right ones
    among N samples; ``pass@k`` and ``maj@k`` come from the same samples, for each k > 1 (for k = 1 that is ``avg@N``).
    Each of them has ``_low`` and ``_high``, its 95 % interval over problems. ``maj@k`` is left out where not one sample
    of the split has an answer: the verifier extracts none (unit tests), and there is nothing to vote on.
    ``truncated`` (stopped by length or context), ``unparsed``, ``mean_tokens`` and ``mean_value`` (partial credit, 0
    where not judged) are over the samples, or over the greedy responses where nothing was sampled; ``errors``, the
    share of responses that could not be judged (error or timeout), is over both; so is ``by_judge``, the share that a
    judge model accepted where no rule could decide, which is there where one was asked.

    Raises:
        ValueError: no outcome, fewer samples than the largest k, or greedy and sampled responses to other problems.
    """
    groups, by_greedy = by_problem(sampled), by_problem(greedy)
    if not groups and not by_greedy:
        raise ValueError(f"nothing to summarise for {task}/{split}: no response was evaluated")
    if groups and by_greedy and groups.keys() != by_greedy.keys():
        raise ValueError(f"{task}/{split}: greedy and sampled responses are not to the same problems")
    row: dict[str, Any] = {"iteration": iteration, "task": task, "split": split}
    if by_greedy:
        row |= named("pass@1", list(accuracy_by_problem(greedy).values()))
    if groups:
        row |= named(f"avg@{_size(groups)}", list(accuracy_by_problem(sampled).values()))
        row |= _at_k(groups, [k for k in ks if k > 1])
    row["n_problems"] = len(groups or by_greedy)
    row |= _rates(sampled or greedy)
    row["errors"] = _share([*greedy, *sampled], *UNJUDGED)
    if any(outcome.by == JUDGE for outcome in (*greedy, *sampled)):
        accepted = [outcome.status == "right" and outcome.by == JUDGE for outcome in (*greedy, *sampled)]
        row["by_judge"] = _round(mean(accepted))
    row["by_difficulty"] = _by_difficulty(by_greedy, groups)
    return row


def compare(before: Evaluation, after: Evaluation) -> dict[str, dict[str, float]]:
    """Paired tests of two checkpoints on the same problems: ``after`` minus ``before``, for pass@1 and avg@N.

    Each value is ``{"difference", "low", "high", "p"}``; a metric only one side has is left out. ``avg@N`` carries the
    N of ``after``: it estimates the same quantity at any N.

    Raises:
        ValueError: the two sides are not about the same problems.
    """
    tests: dict[str, dict[str, float]] = {}
    for position in (0, 1):
        if not before[position] or not after[position]:
            continue
        name = "pass@1" if position == 0 else f"avg@{_size(by_problem(after[position]))}"
        tests[name] = tested(accuracy_by_problem(before[position]), accuracy_by_problem(after[position]))
    return tests


def tested(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """A paired test by problem as a metrics row holds it."""
    test = paired_test(before, after)
    # p in significant digits: six decimals would turn a small one into 0.
    return {key: _round(value) for key, value in test._asdict().items()} | {"p": float(f"{test.p:.4g}")}


def _majority(answers: Sequence[str | None], right: Sequence[bool]) -> float:
    votes = Counter(answer for answer in answers if answer is not None)
    most = max(votes.values(), default=0)
    return mean(
        [good for answer, good in zip(answers, right, strict=True) if answer is not None and votes[answer] == most]
    )


def majorities(groups: Mapping[str, Sequence[Outcome]], k: int) -> dict[str, float]:
    """maj@k by problem; empty where no response has an answer to vote with."""
    if not any(outcome.answer is not None for group in groups.values() for outcome in group):
        return {}
    return {
        key: majority_at_k([o.answer for o in group], [o.status == "right" for o in group], k)
        for key, group in groups.items()
    }


def _at_k(groups: Mapping[str, Sequence[Outcome]], ks: Sequence[int]) -> dict[str, Any]:
    right = {key: [o.status == "right" for o in group] for key, group in groups.items()}
    metrics: dict[str, Any] = {}
    for k in ks:
        metrics |= named(f"pass@{k}", [pass_at_k(len(flags), sum(flags), k) for flags in right.values()])
        if votes := majorities(groups, k):
            metrics |= named(f"maj@{k}", list(votes.values()))
    return metrics


def _rates(outcomes: Sequence[Outcome]) -> dict[str, float]:
    return {
        "truncated": _round(mean([o.finish_reason in ("length", "context") for o in outcomes])),
        "unparsed": _share(outcomes, "unparsed"),
        "mean_tokens": _round(mean([o.n_tokens for o in outcomes])),
        "mean_value": _round(mean([o.value or 0.0 for o in outcomes])),
    }


def _by_difficulty(
    greedy: Mapping[str, Sequence[Outcome]], sampled: Mapping[str, Sequence[Outcome]]
) -> dict[str, dict[str, Any]]:
    """Levels in rising order, ``unknown`` last; empty where the task states no difficulty."""
    problems = {key: group[0].difficulty for key, group in (sampled or greedy).items()}
    levels = sorted({level for level in problems.values() if level is not None})
    table: dict[str, dict[str, Any]] = {}
    for level in [*levels, None] if levels else []:
        ids = [key for key, value in problems.items() if value == level]
        if not ids:
            continue
        cell: dict[str, Any] = {"n": len(ids)}
        for name, groups in (("pass@1", greedy), (f"avg@{_size(sampled)}", sampled)):
            if groups:
                cell[name] = _share([outcome for key in ids for outcome in groups[key]], "right")
        table["unknown" if level is None else f"{level:g}"] = cell
    return table


def by_problem(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Responses by problem, ids sorted, each problem's by index.

    Raises:
        ValueError: a response given twice, or problems with different numbers of responses.
    """
    groups: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda o: (o.problem_id, o.index)):
        groups.setdefault(outcome.problem_id, []).append(outcome)
    for key, group in groups.items():
        if len({outcome.index for outcome in group}) < len(group):
            raise ValueError(f"problem {key} has two responses with the same index")
        if len(group) != _size(groups):
            raise ValueError(
                f"problem {key} has {len(group)} responses, others {_size(groups)}: evaluation is incomplete"
            )
    return groups


def _size(groups: Mapping[str, Sequence[Outcome]]) -> int:
    """Responses per problem."""
    return len(next(iter(groups.values()))) if groups else 0


def named(name: str, values: Sequence[float]) -> dict[str, float]:
    """The mean over problems as a metrics row holds it, with its interval."""
    mean, low, high = (_round(number) for number in mean_interval(values))
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _share(outcomes: Sequence[Outcome], *statuses: Status) -> float:
    return _round(mean([outcome.status in statuses for outcome in outcomes]))


def _round(value: float) -> float:
    return round(float(value), 6)
