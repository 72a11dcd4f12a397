"""How a response ends: its text cut before a stop string, and ids that decode to what is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from selftrain.sampling.base import Completion
from selftrain.schema import Sampling
from selftrain.types import FinishReason

IdsFrom = Literal["engine", "retokenised"]


def completion(
    tokenizer: Any,
    place: tuple[int, int],
    ids: Sequence[int],
    finish_reason: FinishReason,
    settings: Sampling,
    logprobs: Sequence[float] | None = None,
    text: str | None = None,
    keep_stop: bool = False,
) -> Completion:
    """A response as an engine gave it, without what stopped it.

    A stop string anywhere in the text ends it: an engine that went on with a response looks for them in its own part.

    Args:
        place: of the request in the work list, and index of the sample.
        ids: all an engine drew; they may run past a stop string, or end with a stop id.
        text: ``ids`` decoded, where the caller has it.
        keep_stop: as in `Request`.
    """
    if finish_reason == "stop" and ids and ids[-1] in settings.stop_ids:
        ids, text = ids[:-1], None
    source: IdsFrom = "engine"
    if text is None:
        text = str(tokenizer.decode(ids, skip_special_tokens=True))
    if keep_stop:
        if cut(text, settings.stop) != text:
            ids, text = completing(tokenizer, ids, text, settings.stop)
            finish_reason = "stop"
    elif (shorter := cut(text, settings.stop)) != text:
        text, finish_reason = shorter, "stop"
        ids, source = trim(tokenizer, ids, text)
    kept = tuple(logprobs[: len(ids)]) if logprobs is not None and source == "engine" else None
    return Completion(*place, tuple(ids), text, finish_reason, kept, source)


def ended_by(stop_reason: object, settings: Sampling) -> FinishReason:
    """Which kind of stop vLLM means by its ``stop_reason``: the string or id that was asked for, or an end token.

    It gives None for the tokenizer's end token, and the id of every further one of the generation config.
    """
    return "stop" if isinstance(stop_reason, str) or stop_reason in settings.stop_ids else "eos"


def stops(tokenizer: Any, ids: Sequence[int], stop: Sequence[str], new: int = 1) -> bool:
    """Whether the text of the ``new`` newest tokens completes a stop string."""
    window = max(len(s.encode()) for s in stop) + 8 + new
    tail = tokenizer.decode(ids[-window:], skip_special_tokens=True)
    return any(s in tail for s in stop)


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop string."""
    return text[: min((at for at in map(text.find, stop) if at >= 0), default=len(text))]


def through(text: str, stop: Sequence[str]) -> str:
    """The text up to and with the first stop string."""
    found = min(((text.find(one), len(one)) for one in stop if one in text), default=(len(text), 0))
    return text[: sum(found)]


def completing(tokenizer: Any, ids: Sequence[int], text: str, stop: Sequence[str]) -> tuple[Sequence[int], str]:
    """The fewest ids whose text holds a stop string, and that text.

    Args:
        ids: whose text holds one; an engine draws at most a few beyond it.
        text: theirs.
    """
    while True:
        shorter = str(tokenizer.decode(ids[:-1], skip_special_tokens=True))
        if cut(shorter, stop) == shorter:
            return ids, text
        ids, text = ids[:-1], shorter


def trim(tokenizer: Any, ids: Sequence[int], text: str) -> tuple[Sequence[int], IdsFrom]:
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
