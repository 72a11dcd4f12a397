"""One judgement: load a verifier, call it, and hold whatever it does or returns to the contract.

This is what runs inside a worker process of `selftrain.verification`.
"""

from __future__ import annotations

import inspect
import math
import mmap
import numbers
import os
import struct
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from selftrain import registry
from selftrain.errors import RunError
from selftrain.types import STATUSES, Problem, Status, Verdict
from selftrain.workers import Handler

Verifier = Callable[[Problem, str], Verdict | float | bool]
Judgement = tuple[Status, float | None, str | None, str | None]
"""Status, value, answer, reason of a verdict."""
Row = tuple[Status, float | None, str | None, str | None, float]
"""A verdict on its way between processes: a judgement and its seconds."""

FLUSH_SECONDS = 0.05
"""A worker keeps finished verdicts back for at most this long; they are judged again where it is killed meanwhile."""
REASON_CHARACTERS = 500
BOARD = struct.Struct("=dq")
"""When the response a worker is at was begun (time.monotonic), and its position in the chunk."""
OUT_OF_MEMORY: Judgement = ("error", None, None, "memory: the verifier needed more than it may take")


class VerifierError(RunError):
    """A verifier that cannot be loaded, or is none."""


@dataclass(frozen=True)
class VerifierSpec:
    """Which verifier judges a task."""

    reference: str
    """Name in the registry, ``package.module:name`` or ``path/to/file.py:name``."""
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    """Recorded in every verdict: name and digest, e.g. ``numeric_answer@1a2b``."""
    right_at: float = 1.0
    """A verifier that returns a number means ``right`` from this value on."""


class Request(NamedTuple):
    """One response to judge, by the verifier of ``task``."""

    task: str
    problem: Problem
    response: str


_end = math.inf
"""When the judgement at hand overruns (time.monotonic)."""


def time_left() -> float:
    """Seconds until the judgement at hand overruns and its worker is killed; infinite where there is no worker.

    For verifiers that bound what they run themselves, so that theirs is the last word.
    """
    return _end - time.monotonic()


def resolve_now(spec: VerifierSpec) -> Verifier:
    """Load a verifier in this process; one that has a ``prepare()`` is asked whether it can work here.

    Raises:
        VerifierError: it does not load, refuses its options, cannot be called with a problem and a response, or cannot
            work here.
    """
    try:
        verifier = registry.build("verifier", spec.reference, dict(spec.options))
    except registry.UnknownComponent as error:
        raise VerifierError(str(error)) from error
    except Exception as error:  # The user's constructor may raise anything.
        raise VerifierError(f"verifier '{spec.reference}' does not load: {type(error).__name__}: {error}") from error
    if not callable(verifier):
        raise VerifierError(f"verifier '{spec.reference}' is a {type(verifier).__name__}; it must be callable")
    try:
        inspect.signature(verifier).bind(None, "")
    except TypeError as error:
        raise VerifierError(f"verifier '{spec.reference}' must take (problem, response): {error}") from error
    try:
        getattr(verifier, "prepare", lambda: None)()
    except RunError as error:
        raise VerifierError(f"verifier '{spec.reference}': {error}") from error
    return verifier  # type: ignore[no-any-return]


def serve(specs: Mapping[str, VerifierSpec], fd: int, seconds: float, memory_mb: int) -> Handler:
    """Start-up of a worker; the handler answers a chunk of requests by rows, in one or more lists."""
    verifiers = {task: resolve_now(spec) for task, spec in specs.items()}
    board = mmap.mmap(fd, BOARD.size)
    os.close(fd)
    _limit(memory_mb)

    def judge(requests: Sequence[Request]) -> Iterator[list[Row]]:
        global _end
        rows: list[Row] = []
        flushed = now = time.monotonic()
        for position, (task, problem, response) in enumerate(requests):
            start = now
            BOARD.pack_into(board, 0, start, position)
            _end = start + seconds
            judgement = _judgement(verifiers[task], specs[task].right_at, problem, response)
            now = time.monotonic()
            if now - start > seconds:
                judgement = ("timeout", None, None, f"took {now - start:.3g} s")
            rows.append((*judgement, now - start))
            if now - flushed > FLUSH_SECONDS or judgement is OUT_OF_MEMORY:
                yield rows
                rows, flushed = [], now
            if judgement is OUT_OF_MEMORY:
                os._exit(0)  # It may hold on to what filled it; the next response gets a fresh process.
        yield rows

    return judge


def _judgement(verifier: Verifier, right_at: float, problem: Problem, response: str) -> Judgement:
    try:
        return _checked(verifier(problem, response), right_at)
    except MemoryError:
        return OUT_OF_MEMORY
    except BaseException as error:  # Whatever it raises, sys.exit() too, is the verifier's failure, not the worker's.
        return _no_judgement("".join(traceback.format_exception_only(error)).strip())


def _checked(result: object, right_at: float) -> Judgement:
    """The judgement a verifier's return value stands for; an ``error`` where it keeps to no contract."""
    if isinstance(result, Verdict):
        if result.status not in STATUSES:
            return _no_judgement(f"the verifier returned the status {result.status!r}; known: {', '.join(STATUSES)}")
        if not all(text is None or isinstance(text, str) for text in (result.answer, result.reason)):
            return _no_judgement("the verifier returned an answer or a reason that is not a string")
        if result.status in ("timeout", "error"):
            return result.status, None, result.answer, result.reason
        value = result.status == "right" if result.value is None else result.value
        return _with_value(value, result.status, result.answer, result.reason)
    if isinstance(result, numbers.Real):
        return _with_value(result, "right" if float(result) >= right_at else "wrong")
    return _no_judgement(f"the verifier returned a {type(result).__name__}, not a Verdict, a number or a bool")


def _with_value(value: object, status: Status, answer: str | None = None, reason: str | None = None) -> Judgement:
    if isinstance(value, numbers.Real) and 0.0 <= float(value) <= 1.0:
        return status, float(value), answer, reason
    return _no_judgement(f"the verifier returned the value {value!r}, not a number from 0 to 1")


def _no_judgement(reason: str) -> Judgement:
    return "error", None, None, reason[:REASON_CHARACTERS]


def _limit(memory_mb: int) -> None:
    """Bound the address space of this process, and have crashes leave no core dumps."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * resource.getpagesize() + (memory_mb << 20)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or bound < hard:
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
