"""A component, as configs name it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Component:
    """A component by name, its options checked and complete."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict)
