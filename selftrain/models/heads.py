"""Value models: the backbone of a causal language model with a head that says one number of a state.

A state is everything up to a token; its number is read from the hidden state there: at the end of every step (a process
reward model) or at the last token (an outcome model). ReST-MCTS*'s own code reads the last column of a right-padded
batch, which is padding, and puts a linear layer over the logits of the whole vocabulary; here the head stands on the
hidden states, positions are given, and no logits are computed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from selftrain.files import replacing
from selftrain.models import adapters, attention, checkpoint, export
from selftrain.models.head_form import SETTINGS, WEIGHTS, Head, HeadForm, has_value_head, read_form

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ValueModel(nn.Module):
    """A backbone, its head, and the head's form.

    The head is kept and computed in fp32, whatever the backbone's type.
    """

    def __init__(self, backbone: Any, head: nn.Module, form: HeadForm) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.form = form

    @property
    def config(self) -> Any:
        return self.backbone.config

    @property
    def device(self) -> torch.device:
        return next(self.head.parameters()).device

    def forward(
        self, input_ids: Tensor, position_ids: Tensor | None, positions: Tensor, lengths: Sequence[int] = ()
    ) -> Tensor:
        """As `raw`."""
        more = attention.told(self.backbone, position_ids, lengths)
        hidden = self.backbone(input_ids, position_ids=position_ids, use_cache=False, **more).last_hidden_state
        return self.read(hidden.reshape(-1, hidden.shape[-1])[positions])

    def raw(
        self, input_ids: Tensor, position_ids: Tensor | None, positions: Tensor, lengths: Sequence[int] = ()
    ) -> Tensor:
        """The head's outputs at some positions of a right-padded or packed batch.

        Args:
            input_ids: ``[B, T]``; no mask is needed, since nothing to the right of a token reaches it.
            position_ids: ``[B, T]``, only for packed rows.
            positions: ``[M]`` flat places in ``[B * T]``.
            lengths: of the sequences of a packed row, where they are at hand (`attention.told`).

        Returns:
            ``[M]`` in fp32, before the normaliser.
        """
        out: Tensor = self(input_ids, position_ids, positions, lengths)
        return out

    def read(self, hidden: Tensor) -> Tensor:
        """The head's outputs for hidden states: ``[M, H]`` to ``[M]``, fp32 also under autocast."""
        kept = next(self.head.parameters()).dtype  # Not fp32 only where a trainer computes with rounded copies.
        with torch.autocast(hidden.device.type, enabled=False):
            out: Tensor = self.head(hidden.to(kept)).squeeze(-1).float()
        return out

    def normalised(self, raw: Tensor) -> Tensor:
        """Values in [0, 1]: sigmoid(raw), or (tanh(raw) + 1) / 2."""
        return raw.sigmoid() if self.form.normaliser == "sigmoid" else (raw.tanh() + 1) / 2


def load_value_model(
    path: Path | str, form: HeadForm | None = None, *, dtype: str = "auto", device: str = "auto", seed: int = 0
) -> ValueModel:
    """A value model as it was saved, or a causal language model with a fresh head.

    Args:
        path: folder of a value model; where ``form`` is given, also folder or hub name of any causal language model; an
            adapter is merged into its base.
        form: of the fresh head, whose last layer is zero: its first values are all 0.5.
        dtype: of the backbone: float32, bfloat16 or auto (bfloat16 on a GPU).

    Raises:
        OSError: there is no such checkpoint.
        ValueError: it has no value head and no form is given; it has one of another form; or its hidden states depend
            on what follows.
    """
    if has_value_head(path):
        saved = read_form(path)
        if form is not None and form != saved:
            raise ValueError(f"{path} has a value head of another form ({saved}) than is asked for ({form})")
        return _saved(path, saved, dtype, device)
    if form is None:
        raise ValueError(f"{path} has no value head: there is no {WEIGHTS}")
    if adapters.adapter_base(path) is not None:
        own = checkpoint.pick_dtype(dtype, checkpoint.pick_device(device))
        backbone: Any = export.merged(Path(path), device=device)[0].base_model.to(own)
    else:
        backbone = checkpoint.load_model(path, dtype=dtype, device=device).base_model
    head = fresh_head(form.head, hidden_size(backbone), seed)
    return ValueModel(backbone, head.to(backbone.device), form)


