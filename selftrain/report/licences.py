"""Under which licences the base model and the data of a run stand: what is written somewhere, never a guess."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain import registry
from selftrain.config import ConfigError, instantiate
from selftrain.schema import Component

UNKNOWN = "unknown"
FREE = "none needed"
"""What a task says of problems that are made by a rule."""
CARD = "README.md"
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Licence:
    """A licence, by its identifier on the hub where it has one."""

    name: str
    """``unknown`` where nothing says it."""
    where: str
    """Who says so, or where the data comes from."""
    link: str | None = None
    other: bool = False
    """The hub has no identifier for it, only this name."""


def task_licence(task: Mapping[str, Any]) -> Licence:
    """What a task says of its data, with the options it has in a config."""
    try:
        made = registry.resolve("task", task["kind"])
        names = {field.name for field in dataclasses.fields(made)}
        made = instantiate("task", Component(task["kind"], {key: task[key] for key in names & task.keys()}))
    except (registry.UnknownComponent, ConfigError, TypeError):
        # A task of the user's own, whose file is not here any more.
        return Licence(UNKNOWN, UNKNOWN)
    # What the config or the task says; else what is known of where the task reads its data.
    said = getattr(made, "licence", None) or getattr(made, "known_licence", None)
    return Licence(said or UNKNOWN, getattr(made, "source", None) or UNKNOWN)


def base_licence(path: str, kind: str, online: bool) -> Licence:
    """What the card of a base model says, in its folder or on the hub.

    Args:
        online: fetch the card of a hub model that is not in the cache.
    """
    card = _hub_card(path, online) if kind == "hub" else Path(path).expanduser() / CARD
    if card is None or not card.is_file():
        return Licence(UNKNOWN, "no model card was found")
    return _stated(card, f"{HUB}/{path}/blob/main/" if kind == "hub" else "")


def _stated(card: Path, beside: str) -> Licence:
    """What a card says; ``beside`` is the address of what it links to by name."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        data = ModelCard.load(card).data
    except (ValueError, YAMLError):
        return Licence(UNKNOWN, "its model card cannot be read")
    name, link = data.get("license"), data.get("license_link")
    if not name:
        return Licence(UNKNOWN, "its model card names none")
    if isinstance(name, list):
        return Licence(", ".join(map(str, name)), "its model card")
    if link and "://" not in link:
        link = f"{beside}{link}" if beside else None
    other = name == "other" and data.get("license_name")
    return Licence(str(other or name), "its model card", link, bool(other))


def _hub_card(name: str, online: bool) -> Path | None:
    """The card of a hub model; None where it has none, or cannot be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    from selftrain.models.checkpoint import look_up

    if online:
        look_up(name)
    try:
        return Path(hf_hub_download(name, CARD, local_files_only=not online))
    except (HfHubHTTPError, LocalEntryNotFoundError):
        return None
