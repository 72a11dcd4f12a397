"""From judged samples to the examples a learner is fitted to, and why the rest were left out.

ReST-EM's filter and cap (Singh et al. 2023, section 3), with duplicates dropped first so that the cap counts
different solutions. Everything is decided by a sample's index, never by when it was finished: fast answers are short
answers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from selftrain.schema import Selection
from selftrain.types import UNJUDGED, Example, FinishReason, Sample, Status

ENDED: tuple[FinishReason, ...] = ("eos", "stop")
"""How a response ends that is not cut short."""


class Candidate(NamedTuple):
    """A sample with what is known of it."""

    sample: Sample
    status: Status
    value: float | None
    """The verifier's credit in [0, 1]; None where it gave none."""
    answer: str | None
    """The final answer the verifier extracted; None where it names none."""
    reward: float | None
    """The total; None where it is not valid, or nothing is scored yet."""


NO_REWARD = "no valid reward"


def cut_short(candidate: Candidate) -> bool:
    return candidate.sample.finish_reason not in ENDED


@dataclass
class Chooser:
    """Applies the filters of one selection to a stream of candidates; counts what happened to each."""

    selection: Selection
    reasons: Counter[str] = field(default_factory=Counter)
    _kept: Counter[str] = field(default_factory=Counter)
    _seen: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def choose(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """Those that pass, in the order of the candidates, which decides who comes first under a cap."""
        for candidate in candidates:
            reason = self._reason(candidate)
            self.reasons[reason] += 1
            if reason == "kept":
                self._kept[candidate.sample.problem_id] += 1
                yield candidate

    def _reason(self, candidate: Candidate) -> str:
        sample, status, reward = candidate.sample, candidate.status, candidate.reward
        rule = self.selection
        if status in UNJUDGED:
            return f"not judged ({status})"
        # A truncated response is never taught as if it were complete.
        if cut_short(candidate) and rule.truncated == "out":
            return f"truncated ({sample.finish_reason})"
        if rule.verdict == "right" and status != "right":
            return status
        if rule.verdict == "wrong" and status == "right":
            return "right"
        if rule.reward_above is not None and (reward is None or reward <= rule.reward_above):
            return "reward too low"
        if rule.weigh != "none" and reward is None:
            return NO_REWARD
        if self._duplicate(candidate):
            return "duplicate"
        if rule.cap is not None and self._kept[sample.problem_id] >= rule.cap:
            return "over the cap"
        return "kept"

    def _duplicate(self, candidate: Candidate) -> bool:
        by = {"none": None, "text": candidate.sample.text.strip(), "answer": candidate.answer}[self.selection.dedupe]
        if by is None:  # A verifier that returns a bool or a number names no answer: nothing tells two samples equal.
            return False
        key = hash(by)
        seen = self._seen[candidate.sample.problem_id]
        new = key not in seen
        seen.add(key)
        return not new


def as_scored(sample: Sample, end_token: int) -> Example:
    """A sample as the sequence a model reads: one that a stop string cut before the model said it was done gets its end
    token here."""
    added = sample.finish_reason == "stop"
    end = (end_token,) if added else ()
    mask = sample.loss_mask
    return Example(
        id=sample.id,
        problem_id=sample.problem_id,
        source=sample.step,
        prompt_ids=sample.prompt_ids,
        response_ids=(*sample.response_ids, *end),
        sample_id=sample.id,
        loss_mask=None if mask is None else (*mask, *(True for _ in end)),
        # Of what was sampled: an end token that was added has no log-probability to go with it.
        old_logprobs=sample.logprobs,
        eos_added=added,
    )


def as_example(name: str, selection: Selection, candidate: Candidate, end_token: int, factor: float = 1.0) -> Example:
    """A chosen candidate as what a learner is fitted to. One that was cut short is labelled wrong, also where it names
    the right answer.

    Args:
        name: of the selection.
        factor: what it counts for beside the selection's weight.
    """
    value = 0.0 if cut_short(candidate) else candidate.value
    return replace(
        as_scored(candidate.sample, end_token),
        id=f"{name}/{candidate.sample.id}",
        source=name,
        weight=selection.weight * factor,
        label=candidate.reward if selection.label == "reward" else value,
    )
