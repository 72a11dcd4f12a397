"""Solutions whose steps people have labelled: files in the formats of PRM800K and of ProcessBench.

PRM800K (Lightman et al. 2023, "Let's Verify Step by Step"): a line per solution, with ``question.problem`` and
``label.steps``, each with rated completions. ProcessBench (Zheng et al. 2024, arXiv:2412.06559): ``problem``, ``steps``
and ``label``, the index of the first wrong step from 0, or -1 where all are right. A plain row of our own has
``problem``, ``steps`` and ``labels``, one for each step: a number in [0, 1], or null.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from selftrain.tasks.jsonl import missing_field, read_records

Record = Mapping[str, Any]
Neutral = Literal["right", "wrong", "unknown"]
NEUTRAL: dict[Neutral, float | None] = {"right": 1.0, "wrong": 0.0, "unknown": None}


@dataclass(frozen=True, slots=True)
class LabelledSteps:
    """A solution and what is known of its steps."""

    problem: str
    steps: tuple[str, ...]
    """Their texts, without what stands between them."""
    labels: tuple[float | None, ...]
    """One per step, in [0, 1]: 1 right, 0 wrong, None not known."""
    id: str = ""
    """The row's own, or its place in the file."""


def read_labelled(
    path: Path, *, neutral: Neutral = "right", alternatives: bool = False, ending: str | None = None
) -> Iterator[LabelledSteps]:
    """The solutions of a file (.jsonl, .json or .parquet), each row in the format its fields show.

    Args:
        neutral: what PRM800K's rating 0 means, neither wrong nor any progress.
        alternatives: also the steps that PRM800K's labellers rated and the solution did not take, each behind what
            comes before it.
        ending: as `read_records`.

    Raises:
        ValueError: with file and line: it cannot be read, or a row is in none of the formats.
    """
    for place, record in read_records(path, ending):
        if "label" in record and isinstance(record["label"], Mapping):
            yield from _prm800k(record, place, neutral, alternatives)
        else:
            yield _plain(record, place)


def _plain(record: Record, place: str) -> LabelledSteps:
    """A row of ProcessBench, or of our own."""
    problem, steps = _text(record, "problem", place), record.get("steps")
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) and step.strip() for step in steps):
        raise ValueError(f"{place}: 'steps' must be a list of texts that are not empty")
    labels = _each(record, len(steps), place) if "labels" in record else _first(record, len(steps), place)
    return LabelledSteps(problem, tuple(steps), labels, str(record.get("id", place)))


def _first(record: Record, steps: int, place: str) -> tuple[float | None, ...]:
    """From the index of the first wrong step: nothing is known of what follows it."""
    if "label" not in record:
        raise ValueError(missing_field("label", place, dict(record)))
    first = record["label"]
    if not isinstance(first, int) or isinstance(first, bool) or not -1 <= first < steps:
        raise ValueError(f"{place}: label is {first!r}; it must be -1, or the index of one of its {steps} steps")
    if first < 0:
        return (1.0,) * steps
    return (*[1.0] * first, 0.0, *[None] * (steps - first - 1))


def _each(record: Record, steps: int, place: str) -> tuple[float | None, ...]:
    labels = record["labels"]
    if not isinstance(labels, list) or len(labels) != steps:
        raise ValueError(f"{place}: 'labels' must be a list with one for each of its {steps} steps")
    for label in labels:
        if label is not None and not (isinstance(label, int | float) and 0 <= label <= 1):
            raise ValueError(f"{place}: a label is {label!r}; it must be a number from 0 to 1, or null")
    return tuple(None if label is None else float(label) for label in labels)


def _prm800k(record: Record, place: str, neutral: Neutral, alternatives: bool) -> Iterator[LabelledSteps]:
    """The solution as it was taken, step by step; nothing of a row whose problem is broken or has no step."""
    question, label = record.get("question"), record["label"]
    if not isinstance(question, Mapping):
        raise ValueError(missing_field("question", place, dict(record)))
    problem = _text(question, "problem", place)
    if label.get("finish_reason") == "bad_problem":
        return
    taken: list[tuple[str, float | None]] = []
    for number, step in enumerate(_objects(label, "steps", place)):
        own, others = _candidates(step, f"{place}: step {number}", neutral)
        for other, rated in enumerate(others if alternatives else []):
            texts, labels = zip(*taken, rated, strict=True)
            yield LabelledSteps(problem, texts, labels, f"{place}/{number}/{other}")
        taken.append(own)
    if taken:
        texts, labels = zip(*taken, strict=True)
        yield LabelledSteps(problem, texts, labels, place)


def _candidates(
    step: Record, place: str, neutral: Neutral
) -> tuple[tuple[str, float | None], list[tuple[str, float | None]]]:
    """The step the solution took, and those beside it.

    Where none was chosen a person wrote it, which makes it right; or the labelling ended here, with the solution's own
    step standing first.
    """
    rated = [
        (_text(one, "text", place), _rating(one.get("rating"), place, neutral))
        for one in _objects(step, "completions", place)
    ]
    chosen, human = step.get("chosen_completion"), step.get("human_completion")
    if chosen is None and human is not None:
        return (_text(human if isinstance(human, Mapping) else {"text": human}, "text", place), 1.0), rated
    if chosen is None:
        chosen = 0
    if not isinstance(chosen, int) or not 0 <= chosen < len(rated):
        raise ValueError(f"{place}: chosen_completion is {chosen!r}, and there are {len(rated)} completions")
    return rated[chosen], [*rated[:chosen], *rated[chosen + 1 :]]


def _rating(rating: Any, place: str, neutral: Neutral) -> float | None:
    if rating is None:
        return None
    if isinstance(rating, bool) or not isinstance(rating, int | float) or rating not in (-1, 0, 1):
        raise ValueError(f"{place}: a rating is {rating!r}; it must be -1, 0, 1 or null")
    return NEUTRAL[neutral] if rating == 0 else float(rating > 0)


def _text(record: Record, name: str, place: str) -> str:
    if name not in record:
        raise ValueError(missing_field(name, place, dict(record)))
    if not isinstance(record[name], str) or not record[name].strip():
        raise ValueError(f"{place}: '{name}' is {record[name]!r}; it must be text")
    return str(record[name])


def _objects(record: Record, name: str, place: str) -> list[Record]:
    value = record.get(name)
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise ValueError(f"{place}: '{name}' must be a list of objects")
    return value
