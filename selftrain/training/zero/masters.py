"""The fp32 parameters and Adam's moments that DeepSpeed's ZeRO optimizers keep in parts: whole tensors out and in.

ZeRO-1 and ZeRO-2 divide one flat tensor of all parameters, ZeRO-3 each parameter. All functions are collective.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from selftrain.training import state

Parameters = Mapping[str, torch.nn.Parameter]


def tensors(engine: Any, parameters: Parameters, kinds: Sequence[str]) -> Iterator[tuple[str, str, Tensor]]:
    """Kind, name and value of each, whole on every rank; no moments before the first step."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    begun = bool(engine.basic_optimizer.state)
    _link_moments(engine.optimizer)
    for name, parameter in parameters.items():
        for kind in kinds:
            if kind in state.WEIGHTS:
                yield kind, name, safe_get_full_fp32_param(parameter)
            elif begun:
                yield kind, name, safe_get_full_optimizer_state(parameter, kind)


def put(engine: Any, parameters: Parameters, value: Callable[[str], Tensor]) -> None:
    """Give every parameter its value, by name, in fp32 and in what is computed with."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

    for name, parameter in parameters.items():
        whole = value(name)
        if _divided(parameter):
            safe_set_local_fp32_param(parameter, _part(parameter, whole))
        else:
            safe_set_full_fp32_param(parameter, whole)
    _compute_with_them(engine.optimizer)


def put_moments(engine: Any, parameters: Parameters, value: Callable[[str, str], Tensor], steps: int) -> None:
    """Give every parameter its moments, by kind and name, after so many steps."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    forget_moments(engine)
    for flat in flats(engine.optimizer):
        # The fused optimizer counts steps in a tensor beside the parameter.
        moments = {kind: torch.zeros_like(flat) for kind in state.MOMENTS}
        engine.basic_optimizer.state[flat] = {"step": torch.tensor(float(steps), device=flat.device), **moments}
    _link_moments(engine.optimizer)
    for name, parameter in parameters.items():
        for kind in state.MOMENTS:
            if _divided(parameter):
                safe_set_local_optimizer_state(parameter, _part(parameter, value(kind, name)), kind)
            else:
                safe_set_full_optimizer_state(parameter, value(kind, name), kind)


def forget_moments(engine: Any) -> None:
    """As before the first step."""
    engine.basic_optimizer.state.clear()


def _link_moments(optimizer: Any) -> None:
    """Tell DeepSpeed where the moments are: it looks once, when only those of the first parameter group are there."""
    if hasattr(optimizer, "_hp_optimizer_states_linked"):
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()


def flats(optimizer: Any) -> list[Tensor]:
    """This rank's flat fp32 tensors, those that Adam steps."""
    names = ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups", "fp32_groups_flat_partition")
    found: list[Tensor] = next(getattr(optimizer, name) for name in names if hasattr(optimizer, name))
    return found


def _divided(parameter: torch.nn.Parameter) -> bool:
    """Whether ZeRO-3 holds it."""
    return hasattr(parameter, "ds_tensor")


def _part(parameter: Any, whole: Tensor) -> Tensor:
    """This rank's part of a parameter that ZeRO-3 holds, the last one filled up with zeros."""
    size = parameter.ds_tensor.numel()
    part = whole.flatten()[size * distributed.get_rank() :][:size]
    return torch.nn.functional.pad(part, (0, size - len(part)))


def _compute_with_them(optimizer: Any) -> None:
    """Copy the fp32 parameters into those that forward passes read, as the end of a step does."""
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        optimizer._partition_all_parameters()
        for group in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        optimizer._post_step(set())
    else:
        optimizer.update_lp_params()
