"""From judged samples to the examples a learner is fitted to, and why the rest were left out.

ReST-EM's filter and cap (Singh et al. 2023, section 3), with duplicates dropped first so that the cap counts
different solutions. Everything is decided by a sample's index, never by when it was finished: fast answers are short
answers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from selftrain.schema import Selection
from selftrain.types import Example, FinishReason, Sample, Status

ENDED: tuple[FinishReason, ...] = ("eos", "stop")
"""How a response ends that is not cut short."""


class Candidate(NamedTuple):
    """A sample with what is known of it."""

    sample: Sample
    status: Status
    answer: str | None
    """The final answer the verifier extracted; None where it names none."""
    reward: float | None
    """The total; None where it is not valid."""


@dataclass
class Chooser:
    """Applies one selection to a stream of candidates; counts what happened to each."""

    name: str
    selection: Selection
    end_token: int
    reasons: Counter[str] = field(default_factory=Counter)
    _kept: Counter[str] = field(default_factory=Counter)
    _seen: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def choose(self, candidates: Iterable[Candidate]) -> Iterator[Example]:
        """Examples in the order of the candidates, which decides who comes first under a cap."""
        for candidate in candidates:
            reason = self._reason(candidate)
            self.reasons[reason] += 1
            if reason == "kept":
                self._kept[candidate.sample.problem_id] += 1
                yield self._example(candidate)

    def _reason(self, candidate: Candidate) -> str:
        sample, status, _, reward = candidate
        rule = self.selection
        if status in ("error", "timeout"):
            return f"not judged ({status})"
        # A truncated response is never taught as if it were complete.
        if sample.finish_reason not in ENDED:
            return f"truncated ({sample.finish_reason})"
        if rule.verdict == "right" and status != "right":
            return status
        if rule.verdict == "wrong" and status == "right":
            return "right"
        if rule.reward_above is not None and (reward is None or reward <= rule.reward_above):
            return "reward too low"
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

    def _example(self, candidate: Candidate) -> Example:
        sample = candidate.sample
        # A stop string cut the response before the model said it was done, so the end token is taught here.
        added = sample.finish_reason == "stop"
        end = (self.end_token,) if added else ()
        mask = sample.loss_mask
        return Example(
            id=f"{self.name}/{sample.id}",
            problem_id=sample.problem_id,
            source=self.name,
            prompt_ids=sample.prompt_ids,
            response_ids=(*sample.response_ids, *end),
            weight=self.selection.weight,
            sample_id=sample.id,
            loss_mask=None if mask is None else (*mask, *(True for _ in end)),
            eos_added=added,
            label=candidate.reward,
        )
