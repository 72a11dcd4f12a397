"""An advantage for every token of the iteration's samples, from the scores of all reward sources.

Sources that give a number for every token are process rewards, the others outcomes; each counts with its weight in the
total. All judged samples of the learner's steps take part, also those that no selection keeps: a baseline is that of
the whole group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress, groupby, repeat
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain import records
from selftrain.advantages.base import Advantage, Rollout
from selftrain.config import instantiate
from selftrain.drawing.accept import accepted
from selftrain.session import Session
from selftrain.stages.score import of_problems, total_weights
from selftrain.types import Example, Sample, Score

if TYPE_CHECKING:
    from selftrain.advantages.base import Vector


@dataclass(frozen=True)
class Advantages:
    """Of an iteration, by sample."""

    by_sample: Mapping[str, Vector]
    flat_groups: int
    """Problems whose advantages are 0 throughout: one sample alone, or rewards that are all equal."""
    empty: int
    """Responses without a token."""


def token_advantages(session: Session, iteration: int, learner: str) -> Advantages | None:
    """Those of a learner; None where it has no use for any."""
    chosen = session.config.learners[learner]
    if chosen.advantage is None:
        return None
    advantage: Advantage = instantiate("advantage", chosen.advantage)
    greedy = _greedy_outcomes(session, iteration, getattr(advantage, "greedy", None))
    groups: defaultdict[tuple[str, str], list[tuple[str, Rollout]]] = defaultdict(list)
    empty = 0
    for step in dict.fromkeys(selection.source for selection in chosen.examples.values()):
        for sample, rollout in _rollouts(session, iteration, step):
            empty += not sample.response_ids
            if rollout is not None:
                found = replace(rollout, greedy=greedy.get(sample.problem_id))
                groups[step, sample.problem_id].append((sample.id, found))
    every = [[rollout for _, rollout in group] for group in groups.values()]
    made = advantage.advantages(every)
    return Advantages(
        {
            name: own
            for group, values in zip(groups.values(), made, strict=True)
            for (name, _), own in zip(group, values, strict=True)
        },
        sum(not any(own.any() for own in values) for values in made),
        empty,
    )


def with_advantages(examples: Iterable[Example], advantages: Advantages) -> Iterator[Example]:
    """Examples of samples with their advantages; what was not sampled, such as an end token that was added, is not
    among their tokens."""
    for example in examples:
        own = advantages.by_sample.get(example.sample_id or "")
        if own is None:  # Its reward is not valid: nothing says whether it is good.
            continue
        mask = example.loss_mask
        yield replace(
            example,
            response_ids=example.response_ids[: len(own)],
            loss_mask=None if mask is None else mask[: len(own)],
            advantages=tuple(own.tolist()),
            eos_added=False,
        )


def _rollouts(session: Session, iteration: int, step: str) -> Iterator[tuple[Sample, Rollout | None]]:
    """The samples of a step that are learnt from; None where one of its rewards is not valid."""
    folder = session.run.iteration(iteration)
    weights, learnt = total_weights(session), accepted(session, iteration, step)
    for part in records.parts(folder / "samples", f"{step}-"):
        chosen = of_problems(part, learnt)
        scores = _weighed(folder, part, chosen, weights)
        for sample, own in zip(records.rows(part, Sample, chosen), scores, strict=True):
            valid = all(score.valid for score in own)
            yield sample, rollout_of(len(sample.response_ids), own, weights) if valid else None


def _weighed(
    folder: Path, part: Path, chosen: Sequence[bool] | None, weights: Mapping[str, float]
) -> Iterator[list[Score]]:
    """The scores that count of every chosen sample of a part, in its order."""
    path, wanted = folder / "scores" / part.name, set(compress(records.column(part, "id"), chosen or repeat(True)))
    flags = [
        source in weights and sample in wanted
        for sample, source in zip(*records.columns(path, "sample_id", "source"), strict=True)
    ]
    for _, own in groupby(records.rows(path, Score, flags), key=lambda score: score.sample_id):
        yield list(own)


def rollout_of(length: int, scores: Sequence[Score], weights: Mapping[str, float]) -> Rollout:
    """One response from its scores. What a source gives an end token that scoring added goes to the last token sampled,
    so that sums stay what they are."""
    import numpy as np

    outcome, process, unweighted = 0.0, np.zeros(length), np.zeros(length)
    ends: tuple[int, ...] = ()
    for score in scores:
        if score.token_rewards is None:
            outcome += weights[score.source] * (score.reward or 0.0)
            continue
        given = np.asarray(score.token_rewards)
        own = given[:length].copy()
        own[-1:] += given[length:].sum()
        unweighted += own
        process += weights[score.source] * own
        ends = tuple(dict.fromkeys(min(end, length) for end in score.step_ends or () if min(end, length)))
    return Rollout(outcome, process, ends, unweighted=unweighted)


def _greedy_outcomes(session: Session, iteration: int, step: str | None) -> dict[str, float]:
    """The greedy response's outcome by problem, for advantages that name a step."""
    if step is None:
        return {}
    found = ((sample.problem_id, rollout) for sample, rollout in _rollouts(session, iteration, step))
    return {problem: rollout.total for problem, rollout in found if rollout is not None}
