"""The tree of a config: YAML files that include each other, and ``key=value`` overrides on top."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from selftrain import registry


class ConfigError(ValueError):
    """What is wrong with a config, where, and what to do: one line for the user."""


COMPONENTS = (
    ("grow", "*", "sampler"),
    ("grow", "*", "strategy"),
    ("learner", "objective"),
    ("learners", "*", "objective"),
    ("reward", "sources", "*"),
    ("tasks", "*", "verifier", "..."),
)
"""Where a tree holds components; ``...``: there, and anywhere inside their options."""


def read_tree(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The plain tree of a file with its includes and the overrides applied, unchecked."""
    return apply_overrides(_read_file(path, ()), overrides)


def apply_overrides(tree: Any, overrides: Sequence[str]) -> dict[str, Any]:
    """A plain tree with ``key=value`` on top and its interpolations resolved, unchecked.

    Raises:
        ConfigError: an override is not of this form, or a value is no YAML.
    """
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not re.fullmatch(r"[^.\[\]]+(\.[^.\[\]]+)*", key.strip()):
            raise ConfigError(f"'{override}' is no override; write key=value, such as run.seed=1")
        try:
            above = _plain(OmegaConf.from_dotlist([_with_hashes(override)]))
        except (OmegaConfBaseException, YAMLError) as error:
            raise ConfigError(f"'{override}': {' '.join(str(error).split())}; quote a value with braces") from error
        tree = _laid_over(tree, above)
    try:
        plain = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(first_line(error)) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _with_hashes(override: str) -> str:
    """``key=####`` means these characters; YAML would read a comment."""
    key, _, value = override.partition("=")
    return f"{key}={json.dumps(value)}" if value.lstrip().startswith("#") else override


def _read_file(path: Path, above: tuple[Path, ...]) -> Any:
    """The plain tree of a file on top of those it includes; ``above`` are the files that include it."""
    if not path.is_file():
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; name a config file in it")
        near = registry.nearest(path.name, [p.name for p in path.parent.glob("*.yaml")])
        raise ConfigError(f"no such config file: {path} ({near})")
    if path.resolve() in above:
        raise ConfigError(f"{path} includes itself")
    try:
        tree = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, DictConfig):
        raise ConfigError(f"{path}: a config is a mapping of sections")
    includes = _plain(tree).get("include") or []
    parts = [includes] if isinstance(includes, str) else includes
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(f"{path}: include: expected a file or a list of files, got {includes!r}")
    tree.pop("include", None)
    merged: Any = {}
    for part in parts:
        merged = _laid_over(merged, _read_file(path.parent / part, (*above, path.resolve())))
    return _laid_over(merged, _plain(tree))


def _plain(tree: Any) -> Any:
    return OmegaConf.to_container(tree, resolve=False)


def _laid_over(lower: Any, upper: Any, place: tuple[str, ...] = ()) -> Any:
    """Two plain trees as one: mappings are merged key by key, of anything else the upper one stays.

    Options on top of a component's bare name keep the name: ``NAME`` is ``{kind: NAME}``.
    """
    if isinstance(lower, str) and any(_fits(place, pattern) for pattern in COMPONENTS):
        lower = {"kind": lower}
    if not isinstance(lower, Mapping) or not isinstance(upper, Mapping):
        return upper
    both = {key: _laid_over(lower[key], upper[key], (*place, str(key))) for key in upper if key in lower}
    return {**lower, **upper, **both}


def _fits(place: Sequence[str], pattern: Sequence[str]) -> bool:
    if pattern[-1] == "...":
        pattern = pattern[:-1]
        place = place[: len(pattern)]
    return len(place) == len(pattern) and all(wanted in ("*", key) for key, wanted in zip(place, pattern, strict=True))


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
