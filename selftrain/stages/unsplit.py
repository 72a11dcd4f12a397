"""Whether the rule that cuts responses into steps finds any: values of whole responses look like those of steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from selftrain import records
from selftrain.events import Event, Notice


def unsplit(where: str, sources: Mapping[str, object], files: Iterable[Path]) -> Iterator[Event]:
    """A warning for each source whose separator cut none of the responses it scored.

    Args:
        where: section of the sources.
        files: of their scores.
    """
    cut_by = {name: getattr(source, "cut_by", None) for name, source in sources.items()}
    if not any(separator is not None for separator in cut_by.values()):
        return
    steps: dict[str, list[int]] = {name: [] for name in cut_by}
    for file in files:
        for name, ends in zip(*records.columns(file, "source", "step_ends"), strict=True):
            if name in steps and ends:
                steps[name].append(len(ends))
    for name, separator in cut_by.items():
        if separator is not None and steps[name] and max(steps[name]) == 1:
            yield Notice(
                f"{where}.{name}.separator: {separator!r} cuts none of {len(steps[name])} responses, so that each is "
                "one step; set it to what ends a step, or read: last for an outcome model",
                "warning",
            )
