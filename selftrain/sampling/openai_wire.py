"""What is sent to a server that speaks OpenAI's protocol, and what its replies say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selftrain.sampling.base import Completion, Place, Request
from selftrain.sampling.ending import cut, ended_by
from selftrain.schema import Sampling
from selftrain.types import FinishReason

if TYPE_CHECKING:
    from selftrain.sampling.openai import OpenAI


SEEDS = 2**31
"""Servers take seeds below this; ours have 63 bits."""

OWN = frozenset(
    (
        *("model", "prompt", "messages", "n", "stream", "seed", "return_token_ids"),
        *("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "stop_token_ids"),
    )
)
"""Fields of a request that follow from the config of the run."""


class Unusable(ValueError):
    """A reply that holds no response."""


@dataclass
class Dialect:
    """What a server was found to take of what not every server takes."""

    token_ids: bool
    length: str = "max_tokens"

    def learn(self, refusal: str, body: dict[str, Any]) -> bool:
        """Whether a request that was refused with these words can be said otherwise."""
        if "return_token_ids" in body and "return_token_ids" in refusal:
            self.token_ids = False
            return True
        if "max_tokens" in body and "max_completion_tokens" in refusal:
            self.length = "max_completion_tokens"
            return True
        return False


def question(options: OpenAI, model: str, request: Request, index: int, dialect: Dialect) -> tuple[str, dict[str, Any]]:
    """Path and body of the request for one sample."""
    settings = request.settings
    chat = options.endpoint == "chat" or (options.endpoint == "auto" and request.messages and not options.prompt_ids)
    body: dict[str, Any] = {
        **options.extra,
        "model": model,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        dialect.length: settings.max_tokens,
        "seed": request.seeds[index] % SEEDS,
    }
    if chat:
        turns = [{"role": turn.role, "content": turn.content} for turn in request.messages]
        body["messages"] = turns or [{"role": "user", "content": request.text}]
    else:
        body["prompt"] = list(request.prompt_ids) if options.prompt_ids else request.text
    # Not in OpenAI's own protocol, so only where they mean something: top_k, stop_token_ids, return_token_ids.
    if settings.stop:
        body["stop"] = list(settings.stop)
    if settings.top_k:
        body["top_k"] = settings.top_k
    if settings.stop_ids:
        body["stop_token_ids"] = list(settings.stop_ids)
    if dialect.token_ids:
        body["return_token_ids"] = True
    return "/chat/completions" if chat else "/completions", body


def completion(options: OpenAI, request: Request, place: Place, reply: Any) -> Completion:
    """The response a reply holds.

    Ids are the server's where it gives any. They may be another model's, and run past a stop string; whoever trains
    on them compares them with the text.

    Raises:
        Unusable: it holds none.
        RuntimeError: the server read another prompt than it was sent.
    """
    try:
        choice = reply["choices"][0]
        text = _text(options, choice)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Unusable(f"no response in {str(reply)[:200]!r}") from error
    if options.prompt_ids:
        _check_prompt(request, choice.get("prompt_token_ids") or reply.get("prompt_token_ids"))
    settings = request.settings
    reason = _finish_reason(choice, settings)
    if settings.stop and (shorter := cut(text, settings.stop)) != text:
        text, reason = shorter, "stop"
    ids = tuple(choice.get("token_ids") or ()) if options.token_ids == "auto" else ()
    if reason == "stop" and ids and ids[-1] in settings.stop_ids:
        ids = ids[:-1]
    return Completion(*place, ids, text, reason, ids_from="engine" if ids else "retokenised")


def _text(options: OpenAI, choice: Any) -> str:
    """What the model wrote, its reasoning in front; without the closing mark where no answer followed it."""
    if "message" not in choice:
        return str(choice["text"])
    message = choice["message"]
    content = message.get("content") or ""
    thought = message.get("reasoning_content") or message.get("reasoning")
    if not isinstance(content, str) or not isinstance(thought, str | None):
        raise TypeError
    begin, end = options.reasoning
    return (f"{begin}{thought}" if thought else "") + (f"{end}{content}" if thought and content else content)


def _finish_reason(choice: Any, settings: Sampling) -> FinishReason:
    """What ended a response; all but a stop counts as truncated, such as a content filter."""
    if choice.get("finish_reason") != "stop":
        return "length"
    if "stop_reason" in choice:
        return ended_by(choice["stop_reason"], settings)
    return "stop" if settings.stop or settings.stop_ids else "eos"


def _check_prompt(request: Request, read: Any) -> None:
    if read is None:
        raise RuntimeError(
            "the server does not say which prompt ids it read, so they cannot be trusted; set sampler.prompt_ids=false"
        )
    if tuple(read) != request.prompt_ids:
        raise RuntimeError(
            f"the server read other prompt ids than it was sent for {request.problem.id}; set sampler.prompt_ids=false"
        )


def same_model(asked: str, replied: str) -> bool:
    """Whether a reply is by the model that was asked: the same name, with or without the folders before it, or a dated
    version of it (``gpt-4o`` and ``gpt-4o-2024-08-06``)."""
    if "/" not in asked or "/" not in replied:
        asked, replied = asked.rpartition("/")[2], replied.rpartition("/")[2]
    if asked == replied:
        return True
    stem = asked.removesuffix("-latest")
    version = replied.removeprefix(stem).replace("-", "")
    return replied.startswith(f"{stem}-") and version.isdigit() and len(version) in (4, 6, 8)
