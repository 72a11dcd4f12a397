"""Whether examples have what an objective reads, and nothing that it cannot mean."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from selftrain.training.data import told
from selftrain.types import Example

FIELDS = {
    "labels": "label",
    "reference": "reference_logprobs",
    "advantages": "advantages",
    "pairs": "pair_id",
    "values": "targets",
}
"""By what objectives read: where an example has it."""


def check_needs(examples: Sequence[Example], needs: Collection[str]) -> None:
    """Raises ValueError where examples lack what the objective reads, or have what it cannot mean."""
    for need in sorted(FIELDS.keys() & set(needs)):
        missing = sum(getattr(example, FIELDS[need]) is None for example in examples)
        if missing:
            raise ValueError(f"{missing} of {len(examples)} examples have no {FIELDS[need]}, which the objective reads")
    for example in examples:
        _check_lengths(example)
    labels = [example.label or 0.0 for example in examples]
    if "labels" in needs and (beyond := [label for label in labels if not 0.0 <= label <= 1.0]):
        raise ValueError(
            f"{len(beyond)} labels are not within 0 and 1, such as {beyond[0]:g}; label them by the verdict"
        )
    if "values" in needs:
        _check_targets(examples, "pairs" in needs)


def _check_lengths(example: Example) -> None:
    for name in ("loss_mask", "reference_logprobs", "old_logprobs", "advantages", "targets"):
        values = getattr(example, name)
        if values is None:
            continue
        if len(values) != len(example.response_ids):
            raise ValueError(
                f"example {example.id} has {len(values)} {name} for the {len(example.response_ids)} tokens of its "
                "response; give one for each"
            )
        if name != "targets" and not all(map(math.isfinite, values)):
            raise ValueError(f"example {example.id} has {name} that are not finite; mend or remove it")


def _check_targets(examples: Sequence[Example], pairs: bool) -> None:
    """A number that stands for "none" elsewhere, such as -100, must never be learnt as a value."""
    every = [[target for _, target in told(example)] for example in examples]
    if beyond := [target for own in every for target in own if not 0.0 <= target <= 1.0]:
        raise ValueError(
            f"{len(beyond)} targets are not within 0 and 1, such as {beyond[0]:g}; a token that is told nothing has NaN"
        )
    if examples and not any(every):
        raise ValueError("no example has a target; all of them are NaN")
    for example, own in zip(examples, every, strict=True):
        if pairs and len(own) != 1:
            raise ValueError(
                f"example {example.id} is a side of a pair and has {len(own)} targets; give it one, where its value is "
                "read"
            )


def check_partners(examples: Sequence[Example], partners: Sequence[Example], needs: Collection[str]) -> None:
    """Raises ValueError where the objective reads a divergence and examples lack partners to estimate it on."""
    known = [one for one in partners if one.reference_logprobs is not None]
    if "divergence" in needs and len(known) != len(examples):
        raise ValueError(
            f"{len(examples) - len(known)} of {len(examples)} examples have no partner with reference_logprobs, which "
            "the objective's divergence is estimated on"
        )
