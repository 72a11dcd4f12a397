"""Verifiers in this process: load one, call it, and hold whatever it does or returns to the contract.

A verifier is a callable ``(Problem, response) -> Verdict | float | bool``, plain or ``async``; one marked by `batched`
takes lists of both and returns one such value for each. ``NotImplemented`` means: not mine, this problem is for others.

This is the one place where a verifier is called: by the workers of `selftrain.serving`, and by verifiers that ask
others (``any``, ``weighted`` ...) through `selftrain.asking`.
"""

from __future__ import annotations

import asyncio
import inspect
import numbers
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

from selftrain import registry
from selftrain.awaiting import at_once, settled
from selftrain.errors import RunError
from selftrain.nested import changed, parts
from selftrain.types import STATUSES, UNJUDGED, Problem, Status, Verdict

Judgement = tuple[Status, float | None, str | None, str | None, str | None]
"""Status, value, answer, reason of a verdict, and by which part it was decided."""
Form = Literal["single", "async", "batch", "parts"]
"""``parts``: made of verifiers none of which waits for anything (`selftrain.asking`)."""
Marked = TypeVar("Marked")

REASON_CHARACTERS = 500
"""Of a reason, which is kept for every response; what is longer is cut."""
CONCURRENT = 64
"""Responses an async verifier has under way at once in each worker, where it does not say otherwise."""
OUT_OF_MEMORY: Judgement = ("error", None, None, "memory: the verifier needed more than it may take", None)
NOT_MINE: Judgement = ("error", None, None, "not mine: the verifier does not judge such problems", None)


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
    """A verifier that returns a number, and has no ``right_at`` of its own, means ``right`` from this value on."""


class Request(NamedTuple):
    """One response to judge, by the verifier of ``task``."""

    task: str
    problem: Problem
    response: str


def batched(verifier: Marked) -> Marked:
    """Mark a function, or a class with ``__call__``, that takes a list of problems and one of responses.

    It returns one verdict, number or bool for each, in order. At most 64 come at once.
    """
    verifier.batched = True  # type: ignore[attr-defined]
    return verifier


def resolve_now(spec: VerifierSpec) -> Any:
    """Load a verifier in this process; one that has a ``prepare()`` is asked whether it can work here.

    Raises:
        VerifierError: it does not load, refuses its options, cannot be called with a problem and a response, or cannot
            work here.
    """
    return load(spec).verifier


def load(spec: VerifierSpec) -> Judge:
    """A verifier with the verifiers inside its options, ready to be asked; raises as `resolve_now` does."""
    try:
        component = registry.resolve("verifier", spec.reference)
        schema = component if isinstance(component, type) else None
        options = changed(schema, spec.options, _load_part)
        # A plain function has no options of its own.
        given = None if schema else options.pop("right_at", None)
        verifier = registry.build("verifier", spec.reference, options)
    except (registry.UnknownComponent, VerifierError) as error:
        raise VerifierError(str(error)) from error
    except Exception as error:  # The user's constructor may raise anything.
        raise VerifierError(f"verifier '{spec.reference}' does not load: {type(error).__name__}: {error}") from error
    if not callable(verifier):
        raise VerifierError(
            f"verifier '{spec.reference}' must be callable; it is of the type {type(verifier).__name__}"
        )
    try:
        inspect.signature(verifier).bind(None, "")
    except TypeError as error:
        raise VerifierError(f"verifier '{spec.reference}' must take (problem, response): {error}") from error
    try:
        getattr(verifier, "prepare", lambda: None)()
    except RunError as error:
        raise VerifierError(f"verifier '{spec.reference}': {error}") from error
    return judge_of(verifier, getattr(verifier, "right_at", spec.right_at) if given is None else given)


def _load_part(table: str, part: Any, place: str) -> Any:
    """A component inside the options of a verifier; one that is ready already stays."""
    if callable(part) or isinstance(part, Judge):
        return part
    tree = {"kind": part} if isinstance(part, str) else dict(part)
    kind = str(tree.pop("kind"))
    try:
        return load(VerifierSpec(kind, tree)) if table == "verifier" else registry.build(table, kind, tree)
    except (VerifierError, registry.UnknownComponent) as error:
        raise VerifierError(f"{place}: {error}") from error


def judge_of(verifier: Callable[..., Any], right_at: float | None = None) -> Judge:
    """A verifier that is ready for use; ``right_at`` is its own where none is given."""
    if isinstance(verifier, Judge):
        return verifier
    form: Form = "single"
    if getattr(verifier, "batched", False):
        form = "batch"
    elif any(map(inspect.iscoroutinefunction, (verifier, getattr(verifier, "__call__", None)))):  # noqa: B004
        waits = not getattr(verifier, "follows_parts", False) or bool(_waiting(verifier))
        form = "async" if waits else "parts"
    return Judge(verifier, float(getattr(verifier, "right_at", 1.0) if right_at is None else right_at), form)


def _waiting(verifier: Any) -> list[Judge]:
    """The async ones of the verifiers a verifier is made of."""
    judges = [judge_of(part) for part in parts("verifier", type(verifier), vars(verifier))]
    return [judge for judge in judges if judge.form == "async"]


