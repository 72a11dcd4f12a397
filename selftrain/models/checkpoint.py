"""Loading and saving checkpoints in Hugging Face format."""

from __future__ import annotations

import ctypes
import functools
import importlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from selftrain.models import adapters

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MAPPED_BYTES = 1 << 30
"""Larger blocks, such as weights, go back to the system when they are freed."""

RECOMMENDED = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")
"""What a generation config may say of sampling."""
WHENCE = ("is_local", "local_files_only")
"""What transformers notes of how a tokenizer came to be loaded: equal checkpoints are to be equal files."""

CAME_BACK: WeakSet[Any] = WeakSet()
"""Models that were loaded whole from what was saved of them, and found equal."""

HUB_TIMEOUT = 5.0
"""Seconds the hub has to answer at all."""


def load_tokenizer(path: Path | str) -> PreTrainedTokenizerBase:
    """Raises OSError or ValueError at once where there is no such folder and no such model can be had."""
    from transformers import AutoTokenizer

    look_up(path)
    return AutoTokenizer.from_pretrained(str(path))


def look_up(path: Path | str) -> None:
    """Leave names that are no folder here to the local cache alone where the hub does not answer.

    Its client would try again for most of a minute, for each of a dozen files, and log every attempt.
    """
    from huggingface_hub import constants, is_offline_mode
    from huggingface_hub.utils import logging

    if Path(path).exists():
        return
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if not is_offline_mode() and not hub_answers():
        os.environ["HF_HUB_OFFLINE"] = "1"  # For child processes.
        constants.HF_HUB_OFFLINE = True


@functools.cache
def hub_answers() -> bool:
    """Whether the Hugging Face hub, or the mirror HF_ENDPOINT names, can be reached."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT)
    except transport_error():
        return False
    return True


def transport_error() -> type[Exception]:
    """What the hub's client raises where a server cannot be reached."""
    from huggingface_hub import get_session

    # Called httpx or httpx2, by the version of the hub's client.
    client = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    return client.TransportError  # type: ignore[no-any-return]


def quiet() -> None:
    """No progress bars for loading and saving: a run shows its own."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@functools.cache
def plain() -> None:
    """Models are saved by none of DeepSpeed's engines: accelerate would import it, two seconds, to see that."""
    if find_spec("accelerate") is not None:
        other: Any = importlib.import_module("accelerate.utils.other")
        other.is_deepspeed_available = lambda: False


def pick_device(device: str) -> str:
    """A torch device by name; ``auto`` is a GPU where there is one.

    Raises:
        ValueError: this machine has no such device.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    here = torch.accelerator.current_accelerator(check_available=True)
    known = ["cpu", *(f"{here.type}:{index}" for index in range(torch.accelerator.device_count()) if here)]
    if device not in (*known, here.type if here else "cpu"):
        raise ValueError(f"device: there is no '{device}' here; choose auto or one of {', '.join(known)}")
    return device


def pick_dtype(dtype: str, device: str) -> torch.dtype:
    import torch

    if dtype == "auto":
        return torch.bfloat16 if device.startswith("cuda") else torch.float32
    return getattr(torch, dtype)  # type: ignore[no-any-return]


@functools.cache
def keep_freed_memory() -> None:
    """Let the C library hold on to freed blocks: each step asks for the same again.

    It gave every larger tensor back to the system and had its pages cleared anew, 700 times in a training step of a
    small model: 8 % of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc; malloc.h names the two parameters -3 and -1.
        mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def load_model(path: Path | str, *, dtype: str = "auto", device: str = "auto", nf4: bool = False) -> PreTrainedModel:
    """A causal language model from a folder or the hub, on its device; an adapter comes unmerged on its base.

    Args:
        dtype: float32, bfloat16 or auto (bfloat16 on a GPU, float32 elsewhere).
        device: a torch device or auto.
        nf4: hold its linear layers in 4 bits, normal-float and quantised twice (Dettmers et al. 2023, arXiv
            2305.14314), to be read only.

    Raises:
        OSError: there is no such checkpoint, its weights are cut off, or the base of the adapter is gone.
        ValueError: it is none of a causal language model, or there is no such device.
        RuntimeError: it does not fit into the device's memory.
    """
    from transformers import AutoModelForCausalLM

    if (base := adapters.adapter_base(path)) is not None:
        adapted = load_model(base, dtype=dtype, device=device)
        adapters.put_on(adapted, path)
        take_generation_config(adapted, path)
        return adapted
    quiet()
    look_up(path)
    where = pick_device(device)
    if where == "cpu":
        keep_freed_memory()
    computed = pick_dtype(dtype, where)
    if nf4:
        return AutoModelForCausalLM.from_pretrained(
            str(path),
            dtype=computed,
            attn_implementation="sdpa",
            device_map={"": where},
            quantization_config=_nf4(computed),
        )
    with disk_errors(Path(path)):
        model: Any = AutoModelForCausalLM.from_pretrained(str(path), dtype=computed, attn_implementation="sdpa")
    return model.to(where)  # type: ignore[no-any-return]


def _nf4(computed: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=computed
    )


def reload_weights(model: PreTrainedModel, folder: Path | str) -> bool:
    """Put the weights of a checkpoint of the same architecture into a model that is loaded; whether it could be done.

    Not with adapters, and not where the checkpoint calls its tensors otherwise: nothing is changed then.
    """
    found = None if adapters.adapter_base(folder) is not None else weights(model, folder)
    own = model.state_dict()
    if found is None or any(found[name].shape != own[name].shape for name in own):
        return False
    model.load_state_dict(found)
    return True


