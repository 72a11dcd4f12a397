"""What the head of a value model is and where it is read, as its folder says; read without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

WEIGHTS, SETTINGS = "value_head.safetensors", "value_head.json"
Head = Literal["linear", "mlp"]
Normaliser = Literal["sigmoid", "tanh"]
Read = Literal["step", "last"]


@dataclass(frozen=True)
class HeadForm:
    """What a head is, and where it is read."""

    head: Head = "linear"
    """mlp: two layers with a ReLU between them, as Qwen2.5-Math-PRM has."""
    normaliser: Normaliser = "sigmoid"
    """From the head's output to a value."""
    read: Read = "step"
    """step: at the last token of every step; last: at the last token of the response."""
    separator: str = "\n"
    """What ends a step."""


def has_value_head(path: Path | str) -> bool:
    """Whether a folder holds a value model saved here."""
    return (Path(path) / WEIGHTS).exists()


def read_form(path: Path | str) -> HeadForm:
    """The form of the value model in a folder.

    Raises:
        ValueError: its settings are not those of a value head.
    """
    file = Path(path) / SETTINGS
    try:
        told = json.loads(file.read_text())
        return HeadForm(**{field.name: told[field.name] for field in fields(HeadForm)})
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{file}: these are no settings of a value head: {type(error).__name__}: {error}") from error
