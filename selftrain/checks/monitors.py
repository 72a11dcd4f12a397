"""Thresholds of monitors: that there is something to measure, and a place to be."""

from __future__ import annotations

from selftrain.config import ConfigError
from selftrain.monitors.known import KL, KNOWN
from selftrain.planning.settings import of_the_policy
from selftrain.registry import nearest, resolve
from selftrain.rewards.base import verdict_only
from selftrain.schema import RunConfig, Threshold


def check_monitors(config: RunConfig) -> None:
    """Raises ConfigError for a monitor that is not there or not measured, and for bounds that leave nothing out."""
    if config.monitor.kl and not any(step.temperature for step in of_the_policy(config)):
        raise ConfigError(
            "monitor.kl: no step of grow draws from the policy at a temperature above 0, so there is nothing to "
            "estimate it on; set it to false"
        )
    sources = config.reward.sources.values()
    learnt = any(not verdict_only(resolve("reward", one.kind)) for one in sources)
    for name, threshold in config.monitor.thresholds.items():
        where = f"monitor.thresholds.{name}"
        if name not in KNOWN:
            raise ConfigError(f"{where}: no such monitor ({nearest(name, KNOWN)})")
        if name in KL and not config.monitor.kl:
            raise ConfigError(f"{where}: is measured where monitor.kl is true; set it, or remove the threshold")
        if KNOWN[name].of_source and not learnt:
            raise ConfigError(f"{where}: is of reward sources beside the verdict, and there is none; remove it")
        _check_bounds(where, threshold)


def _check_bounds(where: str, threshold: Threshold) -> None:
    bounds = {
        way: [(f"{what}_{way}", getattr(threshold, f"{what}_{way}")) for what in ("warn", "stop")]
        for way in ("below", "above")
    }
    given = {way: [(name, value) for name, value in own if value is not None] for way, own in bounds.items()}
    if not any(given.values()):
        raise ConfigError(f"{where}: sets no bound; set warn_below, warn_above, stop_below or stop_above")
    for low, least in given["below"]:
        for high, most in given["above"]:
            if least > most:
                raise ConfigError(
                    f"{where}: every value is below {low} {least:g} or above {high} {most:g}; set them apart"
                )
