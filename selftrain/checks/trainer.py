"""What can be known to be wrong with ``launch.train``, and what of a DeepSpeed JSON does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from selftrain.checks.here import Lacks, check_one_gpu_each, refuse
from selftrain.checks.kernels import fits
from selftrain.config import ConfigError
from selftrain.planning.fingerprints import AUTO_GPU, dtype
from selftrain.schema import Kernels, Lora, Optim, RunConfig, Trainer
from selftrain.training.zero import settings

WHERE = "launch.train"
STAGES = (1, 2, 3)


def check_trainer(config: RunConfig, model_config: Callable[[], Any], lacks: Lacks = refuse) -> None:
    """Raises ConfigError: DeepSpeed is told what it does not know, or choices do not go together."""
    trainer = config.launch.train
    if trainer.engine == "torch":
        _check_unused(trainer)
        return
    if find_spec("deepspeed") is None:
        lacks(f"{WHERE}.engine: DeepSpeed is not installed; install it with: pip install 'selftrain[deepspeed]'")
    if trainer.zero not in STAGES:
        raise ConfigError(f"{WHERE}.zero: {trainer.zero} is no stage of ZeRO; choose 1, 2 or 3")
    if trainer.offload == "parameters" and trainer.zero != 3:
        raise ConfigError(f"{WHERE}.offload: only ZeRO-3 divides parameters; set {WHERE}.zero to 3")
    if config.launch.place != "ray":  # Else its GPUs are elsewhere (`selftrain.checks.placing`).
        check_one_gpu_each(f"{WHERE}.processes", trainer.processes, lacks)
    _check_kernels(config)
    _check_overlap(trainer, _user(trainer))
    if trainer.sequence_parallel > 1:
        _check_sequences(config, trainer, model_config().get_text_config())


def _check_unused(trainer: Trainer) -> None:
    for name in ("processes", "zero", "offload", "config", "sequence_parallel"):
        if getattr(trainer, name) != getattr(Trainer(), name):
            raise ConfigError(f"{WHERE}.{name}: has no effect with engine: torch; set {WHERE}.engine to deepspeed")


def _check_kernels(config: RunConfig) -> None:
    """Its processes compute with PyTorch's own."""
    if config.launch.kernels != Kernels():
        raise ConfigError(f"launch.kernels: is for {WHERE}.engine: torch; remove it, or choose that engine")
    for place, fitted in fits(config).items():
        if fitted.lora is not None and fitted.lora.base != Lora().base:
            raise ConfigError(f"{place}.lora.base: {fitted.lora.base} is for {WHERE}.engine: torch; remove it")


def _user(trainer: Trainer) -> dict[str, Any]:
    try:
        return settings.read(trainer.config)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{WHERE}.config: {error}") from error


def _check_overlap(trainer: Trainer, user: Mapping[str, Any]) -> None:
    if trainer.zero == 1 and user.get(settings.ZERO, {}).get("overlap_comm"):
        raise ConfigError(
            f"{WHERE}.config: {trainer.config}: ZeRO-1 reduces once a step, with nothing to overlap; remove "
            f"'{settings.ZERO}.overlap_comm', or set {WHERE}.zero to 2"
        )


def _check_sequences(config: RunConfig, trainer: Trainer, model: Any) -> None:
    size, where = trainer.sequence_parallel, f"{WHERE}.sequence_parallel"
    if trainer.processes % size:
        raise ConfigError(
            f"{where}: {size} does not divide {WHERE}.processes ({trainer.processes}); choose one that does"
        )
    heads, shared = model.num_attention_heads, model.num_key_value_heads
    if heads % size or (shared % size and size % shared):
        raise ConfigError(
            f"{where}: {heads} heads of attention, {shared} of keys and values, cannot be dealt out to {size} "
            "processes; choose another"
        )
    if set(getattr(model, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        raise ConfigError(f"{where}: the model has layers whose attention is not over the whole sequence; set it to 1")
    for name, optim in _optims(config).items():
        if trainer.zero == 1 and trainer.offload == "none" and _rounds(optim):
            raise ConfigError(
                f"{WHERE}.zero: 1 takes no norm of gradients in bfloat16 ({name}.dtype) over processes that share a "
                "sequence; set it to 2"
            )
        if optim.batching == "packed":
            raise ConfigError(
                f"{name}.batching: packed sequences cannot be divided among processes; set it to bucketed, or {where} "
                "to 1"
            )


def _optims(config: RunConfig) -> dict[str, Optim]:
    learners = {f"learners.{name}.optim": learner.optim for name, learner in config.learners.items()}
    return {**{f"warmup.{name}.optim": own.optim for name, own in config.warmup.items()}, **learners}


def _rounds(optim: Optim) -> bool:
    return dtype(optim.dtype, "auto") in ("bfloat16", AUTO_GPU)


def overridden(config: RunConfig) -> Iterator[str]:
    """A line that says what of the user's DeepSpeed JSON something else holds for, where there is such."""
    trainer = config.launch.train
    if trainer.engine != "deepspeed" or trainer.config is None:
        return
    user = _user(trainer)
    keys: set[str] = set()
    for optim in _optims(config).values():
        keys |= {*settings.merged(user, trainer, optim, bf16=_rounds(optim))[1]}
    if keys:
        yield f"{WHERE}.config: of {trainer.config}, this config holds instead for {', '.join(sorted(keys))}"
