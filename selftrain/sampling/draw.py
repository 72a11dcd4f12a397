"""Drawing tokens from logits, and ending responses at stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from selftrain.sampling.base import Settings


def draw(logits: Tensor, uniforms: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """One token per row by inverse-CDF sampling.

    Args:
        logits: ``[R, V]``.
        uniforms: ``[R]`` in [0, 1), float64.

    Returns:
        Tokens ``[R]`` and their log-probability ``[R]`` under the distribution drawn from: after temperature,
        top-k and top-p; 0 for greedy decoding, which draws from a point mass.
    """
    if settings.temperature == 0:
        tokens = logits.argmax(dim=-1)
        return tokens, torch.zeros_like(uniforms)
    probabilities = restricted(logits.double() / settings.temperature, settings).softmax(dim=-1)
    cumulative = probabilities.cumsum(dim=-1)
    # right=True never lands on a token of probability 0; the last total may be short of 1 by rounding.
    threshold = (uniforms * cumulative[:, -1])[:, None]
    tokens = torch.searchsorted(cumulative, threshold, right=True).squeeze(1).clamp_(max=logits.shape[-1] - 1)
    return tokens, probabilities.gather(1, tokens[:, None]).squeeze(1).log()


def restricted(logits: Tensor, settings: Settings) -> Tensor:
    """Logits with all but the top-k, then all but the nucleus of mass top-p, set to minus infinity."""
    if 0 < settings.top_k < logits.shape[-1]:
        lowest = logits.topk(settings.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < lowest, -torch.inf)
    if settings.top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        mass = ordered.softmax(dim=-1)
        # A token stays where the mass before it is below top_p: the one that crosses the bound stays too.
        outside = mass.cumsum(dim=-1) - mass >= settings.top_p
        outside[..., 0] = False
        logits = logits.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), -torch.inf)
    return logits


def stops(tokenizer: Any, ids: Sequence[int], stop: Sequence[str]) -> bool:
    """Whether the text of the newest tokens completes a stop string."""
    window = max(len(s.encode()) for s in stop) + 8
    tail = tokenizer.decode(ids[-window:], skip_special_tokens=True)
    return any(s in tail for s in stop)


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop string."""
    return text[: min((at for at in map(text.find, stop) if at >= 0), default=len(text))]


def trim(tokenizer: Any, ids: list[int], text: str) -> tuple[list[int], str]:
    """Ids that decode to a text cut before a stop string, and where they are from.

    The engine's own ids where the cut falls between two tokens, else the text encoded again.
    """
    for end in range(len(ids), -1, -1):
        shorter = tokenizer.decode(ids[:end], skip_special_tokens=True)
        if shorter == text:
            return ids[:end], "engine"
        if len(shorter) < len(text):
            break
    return tokenizer.encode(text, add_special_tokens=False), "retokenised"
