"""What can be known to be wrong with adapters before any weights are loaded."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from selftrain.config import ConfigError
from selftrain.models import adapters
from selftrain.planning.settings import objective_needs
from selftrain.schema import Lora, RunConfig


def check_lora(config: RunConfig, model_config: Callable[[], Any]) -> None:
    """Raises ConfigError: PEFT is missing, a target names no layer, or an adapter would be continued by another."""
    wanted = {f"warmup.{name}.lora": fit.lora for name, fit in config.warmup.items() if fit.lora}
    wanted |= {f"learners.{name}.lora": fit.lora for name, fit in config.learners.items() if fit.lora}
    start = adapters.settings_of(config.model.path) if config.model.path else None
    if (wanted or start) and find_spec("peft") is None:
        raise ConfigError(
            f"{next(iter(wanted), 'model.path')}: adapters need PEFT; install it with: pip install 'selftrain[lora]'"
        )
    if not wanted:
        return
    for name, learner in config.learners.items():
        if learner.lora and learner.lora.dropout and "old" in objective_needs(learner.objective):
            raise ConfigError(
                f"learners.{name}.lora.dropout: {learner.objective.kind} compares the weights with themselves, and "
                "dropout makes every ratio noise; set it to 0"
            )
    layers = adapters.linear_layers(adapters.skeleton(model_config()))
    for place, lora in wanted.items():
        try:
            adapters.check_targets(layers, lora.targets)
        except ValueError as error:
            raise ConfigError(f"{place}.targets: {error}") from error
    if start is not None:
        _check_start(config, layers, start)
    for name, warmup in config.warmup.items():
        after = config.learners[name].lora
        if warmup.lora and after and _shape(warmup.lora, layers) != _shape(after, layers):
            raise ConfigError(
                f"learners.{name}.lora: goes on with the adapter of warmup.{name}.lora, so r, alpha and targets must "
                "be the same; write the same there, or warm up without lora"
            )


def _check_start(config: RunConfig, layers: list[str], start: dict[str, Any]) -> None:
    """Adapters that are continued from the one in ``model.path``."""
    targets = start.get("target_modules") or ()
    chosen = adapters.adapted_layers(layers, [targets] if isinstance(targets, str) else targets)
    shape = (start.get("r"), start.get("lora_alpha"), frozenset(chosen))
    first: dict[str, tuple[str, Lora | None]] = {
        **{name: (f"learners.{name}.lora", learner.lora) for name, learner in config.learners.items()},
        **{name: (f"warmup.{name}.lora", warmup.lora) for name, warmup in config.warmup.items()},
    }
    for place, fitted in first.values():
        if fitted and _shape(fitted, layers) != shape:
            raise ConfigError(
                f"{place}: goes on with the adapter in model.path, so r ({shape[0]}), alpha ({shape[1]}) and targets "
                "must be its own; write those, or export it first and start from the merged checkpoint"
            )


def _shape(lora: Lora, layers: list[str]) -> tuple[int, int, frozenset[str]]:
    return lora.r, lora.alpha, frozenset(adapters.adapted_layers(layers, lora.targets))