def asked(verifier: Any, problem: Problem, response: str) -> Verdict | None:
    """What a verifier says, in this process; None where it says that this is none of its problems.

    Whatever it raises is a verdict with the status ``error``, but for MemoryError, which ends the worker.
    """
    return of_judgement(judge_of(verifier).single(problem, response))


def of_judgement(judgement: Judgement) -> Verdict | None:
    """The verdict a judgement stands for; None for `NOT_MINE`. Raises MemoryError for `OUT_OF_MEMORY`."""
    if judgement is OUT_OF_MEMORY:
        raise MemoryError
    if judgement is NOT_MINE:
        return None
    status, value, answer, reason, by = judgement
    return Verdict(status, value, answer, reason, by=by)


@dataclass(frozen=True)
class Judge:
    """A verifier that is loaded, and how it is called."""

    verifier: Callable[..., Any]
    right_at: float
    form: Form

    @property
    def concurrent(self) -> int:
        """Responses of an async verifier that may be under way at once: as many as each of its async parts bears."""
        own = max(1, int(getattr(self.verifier, "concurrency", CONCURRENT)))
        if not getattr(self.verifier, "follows_parts", False):
            return own
        return min([own, *(judge.concurrent for judge in _waiting(self.verifier))])

    def single(self, problem: Problem, response: str) -> Judgement:
        """One response, by a verifier of any form."""
        try:
            if self.form == "batch":
                (result,) = _of_batch(self.verifier([problem], [response]), 1)
            elif self.form == "parts":
                result = at_once(self.verifier(problem, response))
            else:
                result = settled(self.verifier(problem, response))
            return self._checked(result)
        except BaseException as error:  # Whatever it raises, sys.exit() too, is the verifier's failure, not ours.
            return failed(error)

    async def later(self, problem: Problem, response: str) -> Judgement:
        """One response, by a verifier that is async or made of others."""
        try:
            return self._checked(await self.verifier(problem, response))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # As above.
            return failed(error)

    def batch(self, requests: Sequence[Request]) -> list[Judgement] | None:
        """Several responses, by a batched verifier; None where it failed as a whole, and nobody knows over which."""
        try:
            problems, responses = [one.problem for one in requests], [one.response for one in requests]
            results = _of_batch(self.verifier(problems, responses), len(requests))
        except MemoryError:
            raise
        except BaseException:  # As above; asked one by one, the response it is about gets it as its reason.
            return None
        return [self._checked_alone(result) for result in results]

    def _checked_alone(self, result: object) -> Judgement:
        try:
            return self._checked(result)
        except Exception as error:  # Numbers of the user's own may raise anything when they are compared.
            return failed(error)

    def _checked(self, result: object) -> Judgement:
        """The judgement a verifier's return value stands for; an ``error`` where it keeps to no contract."""
        if result is NotImplemented:
            return NOT_MINE
        if isinstance(result, Verdict):
            return _of_verdict(result)
        if not isinstance(result, numbers.Real) and hasattr(result, "item"):
            result = result.item()  # A number of numpy or torch.
        if isinstance(result, numbers.Real):
            return _with_value(result, "right" if float(result) >= self.right_at else "wrong")
        return no_judgement(f"the verifier returned a {type(result).__name__}, not a Verdict, a number or a bool")


def _of_verdict(verdict: Verdict) -> Judgement:
    if verdict.status not in STATUSES:
        return no_judgement(f"the verifier returned the status {verdict.status!r}; known: {', '.join(STATUSES)}")
    if not all(text is None or isinstance(text, str) for text in (verdict.answer, verdict.reason, verdict.by)):
        return no_judgement("the verifier returned an answer, a reason or a part that is not a string")
    reason = None if verdict.reason is None else verdict.reason[:REASON_CHARACTERS]
    if verdict.status in UNJUDGED:
        return verdict.status, None, verdict.answer, reason, verdict.by
    value = verdict.status == "right" if verdict.value is None else verdict.value
    return _with_value(value, verdict.status, verdict.answer, reason, verdict.by)


def _with_value(
    value: object, status: Status, answer: str | None = None, reason: str | None = None, by: str | None = None
) -> Judgement:
    if isinstance(value, numbers.Real) and 0.0 <= float(value) <= 1.0:
        return status, float(value), answer, reason, by
    return no_judgement(f"the verifier returned the value {value!r}, not a number from 0 to 1")


def failed(error: BaseException) -> Judgement:
    """What an exception of a verifier stands for."""
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY
    return no_judgement("".join(traceback.format_exception_only(error)).strip())


def no_judgement(reason: str) -> Judgement:
    return "error", None, None, reason[:REASON_CHARACTERS], None


def _of_batch(results: Any, wanted: int) -> list[object]:
    """The results of a batch; raises ValueError where they are not one for each response."""
    results = settled(results)
    if isinstance(results, str | bytes | Mapping) or not isinstance(results, Iterable):
        raise ValueError(f"a batched verifier returned a {type(results).__name__}, not a list of verdicts")
    if len(listed := list(results)) != wanted:
        raise ValueError(f"a batched verifier returned {len(listed)} verdicts for {wanted} responses")
    return listed
