"""Gold answers that a verifier cannot read, found before anything is judged.

A verifier says by ``check_gold(answer)`` why it cannot read one. One made of others says by ``golds``, "all" or "any",
how many of its parts must; a part without ``check_gold`` reads whatever there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from selftrain import registry
from selftrain.judging import VerifierSpec, resolve_now
from selftrain.nested import parts
from selftrain.types import Problem

Check = Callable[[Any], str | None]
"""From a gold answer to why it cannot be read."""


def unread(spec: VerifierSpec, problems: Iterable[Problem]) -> list[tuple[str, str]]:
    """Ids of the problems whose gold answer the verifier cannot read, and why; none where it reads any."""
    check = _check(spec.reference, spec.options)
    return [] if check is None else [(one.id, str(why)) for one in problems if (why := check(one.answer))]


def _check(reference: str, options: Mapping[str, Any]) -> Check | None:
    """None where it reads any. No other verifier is loaded: what they need may be there in worker processes alone."""
    component = registry.resolve("verifier", reference)
    if hasattr(component, "check_gold"):
        check: Check = resolve_now(VerifierSpec(reference, options)).check_gold
        return check
    needed = getattr(component, "golds", None)
    if needed is None:
        return None
    checks = [_of_part(part) for part in parts("verifier", component, options)]
    return _each(checks) if needed == "all" else _one(checks)


def _of_part(part: Any) -> Check | None:
    tree = {"kind": part} if isinstance(part, str) else dict(part)
    return _check(str(tree.pop("kind")), tree)


def _each(checks: list[Check | None]) -> Check | None:
    known = [check for check in checks if check is not None]
    return (lambda answer: next(filter(None, (check(answer) for check in known)), None)) if known else None


def _one(checks: list[Check | None]) -> Check | None:
    known = [check for check in checks if check is not None]
    if not known or len(known) < len(checks):
        return None

    def check(answer: Any) -> str | None:
        whys = [check(answer) for check in known]
        return whys[0] if all(whys) else None

    return check
