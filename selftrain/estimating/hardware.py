"""What a GPU can do, from its maker's data sheets, and what of that training and sampling reach."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from selftrain.config import ConfigError
from selftrain.ranges import Count, Positive, Share, violations
from selftrain.registry import nearest


@dataclass(frozen=True)
class Hardware:
    """One GPU, and the network around it."""

    flops: Positive
    """Dense bf16 operations per second."""
    memory: Positive
    """Bytes."""
    bandwidth: Positive
    """Bytes per second of its memory."""
    link: Positive = 450e9
    """Bytes per second, each way, to another GPU of its node."""
    network: Positive = 50e9
    """Bytes per second, each way, to another node, for each GPU."""
    per_node: Count = 8
    """GPUs of a node."""
    utilisation: Share = 0.4
    """Of ``flops``, what a fit reaches."""
    bandwidth_share: Share = 0.6
    """Of ``bandwidth``, what sampling reaches."""


PROFILES = {
    "A100-40GB": Hardware(312e12, 40e9, 1.555e12, link=300e9, network=25e9),
    "A100": Hardware(312e12, 80e9, 2.039e12, link=300e9, network=25e9),
    "H100": Hardware(989e12, 80e9, 3.35e12),
    "H200": Hardware(989e12, 141e9, 4.8e12),
    "B200": Hardware(2250e12, 180e9, 7.7e12, link=900e9),
    "L40S": Hardware(362e12, 48e9, 0.864e12, link=32e9, network=25e9),
    "RTX4090": Hardware(165e12, 24e9, 1.008e12, link=32e9, network=3e9),
}
"""SXM where there is one."""


def hardware(place: str) -> Hardware:
    """A profile by its name, or from a YAML file with the fields of `Hardware`.

    Raises:
        ConfigError: it is neither.
    """
    if place in PROFILES:
        return PROFILES[place]
    path = Path(place)
    if not path.is_file():
        raise ConfigError(f"--hardware {place}: no such file, and no profile ({nearest(place, PROFILES)})")
    found = yaml.safe_load(path.read_text())
    return _read(found, place)


def _read(found: Any, place: str) -> Hardware:
    names = [field.name for field in fields(Hardware)]
    needed = {"flops", "memory", "bandwidth"}
    if not isinstance(found, dict) or not needed <= found.keys() or not found.keys() <= set(names):
        raise ConfigError(
            f"--hardware {place}: a mapping with {', '.join(sorted(needed))}, and any of {', '.join(names)}"
        )
    try:
        profile = Hardware(**{name: _number(name, value) for name, value in found.items()})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--hardware {place}: {error}") from error
    for name, complaint in violations(profile):
        raise ConfigError(f"--hardware {place}: {name} {complaint}")
    return profile


def _number(name: str, value: Any) -> Any:
    return int(value) if name == "per_node" else float(value)
