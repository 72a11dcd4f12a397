"""What is wrong with where a run is to happen: replicas, processes that score, their GPUs, interpreters of stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from selftrain import machine
from selftrain.checks.here import Lacks, check_one_gpu_each, refuse
from selftrain.checks.writers import samplers, teacher_config
from selftrain.config import ConfigError, instantiate
from selftrain.planning.interpreters import STAGES, unfit
from selftrain.planning.replicas import replicas, seats
from selftrain.planning.settings import POLICY, sampler_of
from selftrain.planning.writers import remote
from selftrain.registry import nearest
from selftrain.schema import RunConfig


def check_replicas(config: RunConfig, lacks: Lacks = refuse) -> None:
    """Samplers that share their work, and processes that score, on devices that are there."""
    launch = config.launch
    if launch.keep == "run" and launch.place == "processes":
        raise ConfigError(
            "launch.keep: with launch.place: processes a stage ends with all it holds; set it to stage, "
            "or launch.place to inline"
        )
    if launch.sample.sleep and not machine.gpus():
        lacks(
            "launch.sample.sleep: an engine gives up the memory of a GPU, and there is none here: remove it (without a "
            "GPU an engine that is kept stays awake)"
        )
    if launch.sample.sleep and launch.keep != "run":
        raise ConfigError(
            f"launch.sample.sleep: with launch.keep: {launch.keep} engines end before a fit, and none sleeps; set "
            "launch.keep to run, or remove it"
        )
    if launch.place == "ray":  # The devices are elsewhere (`selftrain.checks.placing`).
        return
    check_one_gpu_each("launch.score_processes", launch.score_processes, lacks)
    for where, component in samplers(config).items():
        if remote(component):
            continue
        options = instantiate("sampler", component)
        if replicas(options, launch) == 1:
            _check_one(where, options, launch.sample.replicas, lacks)
            continue
        if str(getattr(options, "device", "auto")).startswith("cuda"):
            raise ConfigError(
                f"{where}.device: {options.device} is one GPU, which several replicas cannot share; leave device at "
                "auto, or set launch.sample.replicas to 1"
            )
        try:
            seats(options, launch)
        except ValueError as error:
            lacks(f"launch.sample.replicas: {error}; lower it, or {where}.tensor_parallel_size")


def laid_out(config: RunConfig) -> Iterator[str]:
    """A line of the plan that says what several processes do, where several do."""
    sample, train = config.launch.sample, config.launch.train
    told = [f"{sample.replicas} engines draw"] if (sample.replicas or 1) > 1 else []
    if train.engine == "deepspeed":
        shared = f", {train.sequence_parallel} to a sequence" if train.sequence_parallel > 1 else ""
        told.append(f"{train.processes} processes of DeepSpeed fit, ZeRO-{train.zero}{shared}")
    if told:
        yield f"launch: {'; '.join(told)}"


def _check_one(where: str, options: Any, asked: int | None, lacks: Lacks) -> None:
    each, there = getattr(options, "gpus", 0), len(machine.gpus())
    if asked not in (None, 1):
        raise ConfigError(
            f"launch.sample.replicas: {where} is no sampler that can share its work (it has no units); set it to 1"
        )
    if there and each > there:
        lacks(f"{where}.tensor_parallel_size: an engine needs {each} GPUs, and there are {there}; lower it")


def check_heads_divide(config: RunConfig, policy: Callable[[], Any]) -> None:
    """Whether tensor parallelism can divide the attention heads of who answers.

    Args:
        policy: gives its transformers config.
    """
    writers = [(f"grow.{name}.sampler", step.sampler, step.model) for name, step in config.grow.items()]
    writers.append(("evaluate.sampler", sampler_of(config), POLICY))
    for where, component, model in writers:
        ranks = int(component.options.get("tensor_parallel_size", 1))
        if ranks == 1 or remote(component):
            continue
        own = (policy() if model == POLICY else teacher_config(model)).get_text_config()
        heads = int(getattr(own, "num_attention_heads", ranks))
        groups = int(getattr(own, "num_key_value_heads", None) or heads)
        if not _divides(ranks, heads, groups):
            fits = ", ".join(str(number) for number in range(1, heads + 1) if _divides(number, heads, groups))
            shared = f" in {groups} groups" if groups != heads else ""
            raise ConfigError(
                f"{where}.tensor_parallel_size: {ranks} does not divide the {heads} attention heads{shared} of "
                f"{config.model.path or 'model.architecture' if model == POLICY else model}; choose one of {fits}"
            )


def _divides(ranks: int, heads: int, groups: int) -> bool:
    """Keys and values of a group are divided, or there once in several ranks."""
    return heads % ranks == 0 and (groups % ranks == 0 or ranks % groups == 0)


def check_interpreters(config: RunConfig, lacks: Lacks = refuse) -> None:
    """Interpreters of stages: asked for in processes, there, and with this version of selftrain."""
    chosen = config.launch.python
    stages = [*STAGES, *(f"{kind}-{name}" for kind in ("warmup", "head", "improve") for name in config.learners)]
    for stage in chosen:
        if stage not in stages:
            raise ConfigError(f"launch.python.{stage}: no such stage ({nearest(stage, stages)})")
    if chosen and config.launch.place != "processes":
        raise ConfigError(
            f"launch.python.{next(iter(chosen))}: a stage of this process runs under its interpreter; set launch.place "
            "to processes"
        )
    told: dict[str, str | None] = {python: unfit(python) for python in dict.fromkeys(chosen.values())}
    for stage, python in chosen.items():
        if (why := told[python]) is not None:
            lacks(f"launch.python.{stage}: {why}")
