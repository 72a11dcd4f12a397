"""Where the settings of sampling come from: the config or the model's own generation config, never silently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from selftrain.planning.settings import NUMBERS, POLICY, asked_with
from selftrain.schema import RunConfig
from selftrain.session import Session


def said(session: Session) -> Iterator[str]:
    """A line for each place of the config whose model recommends settings, taken or not."""
    for where, (sampling, model) in asked_with(session.config).items():
        named = session.model_values(model)
        whose = f"the generation_config of {session.model_name(model)}"
        taken = {name: value for name, value in named.items() if name in NUMBERS}
        left = {name: value for name, value in named.items() if name not in NUMBERS}
        if sampling.values == "model":
            rest = f"; {_listed(left)} of it cannot be set here" if left else ""
            yield f"{where}: {_listed(taken)}, from {whose}{rest}"
        elif other := {name: value for name, value in taken.items() if getattr(sampling, name) != value}:
            chosen = {name: getattr(sampling, name) for name in other}
            yield (
                f"{where}: {_listed(chosen)} by this config, where {whose} recommends {_listed(other)}; "
                f"{where}.values=model takes the model's"
            )


def with_numbers(config: RunConfig) -> RunConfig:
    """The config with numbers in place of ``values: model``, where it is the policy that is asked."""
    from selftrain.models.checkpoint import generation_values

    found = generation_values(config.model.path) if config.model.path else {}
    numbers: dict[str, Any] = {name: value for name, value in found.items() if name in NUMBERS} | {"values": "config"}
    grow = {
        name: replace(step, **numbers) if step.values == "model" and step.model == POLICY else step
        for name, step in config.grow.items()
    }
    own = config.evaluate.sampling
    sampling = replace(own, **numbers) if own is not None and own.values == "model" else own
    return replace(config, grow=grow, evaluate=replace(config.evaluate, sampling=sampling))


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())