def fresh_head(kind: Head, size: int, seed: int = 0) -> nn.Sequential:
    """A head over hidden states of this size; its last layer is zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(size, size), nn.ReLU()] if kind == "mlp" else []
        last = nn.Linear(size, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


@torch.no_grad()
def hidden_size(backbone: Any) -> int:
    """The size of its hidden states, of a backbone whose states are told by what came before.

    Raises:
        ValueError: what follows a token reaches it.
    """
    ids = torch.arange(4, device=backbone.device)[None] % int(backbone.config.get_text_config().vocab_size)
    other = ids.clone()
    other[0, -1] = ids[0, 0]
    training = backbone.training
    backbone.eval()
    one, two = (backbone(each, use_cache=False).last_hidden_state[:, :-1].float() for each in (ids, other))
    backbone.train(training)
    if not torch.allclose(one, two, rtol=1e-2, atol=1e-2):
        raise ValueError(
            f"{type(backbone).__name__} lets tokens see what follows them, so it cannot value a response that grows; "
            "choose a causal language model"
        )
    return int(one.shape[-1])


def save_value_model(model: ValueModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write backbone, head, the head's form and tokenizer, all or nothing.

    Raises:
        ValueError: what was written does not load back equal.
        OSError: the disk is full, or cannot be written.
    """
    from safetensors.torch import save_file

    checkpoint.quiet()
    config = model.config
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    checkpoint.plain()
    with replacing(folder) as temporary, checkpoint.disk_errors(folder):
        model.backbone.save_pretrained(temporary)
        head = {name: tensor.detach().cpu().contiguous() for name, tensor in model.head.state_dict().items()}
        save_file(head, temporary / WEIGHTS)
        told = {**asdict(model.form), "size": next(model.head.parameters()).shape[1]}
        (temporary / SETTINGS).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")
        for key in checkpoint.WHENCE:
            tokenizer.init_kwargs.pop(key, None)
        tokenizer.save_pretrained(temporary)
        _check_reload(model, temporary)


def _saved(path: Path | str, form: HeadForm, dtype: str, device: str) -> ValueModel:
    from transformers import AutoModel

    checkpoint.quiet()
    where = checkpoint.pick_device(device)
    if where == "cpu":
        checkpoint.keep_freed_memory()
    backbone: Any = AutoModel.from_pretrained(
        str(path), dtype=checkpoint.pick_dtype(dtype, where), attn_implementation="sdpa"
    ).to(where)
    return ValueModel(backbone, saved_head(Path(path), form, hidden_size(backbone)).to(where), form)


def saved_head(folder: Path, form: HeadForm, size: int) -> nn.Module:
    """The head in a folder, on the CPU.

    Raises:
        ValueError: it does not fit hidden states of this size.
    """
    from safetensors.torch import load_file

    head = fresh_head(form.head, size)
    try:
        head.load_state_dict(load_file(folder / WEIGHTS))
    except RuntimeError as error:
        raise ValueError(f"{folder}: its value head does not fit its backbone: {error}") from error
    return head


def _check_reload(model: ValueModel, folder: Path) -> None:
    written = _saved(folder, read_form(folder), str(model.backbone.dtype).removeprefix("torch."), "cpu").state_dict()
    for name, tensor in model.state_dict().items():
        if name not in written or not written[name].equal(tensor.cpu()):
            raise ValueError(f"{folder}: '{name}' does not load back as it was saved; the value model is not used")
