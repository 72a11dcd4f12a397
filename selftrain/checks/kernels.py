"""What fits are to compute with, against what this machine has: known before any weights are loaded."""

from __future__ import annotations

from collections.abc import Iterator

from selftrain.checks.here import Lacks, refuse
from selftrain.config import ConfigError
from selftrain.models.options import OPTIONS, lacking
from selftrain.schema import Learner, RunConfig, Warmup

HALF = ("flash_attention_2", "flash_attention_3", "cut_cross_entropy")
"""Options that compute in bfloat16 alone."""


def check_kernels(config: RunConfig, lacks: Lacks = refuse) -> None:
    """Options that cannot be had, or that compute in another type than the fits."""
    for place, name in asked(config):
        if (reason := lacking(name)) is not None:
            lacks(f"{place}: {name} cannot be had: {reason}; `selftrain doctor` shows what can")
        for where, dtype in types(config).items() if name in HALF else ():
            if dtype == "float32":
                raise ConfigError(f"{place}: {name} computes in bfloat16, and {where} is float32; change one of them")


def asked(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Place and name of every option a config asks for."""
    kernels = config.launch.kernels
    chosen = {"attention": kernels.attention, "loss": kernels.loss}
    yield from ((f"launch.kernels.{key}", name) for key, name in chosen.items() if name in OPTIONS)
    if kernels.compile:
        yield "launch.kernels.compile", "compile"
    for place, fitted in fits(config).items():
        if fitted.lora is not None and fitted.lora.base == "nf4":
            yield f"{place}.lora.base", "nf4"


def fits(config: RunConfig) -> dict[str, Learner | Warmup]:
    return {
        **{f"warmup.{name}": fitted for name, fitted in config.warmup.items()},
        **{f"learners.{name}": fitted for name, fitted in config.learners.items()},
    }


def types(config: RunConfig) -> dict[str, str]:
    """The type each fit is to compute in, by its place."""
    return {f"{place}.optim.dtype": fitted.optim.dtype for place, fitted in fits(config).items()}
