"""Per-token log-probabilities without ever holding all logits: the one function for loss and for scoring.

The hidden states of a batch are cut to the positions whose next token is wanted, then read through the output head
in chunks. Under autograd each chunk's logits are computed again in the backward pass, so memory holds one chunk of
``[chunk, vocabulary]`` instead of ``[tokens, vocabulary]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from selftrain.models import attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK_LOGITS = 2**24
"""Logits held at once: 64 MiB in fp32."""
CHUNK_LOGITS_GPU = 2**27
"""On a GPU: 512 MiB. Each chunk adds its gradient of the whole output matrix to those before it, 1.2 GB each in an 8B
model; and products of few rows leave a GPU idle."""
APART = 0.1
"""Share by which a packed sequence may differ from itself alone in fewer bits than fp32; where sequences mix they have
little in common."""


@dataclass(frozen=True)
class Positions:
    """Where a batch carries loss.

    Attributes:
        index: ``[N]`` flat positions in ``[B * T]`` whose *next* token is read.
        targets: ``[N]`` that next token.
    """

    index: Tensor
    targets: Tensor


def read_head(model: PreTrainedModel, reuse: bool = False) -> Callable[[Tensor], Tensor]:
    """The function from hidden states ``[N, H]`` to fp32 logits ``[N, V]`` of a causal language model.

    Some architectures scale or cap their logits after the output matrix; the config says how.

    Args:
        reuse: logits may be written over those of the call before, of at least as many rows. Without gradient only.
    """
    head = model.get_output_embeddings()
    config: Any = model.config.get_text_config()
    divide = getattr(config, "logits_scaling", None)
    multiply = getattr(config, "logit_scale", None)
    cap = getattr(config, "final_logit_softcapping", None)

    into = _Product()

    def logits(hidden: Tensor) -> Tensor:
        # Its forward itself: hooks on modules (DeepSpeed's) must run as often on every rank, and chunks differ.
        out: Tensor = into(head.weight, hidden) if reuse and _plain(head, hidden) else head.forward(hidden).float()
        if divide:
            out = out / divide
        if multiply:
            out = out * multiply
        return torch.tanh(out / cap) * cap if cap else out

    return logits


class _Product:
    """Logits in one block of memory, call after call: glibc before 2.38 gives an aligned block a place of its own every
    time, beside the free one it had before."""

    def __init__(self) -> None:
        self._block: Tensor | None = None

    def __call__(self, weight: Tensor, hidden: Tensor) -> Tensor:
        if self._block is None:
            self._block = hidden.new_empty(len(hidden), len(weight))
        return torch.mm(hidden, weight.T, out=self._block[: len(hidden)])


def _plain(head: Any, hidden: Tensor) -> bool:
    """Whether its logits are nothing but a product in fp32."""
    return (
        type(head) is torch.nn.Linear
        and head.bias is None
        and head.weight.dtype == hidden.dtype == torch.float32
        and not torch.is_autocast_enabled(hidden.device.type)
    )


def check_head(model: PreTrainedModel) -> None:
    """Compare the head read in chunks with the model's own logits on a few tokens.

    Raises:
        ValueError: this architecture turns hidden states into logits in a way `read_head` does not know.
    """
    ids = torch.arange(4, device=model.device)[None] % int(model.config.get_text_config().vocab_size)
    training = model.training
    model.eval()
    with torch.no_grad():
        own = model(ids, use_cache=False).logits.float()
        ours = read_head(model)(model.base_model(ids, use_cache=False).last_hidden_state)
    model.train(training)
    if not torch.allclose(own, ours, rtol=1e-2, atol=1e-2):
        raise ValueError(
            f"{type(model).__name__} computes its logits in a way selftrain does not know; "
            "report the architecture, or use another model"
        )


def check_packing(model: PreTrainedModel) -> None:
    """Compare a sequence packed behind another with the same sequence alone.

    Raises:
        ValueError: this architecture carries something from one packed sequence into the next.
    """
    ids = torch.arange(8, device=model.device)[None] % int(model.config.get_text_config().vocab_size)
    positions = torch.arange(4, device=model.device).repeat(2)[None]
    training = model.training
    model.eval()
    with torch.no_grad():
        more = attention.told(model, positions, (4, 4))
        packed = model.base_model(ids, position_ids=positions, use_cache=False, **more).last_hidden_state[:, 4:]
        alone = model.base_model(ids[:, 4:], use_cache=False).last_hidden_state
    model.train(training)
    exact = model.dtype == torch.float32 and not torch.is_autocast_enabled(ids.device.type)
    if not (torch.allclose(packed, alone, rtol=1e-2, atol=1e-2) if exact else _near(packed, alone)):
        raise ValueError(f"{type(model).__name__} does not keep packed sequences apart; set optim.batching to bucketed")


def _near(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).float().norm() <= APART * expected.float().norm())


def token_logprobs(
    hidden: Tensor,
    logits: Callable[[Tensor], Tensor],
    targets: Tensor,
    vocabulary: int,
    temperature: float = 1.0,
) -> Tensor:
    """log p(target) for each row: ``[N, H]`` and ``[N]`` to ``[N]``, fp32."""

    def one(states: Tensor, wanted: Tensor) -> Tensor:
        scores = logits(states)
        if temperature != 1.0:
            scores = scores / temperature
        return scores.gather(1, wanted[:, None]).squeeze(1) - scores.logsumexp(dim=1)

    def in_place(states: Tensor, wanted: Tensor) -> Tensor:
        """The same in half the memory: a chunk's logits become their own exponentials."""
        scores = logits(states)
        if temperature != 1.0:
            scores /= temperature
        top = scores.amax(dim=1, keepdim=True)
        own = scores.gather(1, wanted[:, None]) - top
        return (own - scores.sub_(top).exp_().sum(dim=1, keepdim=True).log_()).squeeze(1)

    rows = max(1, (CHUNK_LOGITS_GPU if hidden.is_cuda else CHUNK_LOGITS) // vocabulary)
    if len(targets) <= rows:
        return one(hidden, targets)
    chunks = zip(hidden.split(rows), targets.split(rows), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([in_place(states, wanted) for states, wanted in chunks])
    parts: list[Tensor] = [checkpoint(one, states, wanted, use_reentrant=False) for states, wanted in chunks]
    return torch.cat(parts)


def batch_logprobs(
    model: PreTrainedModel,
    input_ids: Tensor,
    position_ids: Tensor | None,
    positions: Positions,
    temperature: float = 1.0,
    *,
    lengths: Sequence[int] = (),
    cut: bool = False,
) -> Tensor:
    """log p of the wanted tokens of a right-padded or packed batch.

    No attention mask is needed: under causal attention what stands to the right of a token never reaches it, and
    sequences packed into one row are told apart by position ids that start again from 0.

    Args:
        input_ids: ``[B, T]``.
        position_ids: ``[B, T]``, only for packed rows.
        temperature: logits are divided by it.
        lengths: of the sequences of a packed row, where they are at hand (`attention.told`).
        cut: by the kernels of `cut_logprobs`.

    Returns:
        ``[N]`` natural log-probabilities in fp32, in the order of ``positions``.
    """
    more = attention.told(model, position_ids, lengths)
    hidden = model.base_model(input_ids, position_ids=position_ids, use_cache=False, **more).last_hidden_state
    wanted = hidden.reshape(-1, hidden.shape[-1])[positions.index]
    if cut:
        return cut_logprobs(wanted, model.get_output_embeddings().weight, positions.targets, temperature)
    vocabulary = int(model.config.get_text_config().vocab_size)
    head = read_head(model, reuse=not torch.is_grad_enabled())
    return token_logprobs(wanted, head, positions.targets, vocabulary, temperature)


def scaled_head(model: PreTrainedModel) -> bool:
    """Whether logits are more than a product of hidden states and one matrix."""
    head: Any = model.get_output_embeddings()
    config: Any = model.config.get_text_config()
    named = ("logits_scaling", "logit_scale", "final_logit_softcapping")
    return type(head) is not torch.nn.Linear or head.bias is not None or any(getattr(config, n, None) for n in named)


def cut_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """As `token_logprobs` of a plain head, by the kernels of Cut Cross-Entropy (Wijmans et al. 2024, arXiv 2411.09009),
    which hold no logits at all: ``[N, H]``, ``[V, H]`` and ``[N]`` to ``[N]``, fp32.

    Its gradients are not filtered, which the paper does by default: every token counts, as in the plain way. They are
    computed in half precision, so hidden states are divided by the temperature before they are rounded.
    """
    from cut_cross_entropy import linear_cross_entropy

    device = hidden.device.type
    half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    states = (hidden if temperature == 1.0 else hidden.float() / temperature).to(half)
    with torch.autocast(device, enabled=False):
        losses: Tensor = linear_cross_entropy(
            states, weight.to(half), targets, reduction="none", filter_eps=None, accum_e_fp32=True, accum_c_fp32=True
        )
    return -losses.float()
