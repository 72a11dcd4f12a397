"""How far the policy's responses are from what the model it began with would write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from selftrain import records
from selftrain.monitors.responses import Distance, distance
from selftrain.planning.plan import Model
from selftrain.planning.settings import POLICY
from selftrain.schema import Sampling
from selftrain.selection import as_scored
from selftrain.session import Session
from selftrain.stages.logprobs import Logprobs
from selftrain.types import Example, Sample

OWN = "policy"
"""Origin of the samples that the policy wrote."""


def distances(session: Session, iteration: int, part: Path, logprobs: Logprobs) -> Iterator[Distance]:
    """One for each response of the policy in a part, but for greedy ones, which are no draws from a distribution.

    Both sides are taken at the temperature the response was drawn with.
    """
    own, start = (_policy(session, number) for number in (iteration - 1, 0))
    by_temperature: dict[float, list[Sample]] = defaultdict(list)
    for sample in records.rows(part, Sample):
        if sample.origin == OWN and (temperature := _drawn(session, sample).temperature):
            by_temperature[temperature].append(sample)
    for temperature, samples in by_temperature.items():
        if own.digest == start.digest:
            yield from (distance([0.0] * len(sample.response_ids)) for sample in samples)
            continue
        # As reward sources ask for them, so that what they asked is there already.
        examples = [as_scored(sample, session.tokenizer.eos_token_id) for sample in samples]
        theirs = logprobs.of(start, examples, temperature)
        ours = _own(session, logprobs, own, samples, examples, temperature)
        for sample, mine, other in zip(samples, ours, theirs, strict=True):
            mask = sample.loss_mask or (True,) * len(sample.response_ids)
            # The end token behind a stop string was not drawn, and ends the longer one.
            pairs = zip(mine, other.tolist(), mask, strict=False)
            yield distance(one - another for one, another, drawn in pairs if drawn)


def _policy(session: Session, iteration: int) -> Model:
    return Model(session.stages.checkpoint(POLICY, iteration), session.stages.checkpoint_digest(POLICY, iteration))


def _drawn(session: Session, sample: Sample) -> Sampling:
    step, task = session.config.grow[sample.step], session.problems.by_id[sample.problem_id].task
    return session.settings(step.sampling(), task, step.model)


def _own(
    session: Session,
    logprobs: Logprobs,
    policy: Model,
    samples: Sequence[Sample],
    examples: Sequence[Example],
    temperature: float,
) -> list[Sequence[float]]:
    """log p of the policy: as recorded, or computed where it was not, or where some tokens could not be drawn: what is
    recorded is then of another distribution than that of the start."""
    recorded = {one.id: one.logprobs for one in samples if one.logprobs is not None and _all_tokens(session, one)}
    missing = [one for one in examples if one.id not in recorded]
    found = logprobs.of(policy, missing, temperature) if missing else []
    computed = {one.id: values.tolist() for one, values in zip(missing, found, strict=True)}
    return [recorded[one.id] if one.id in recorded else computed[one.id] for one in samples]


def _all_tokens(session: Session, sample: Sample) -> bool:
    drawn = _drawn(session, sample)
    return not drawn.top_k and drawn.top_p == 1.0
