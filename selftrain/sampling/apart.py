"""Any sampler of this package in a process of its own, as a replica beside others.

It is given unit by unit, each as a work list: samples that share a batch come together, so they are what one process
that draws the whole list would have drawn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftrain.config import instantiate
from selftrain.sampling.base import Answers, Completion, Request, Take, Unit
from selftrain.sampling.seats import Seat
from selftrain.sampling.vllm_process import EngineProcess
from selftrain.schema import Component


class Apart:
    """A sampler of a kind that says which samples share a batch."""

    def __init__(self, component: Component, checkpoint: Path, seat: Seat) -> None:
        self._engine = EngineProcess(
            component.kind,
            dict(component.options),
            str(checkpoint),
            _environment(seat),
            patience=float("inf"),
            reference="selftrain.sampling.apart:serve",
            name="sampler",
            start=seat.start,
        )

    def close(self) -> None:
        self._engine.close()

    def while_waiting(self, check_stop: Callable[[], None]) -> None:
        """Call this while the process is silent; what it raises ends the waiting."""
        self._engine.check_stop = check_stop

    def reload(self, checkpoint: Path) -> bool:
        self._forget()
        self._engine.ask(checkpoint)
        return bool(self._engine.receive())

    def poll(self, timeout: float = 0.0) -> bool:
        """As `selftrain.sampling.vllm.VLLMSampler.poll`."""
        return not self._engine.waiting or self._engine.poll(timeout)

    def draw(self, work: Sequence[Request], take: Take, answers: Answers) -> Iterator[list[Completion]]:
        """As `selftrain.sampling.vllm.VLLMSampler.draw`; one unit at a time, so that none waits behind a long one."""
        found: list[Completion] = []
        while (unit := take()) is not None:
            asked, places = _alone(work, unit)
            self._forget()
            self._engine.ask(asked)
            yield found
            found = [_placed(one, places) for one in self._engine.receive()]
        yield found

    def _forget(self) -> None:
        """Wait for what was asked by somebody who has left since: it must not answer the next request."""
        while self._engine.waiting:
            self._engine.receive()


def _alone(work: Sequence[Request], unit: Unit) -> tuple[list[Request], list[list[tuple[int, int]]]]:
    """A work list of one unit, and where its samples stand in the whole one."""
    indices: dict[int, list[int]] = {}
    for request, index in unit:
        indices.setdefault(request, []).append(index)
    asked = [
        replace(work[request], seeds=tuple(work[request].seeds[index] for index in own))
        for request, own in indices.items()
    ]
    return asked, [[(request, index) for index in own] for request, own in indices.items()]


def _placed(completion: Completion, places: Sequence[Sequence[tuple[int, int]]]) -> Completion:
    request, index = places[completion.request][completion.index]
    return replace(completion, request=request, index=index)


def _environment(seat: Seat) -> dict[str, str]:
    """Replicas share the cores where there is no GPU: more threads than cores would slow all of them."""
    if seat.gpus or seat.start is not None:
        return seat.environment()
    own = len(seat.cores(1)[0])
    return {"OMP_NUM_THREADS": str(min(own, int(os.environ.get("OMP_NUM_THREADS", own))))}


def serve(
    kind: str, options: Mapping[str, Any], checkpoint: str, environment: Mapping[str, str]
) -> Callable[[list[Request] | Path], Iterator[list[Completion] | bool]]:
    """Start-up of the process; it answers a work list by all its responses, and a checkpoint by whether it took its
    weights over."""
    os.environ.update(environment)
    sampler = instantiate("sampler", Component(kind, dict(options))).open(Path(checkpoint))

    def answer(told: list[Request] | Path) -> Iterator[list[Completion] | bool]:
        if isinstance(told, Path):
            yield hasattr(sampler, "reload") and sampler.reload(told)
        else:
            yield [completion for completions in sampler.sample(told) for completion in completions]

    return answer