def weights(model: PreTrainedModel, folder: Path | str) -> dict[str, torch.Tensor] | None:
    """The weights in a folder by the names of a model's own, which two may share; None where they are called otherwise
    there."""
    from safetensors.torch import load_file

    files = sorted(Path(folder).glob("model*.safetensors"))
    found = {name: tensor for file in files for name, tensor in load_file(file).items()}
    own = model.state_dict()
    shared = {own[name].data_ptr(): found[name] for name in found.keys() & own.keys()}
    if found.keys() - own.keys() or any(tensor.data_ptr() not in shared for tensor in own.values()):
        return None
    return {name: found.get(name, shared[tensor.data_ptr()]) for name, tensor in own.items()}


def positions(config: Any) -> int | None:
    """Tokens a model of this transformers config can read; None where it does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def generation_values(path: Path | str) -> dict[str, float]:
    """How a model's generation config says to sample it; empty where it has none.

    Greedy decoding, where it says so, is temperature 0. Read without transformers, whose import takes seconds.
    """
    from huggingface_hub import hf_hub_download

    name = "generation_config.json"
    look_up(path)
    try:
        file = Path(path) / name if Path(path).exists() else Path(hf_hub_download(str(path), name))
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    values = {key: found[key] for key in RECOMMENDED if isinstance(found.get(key), int | float)}
    values = {key: value for key, value in values.items() if key != "repetition_penalty" or value != 1}
    return values if found.get("do_sample") is not False else {**values, "temperature": 0.0}


def put_template(folder: Path, template: str | None) -> None:
    """Give the tokenizer of a checkpoint the chat template it was trained with, or none."""
    tokenizer = load_tokenizer(folder)
    if tokenizer.chat_template == template:
        return
    tokenizer.chat_template = template
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids that end a response: those of the generation config and the tokenizer's end token."""
    named = model.generation_config.eos_token_id if model.generation_config else None
    several = named if isinstance(named, list) else [named]
    return frozenset(int(token) for token in [*several, tokenizer.eos_token_id] if token is not None)


def take_generation_config(model: PreTrainedModel, folder: Path | str) -> None:
    """How an adapter stops is its own, not its base's."""
    from transformers import GenerationConfig
    from transformers.utils import GENERATION_CONFIG_NAME

    if (Path(folder) / GENERATION_CONFIG_NAME).exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, adapter: adapters.Adapter | None = None
) -> None:
    """Write weights, config, generation config and tokenizer; the checkpoint stops by itself when served.

    Sampling settings are left out of the generation config: whoever serves the checkpoint chooses them.

    Args:
        adapter: what of the model is written, in place of all its weights.

    Raises:
        ValueError: what was written does not load back equal.
        OSError: the disk is full, or cannot be written.
    """
    from transformers import GenerationConfig

    quiet()
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.config.eos_token_id, model.config.pad_token_id = end, pad
    ends = sorted(end_tokens(model, tokenizer), key=lambda token: token != end)
    model.generation_config = GenerationConfig(
        eos_token_id=ends if len(ends) > 1 else end, pad_token_id=pad, bos_token_id=tokenizer.bos_token_id
    )
    plain()
    with disk_errors(folder):
        if adapter is None:
            model.save_pretrained(folder)
        else:
            adapters.write(adapter, folder)
            model.generation_config.save_pretrained(folder)
    for key in WHENCE:
        tokenizer.init_kwargs.pop(key, None)
    tokenizer.save_pretrained(folder)
    if adapter is None:
        _check_reload(model, folder)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Rust's own kind of error, with the number of the system's in its text, as the OSError it stands for."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(*([int(number[1]), str(error), str(folder)] if number else [f"{folder}: {error}"])) from error


def _check_reload(model: PreTrainedModel, folder: Path) -> None:
    """Names, shapes and values of all tensors, which of them are one, and that a prompt can be gone on from.

    Of a model's later checkpoints only the weights are read.
    """
    import torch
    from transformers import AutoModelForCausalLM

    written = weights(model, folder) if model in CAME_BACK else None
    loaded: Any = None
    if written is None:
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype)
        written = loaded.state_dict()
    own = model.state_dict()
    for name, tensor in own.items():
        if name not in written or not written[name].equal(tensor.cpu()):
            raise ValueError(f"{folder}: '{name}' does not load back as it was saved; the checkpoint is not used")
    if loaded is None:
        return
    if _tied(own) != _tied(written):
        raise ValueError(f"{folder}: does not load back with the same weights tied; the checkpoint is not used")
    with torch.inference_mode():
        ids = loaded.generate(torch.zeros(1, 1, dtype=torch.long), max_new_tokens=2, do_sample=False)
    if not 1 < ids.shape[1] <= 3:
        raise ValueError(f"{folder}: generates nothing when it is loaded back; the checkpoint is not used")
    CAME_BACK.add(model)


def _tied(tensors: dict[str, torch.Tensor]) -> set[frozenset[str]]:
    """Names of tensors that share their memory."""
    groups: dict[int, set[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(tensor.data_ptr(), set()).add(name)
    return {frozenset(names) for names in groups.values() if len(names) > 1}
