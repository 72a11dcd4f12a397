"""What a fit computes with (`selftrain.schema.Kernels`): put into a model that is loaded.

Results differ by rounding alone.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from selftrain.models import attention
from selftrain.models.logprobs import scaled_head
from selftrain.models.options import lacking
from selftrain.schema import Kernels
from selftrain.training.learnt import Learnt, ValueLearner

MODULES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
HOPPER = 9
"""Major compute capability of the cards that FlashAttention-3 is written for."""


def use(learnt: Learnt, kernels: Kernels, compute: torch.dtype, *, packed: bool) -> None:
    """Make a model ready to be fitted.

    Args:
        compute: type of the computation.
        packed: whether several sequences are to lie in one row.

    Raises:
        ValueError: what is asked for cannot be had here, or not with this model; or it does not keep packed sequences
            apart.
    """
    use_attention(learnt, kernels.attention, compute, packed)
    if kernels.loss == "cut_cross_entropy" and not isinstance(learnt, ValueLearner):
        _check("loss", kernels.loss, compute)
        if scaled_head(learnt.backbone):
            raise ValueError(
                f"launch.kernels.loss: cut_cross_entropy knows no head as {_name(learnt)} has; use chunked"
            )
        learnt.cut = True
    if kernels.compile:
        compile_layers(learnt.backbone)


def use_attention(learnt: Learnt, asked: str, compute: torch.dtype, packed: bool) -> None:
    """Of ``auto``, the first implementation that this machine and this model have. Rows that are not packed need none
    but ``sdpa``, which takes flash kernels where there is no mask."""
    automatic = candidates(learnt.backbone, compute) if packed else ["sdpa"]
    names = automatic if asked == "auto" else [asked]
    for name in names:
        try:
            if name != attention.in_use(learnt.backbone):
                if asked != "auto":
                    _fits(learnt, name, compute)
                attention.use(learnt.backbone, name)
            if packed:
                learnt.check_packing()
        except (ValueError, ImportError, RuntimeError):  # Kernels refuse shapes and cards they do not know.
            if name == names[-1]:
                raise
        else:
            return


def candidates(model: Any, compute: torch.dtype) -> list[str]:
    """Implementations to try, the fastest first; ``sdpa`` comes last and on a CPU it is all, so that its results stay
    what they are."""
    if model.device.type != "cuda":
        return ["sdpa"]
    found = [name for name in ("flash_attention_3", "flash_attention_2") if _flash_here(name, model, compute)]
    return [*found, *([attention.VARLEN] if attention.suits_varlen(model) else []), "sdpa"]


def _flash_here(name: str, model: Any, compute: torch.dtype) -> bool:
    if compute not in attention.HALF or not model._supports_flash_attn or lacking(name):
        return False
    if name == "flash_attention_3" and torch.cuda.get_device_capability(model.device)[0] != HOPPER:
        return False
    try:
        importlib.import_module(MODULES[name])
    except ImportError:  # Built for another PyTorch.
        return False
    return True


def _fits(learnt: Learnt, name: str, compute: torch.dtype) -> None:
    """Raises ValueError where an implementation that is asked for cannot be had."""
    if name in attention.FLASH:
        _check("attention", name, compute)
    if name == attention.VARLEN and not attention.suits_varlen(learnt.backbone):
        raise ValueError(f"launch.kernels.attention: varlen is not what {_name(learnt)} computes; use sdpa")


def _check(key: str, name: str, compute: torch.dtype) -> None:
    if (reason := lacking(name)) is not None:
        raise ValueError(f"launch.kernels.{key}: {name} cannot be had: {reason}")
    if compute not in attention.HALF:
        raise ValueError(f"launch.kernels.{key}: {name} computes in bfloat16; set optim.dtype to it")


def compile_layers(model: Any) -> None:
    """Compile the layers of a model one by one: they are alike, so that the first stands for all, and gradient
    checkpointing stays around each."""
    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(f"launch.kernels.compile: {type(model).__name__} has no layers it knows; leave it out")
    for layer in layers:
        layer.compile()


def _name(learnt: Learnt) -> str:
    return type(learnt.backbone).__name__
