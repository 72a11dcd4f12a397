"""LoRA adapters: low-rank additions to the linear layers of a frozen base (Hu et al. 2021, arXiv 2106.09685).

A checkpoint of an adapter holds the additions alone, in PEFT's format, and names the checkpoint they belong to, its
*base*. A base inside the same run is named relative to the adapter, so that the run can be moved.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.registry import nearest

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel

    from selftrain.schema import Lora

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
BASE = "base_model_name_or_path"
ALL = "all-linear"


@dataclass(frozen=True)
class Adapter:
    """An adapter inside a model: PEFT's view of it, and where the base it belongs to lies."""

    wrapper: PeftModel
    base: Path


def settings_of(folder: Path | str) -> dict[str, Any] | None:
    """PEFT's settings of the adapter in a folder; None where there is none."""
    path = Path(folder) / SETTINGS
    return json.loads(path.read_text()) if path.exists() else None


def adapter_base(folder: Path | str) -> Path | None:
    """Folder, or name on the hub, of the checkpoint an adapter belongs to; None where the folder holds no adapter.

    Raises:
        OSError: the base is a folder that is not there.
    """
    settings = settings_of(folder)
    if settings is None:
        return None
    name = settings.get(BASE) or ""
    beside = Path(os.path.normpath(Path(folder) / name))
    if name and beside.exists():
        return beside
    if not name or (name.startswith((".", os.sep)) and not Path(name).exists()):
        raise FileNotFoundError(
            f"the base of the adapter in {folder} is not at '{name}'; put it there, or set {BASE} in its {SETTINGS}"
        )
    return Path(name)


def belongs_to(folder: Path | str, base: Path | str) -> bool:
    """Whether a folder holds an adapter of this checkpoint, however either is named."""
    own = adapter_base(folder)
    return own is not None and (str(own) == str(base) or own.resolve() == Path(base).resolve())


def set_base(folder: Path, base: Path, root: Path) -> None:
    """Name the base of the adapter in a folder: relative to the folder where both lie below ``root``."""
    settings = settings_of(folder) or {}
    whole = Path(os.path.abspath(base))
    if whole.is_relative_to(os.path.abspath(root)):
        name = os.path.relpath(whole, os.path.abspath(folder))
    else:
        name = str(whole) if whole.exists() else str(base)
    (folder / SETTINGS).write_text(json.dumps({**settings, BASE: name}, indent=2, sort_keys=True) + "\n")


def skeleton(config: PretrainedConfig) -> PreTrainedModel:
    """The model of a config without weights, to be asked about its layers."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)  # type: ignore[no-any-return]


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of all linear layers but the output head. GPT-2 calls its own ``Conv1D``."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [
        name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | Conv1D) and layer is not head
    ]


def adapted_layers(layers: Iterable[str], targets: Sequence[str]) -> list[str]:
    """The layers that ``targets`` name by the last parts of their names, or all of them for ``all-linear``."""
    if tuple(targets) == (ALL,):
        return list(layers)
    return [layer for layer in layers if any(_names(target, layer) for target in targets)]


def check_targets(layers: Sequence[str], targets: Sequence[str]) -> None:
    """Raises ValueError where a target names no linear layer."""
    if not targets:
        raise ValueError(f"names no layer; leave it out for {ALL}")
    for target in targets:
        if not adapted_layers(layers, [target]):
            known = sorted({layer.rpartition(".")[2] for layer in layers})
            raise ValueError(
                f"'{target}' names no linear layer below the output head ({nearest(target, [ALL, *known])})"
            )


def _names(target: str, layer: str) -> bool:
    return layer == target or layer.endswith(f".{target}")


def put_on(model: PreTrainedModel, folder: Path | str) -> PeftModel:
    """The adapter of a folder on its base, to be served unmerged, in the base's own type.

    The model itself is changed: its linear layers are now the adapted ones.

    Raises:
        ValueError: the adapter belongs to another architecture.
    """
    return _filled(model, _settings(folder), folder, fp32=False)


@contextmanager
def switched_off(model: PreTrainedModel) -> Iterator[None]:
    """The base of an adapter that `put_on` put on it, for a while."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def trainable(model: PreTrainedModel, lora: Lora, folder: Path | None) -> PeftModel:
    """An adapter in fp32 on a frozen base: that of ``folder``, or a fresh one that changes nothing yet."""
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    if folder is not None:
        settings = _settings(folder)
        settings.lora_dropout, settings.inference_mode = lora.dropout, False
        return _filled(model, settings, folder, fp32=True)
    layers = linear_layers(model)
    check_targets(layers, lora.targets)
    chosen = adapted_layers(layers, lora.targets)
    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=chosen,
        task_type="CAUSAL_LM",
        fan_in_fan_out=isinstance(model.get_submodule(chosen[0]), Conv1D),
    )
    wrapper: Any = get_peft_model(model, settings)
    return wrapper  # type: ignore[no-any-return]


def _settings(folder: Path | str) -> Any:
    from peft import PeftConfig

    settings = PeftConfig.from_pretrained(str(folder))
    settings.base_model_name_or_path = None  # PEFT warns where the model says another name; see `adapter_base`.
    return settings


def _filled(model: PreTrainedModel, settings: Any, folder: Path | str, *, fp32: bool) -> PeftModel:
    from peft import get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    wrapper: Any = get_peft_model(model, settings, autocast_adapter_dtype=fp32)
    result: Any = set_peft_model_state_dict(wrapper, load_file(Path(folder) / WEIGHTS))
    # PEFT leaves what it does not find at its initial values, which change nothing.
    missing = [name for name in result.missing_keys if "lora_" in name]
    if missing or result.unexpected_keys:
        raise ValueError(
            f"{folder}: the adapter does not fit its base: {len(missing)} of its tensors are missing and "
            f"{len(result.unexpected_keys)} belong nowhere ({[*missing, *result.unexpected_keys][0]})"
        )
    return wrapper  # type: ignore[no-any-return]


def write(adapter: Adapter, folder: Path) -> None:
    """Raises ValueError where the weights do not load back equal."""
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = state(adapter)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    adapter.wrapper.peft_config["default"].save_pretrained(str(folder))
    settings = {**(settings_of(folder) or {}), "inference_mode": True}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    set_base(folder, adapter.base, folder)
    written = load_file(folder / WEIGHTS)
    for name, tensor in tensors.items():
        if name not in written or not written[name].equal(tensor):
            raise ValueError(f"{folder}: '{name}' does not load back as it was saved; the checkpoint is not used")


def state(adapter: Adapter) -> dict[str, Any]:
    """The additions alone, by PEFT's names, on the CPU."""
    from peft import get_peft_model_state_dict

    tensors = get_peft_model_state_dict(adapter.wrapper, save_embedding_layers=False)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
