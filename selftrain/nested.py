"""Components inside the options of a component, marked in the type of the field.

``verifier: VerifierPart`` holds one component, ``verifiers: VerifierParts`` a mapping of names to components,
``RewardPart`` a reward source, and ``FunctionPart`` a function of the user's that is no verifier. A config holds them
as ``{kind: NAME, ...options}`` or just ``NAME``; the component gets them ready for use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints


@dataclass(frozen=True)
class Nested:
    """What a field holds: components of a table, one or several by name."""

    table: str
    several: bool = False


VerifierPart = Annotated[Any, Nested("verifier")]
VerifierParts = Annotated[dict[str, Any], Nested("verifier", several=True)]
RewardPart = Annotated[Any, Nested("reward")]
FunctionPart = Annotated[Any, Nested("function")]


def changed(schema: type | None, options: Mapping[str, Any], change: Callable[[str, Any, str], Any]) -> dict[str, Any]:
    """Options with ``change(table, component, place)`` for every component directly inside; nulls are none."""
    result = dict(options)
    for name, marker in _marked(schema).items():
        value = result.get(name)
        if marker.several and isinstance(value, Mapping):
            parts = {part: own for part, own in value.items() if own is not None}
            result[name] = {part: change(marker.table, own, f"{name}.{part}") for part, own in parts.items()}
        elif not marker.several and value is not None:
            result[name] = change(marker.table, value, name)
    return result


def parts(table: str, schema: type | None, options: Mapping[str, Any]) -> list[Any]:
    """The components of a table directly inside options, in order."""
    found: list[Any] = []
    changed(schema, options, lambda kind, part, place: found.append(part) if kind == table else None)
    return found


def in_words(component: Mapping[str, Any]) -> str:
    """The tree of a component in words, with those inside its options: ``any (numeric_answer, exact_answer)``."""
    inside = [
        in_words(part)
        for option in component.values()
        if isinstance(option, Mapping)
        for part in ([option] if "kind" in option else option.values())
        if isinstance(part, Mapping) and "kind" in part
    ]
    return f"{component['kind']} ({', '.join(inside)})" if inside else str(component["kind"])


def _marked(schema: type | None) -> dict[str, Nested]:
    if schema is None or not dataclasses.is_dataclass(schema):
        return {}
    hints = get_type_hints(schema, include_extras=True)
    found = {one.name: _marker(hints[one.name]) for one in dataclasses.fields(schema)}
    return {name: marker for name, marker in found.items() if marker is not None}


def _marker(hint: Any) -> Nested | None:
    """That of a field, also where it stands inside ``| None``."""
    own = [part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Nested)]
    return own[0] if own else next(filter(None, map(_marker, get_args(hint))), None)
