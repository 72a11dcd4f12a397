"""Several courses of one tree side by side."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from itertools import islice
from typing import Any, TypeVar

from selftrain.search.asks import Ask

Result = TypeVar("Result")


def together(parts: Iterable[Generator[list[Ask], list[Any], Result]]) -> Generator[list[Ask], list[Any], list[Result]]:
    """All parts at once: in every round what each of them asks for goes out as one list. Their results, in order."""
    parts = list(parts)
    results: dict[int, Result] = {}
    sent: dict[int, list[Any] | None] = dict.fromkeys(range(len(parts)))
    try:
        while sent:
            asks: dict[int, list[Ask]] = {}
            for place, answers in sent.items():
                try:
                    asks[place] = next(parts[place]) if answers is None else parts[place].send(answers)
                except StopIteration as stop:
                    results[place] = stop.value
            rest = iter((yield [ask for own in asks.values() for ask in own]) if asks else ())
            sent = {place: [*islice(rest, len(own))] for place, own in asks.items()}
    finally:
        for part in parts:
            part.close()
    return [results[place] for place in range(len(parts))]
