"""What DeepSpeed is told: the user's own JSON, and over it what a fit promises."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from selftrain.registry import nearest
from selftrain.schema import Optim, Trainer

FREE = (
    "comms_logger",
    "communication_data_type",
    "csv_monitor",
    "disable_allgather",
    "disable_python_gc",
    "dump_state",
    "flops_profiler",
    "log_level",
    "memory_breakdown",
    "seq_parallel_communication_data_type",
    "steps_per_print",
    "tensorboard",
    "timers",
    "wall_clock_breakdown",
    "wandb",
)
"""Keys that are the user's: they change place, speed or what is told."""
FREE_ZERO = (
    "allgather_bucket_size",
    "allgather_partitions",
    "contiguous_gradients",
    "leaf_module",
    "log_trace_cache_warnings",
    "max_live_parameters",
    "max_reuse_distance",
    "model_persistence_threshold",
    "module_granularity_threshold",
    "overlap_comm",
    "param_persistence_threshold",
    "prefetch_bucket_size",
    "reduce_bucket_size",
    "round_robin_gradients",
    "stage3_max_live_parameters",
    "stage3_max_reuse_distance",
    "stage3_model_persistence_threshold",
    "stage3_module_granularity_threshold",
    "stage3_param_persistence_threshold",
    "stage3_prefetch_bucket_size",
    "sub_group_size",
    "use_multi_rank_bucket_allreduce",
)
FREE_OFFLOAD = ("buffer_count", "buffer_size", "max_in_cpu", "pin_memory")
OURS = (
    "amp",
    "bf16",
    "data_types",
    "fp16",
    "gradient_accumulation_steps",
    "gradient_allreduce_op",
    "gradient_clipping",
    "gradient_predivide_factor",
    "managed_gradient_accumulation",
    "optimizer",
    "prescale_gradients",
    "scheduler",
    "sequence_parallel_size",
    "torch_autocast",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
)
"""Keys that a promise depends on: the learner's ``optim`` and ``launch.train`` say what holds."""
OURS_ZERO = (
    "gather_16bit_weights_on_model_save",
    "load_from_fp32_weights",
    "reduce_scatter",
    "stage",
    "stage3_gather_16bit_weights_on_model_save",
)
AUTO = "auto"
ZERO, OFFLOADS = "zero_optimization", ("offload_optimizer", "offload_param")


def read(path: str | None) -> dict[str, Any]:
    """The user's JSON; empty where there is none.

    Raises:
        OSError: there is no such file.
        ValueError: it is no JSON object, or holds a key that DeepSpeed does not know or that is not supported here.
    """
    if path is None:
        return {}
    try:
        found = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object")
    _check_keys(found, "", (*FREE, *OURS, ZERO), path)
    zero = found.get(ZERO, {})
    _check_keys(zero, f"{ZERO}.", (*FREE_ZERO, *OURS_ZERO, *OFFLOADS), path)
    for name in OFFLOADS:
        _check_keys(zero.get(name, {}), f"{ZERO}.{name}.", (*FREE_OFFLOAD, "device"), path)
    return found


def _check_keys(tree: Any, place: str, known: Collection[str], path: str) -> None:
    if not isinstance(tree, Mapping):
        raise ValueError(f"{path}: {place.removesuffix('.')} is no JSON object")
    for key in tree:
        if key not in known:
            raise ValueError(f"{path}: '{place}{key}' is no key that can be set here ({nearest(key, known)})")
        if tree[key] == AUTO and key not in (*OURS, *OURS_ZERO):
            raise ValueError(f"{path}: '{place}{key}' is 'auto', which transformers' Trainer alone fills in; remove it")


def merged(user: Mapping[str, Any], trainer: Trainer, optim: Optim, *, bf16: bool) -> tuple[dict[str, Any], list[str]]:
    """What DeepSpeed is told, and which of the user's keys something else holds for.

    Args:
        user: as `read` gives it.
        bf16: whether it computes in bf16.
    """
    ours = _ours(trainer, optim, bf16)
    config = _over({key: value for key, value in user.items() if key in (*FREE, ZERO)}, ours)
    given = dict(_leaves(user))
    used = dict(_leaves(config))
    return config, sorted(key for key, value in given.items() if used.get(key) != value)


def _ours(trainer: Trainer, optim: Optim, bf16: bool) -> dict[str, Any]:
    places = {"none": (), "optimizer": OFFLOADS[:1], "parameters": OFFLOADS}[trainer.offload]
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # The caller says where a step ends.
        "gradient_clipping": optim.clip,
        "bf16": {"enabled": bf16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_force_ds_cpu_optimizer": False,
        ZERO: {
            "stage": trainer.zero,
            "reduce_scatter": True,  # Without it ZeRO-3 makes other means of gradients.
            **{name: {"device": "cpu" if name in places else "none"} for name in OFFLOADS},
        },
    }


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            both[key] = _over(below[key], above[key])
    return both


def _leaves(tree: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{place}{key}.")
        else:
            yield place + key, value
