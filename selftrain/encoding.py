"""Turns to text by a chat template, and text to token ids: one way for all that a model reads or is taught."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from selftrain.config import ConfigError
from selftrain.schema import Chat
from selftrain.types import Message


def plain_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Ids of plain text with the tokenizer's own beginning, less an end token it may put behind."""
    ids = tuple(tokenizer.encode(text))
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


@dataclass(frozen=True)
class Encoder:
    """How turns become text, and text token ids."""

    tokenizer: Any
    chat: Chat
    template: str | None
    """The chat template; None: all is plain text."""

    def turns(self, turns: Sequence[Message], where: str) -> str:
        """Turns through the chat template, up to where the assistant goes on.

        Args:
            where: what they are of, for the message.

        Raises:
            ConfigError: the template cannot write them.
        """
        from jinja2 import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                [{"role": turn.role, "content": turn.content} for turn in turns],
                tokenize=False,
                add_generation_prompt=True,
                chat_template=self.template,
                **self.chat.arguments,
            )
        except (TemplateError, TypeError, ValueError) as error:
            whose = "the chat template of the tokenizer"
            if self.chat.template != "auto":
                whose = f"the template {self.chat.template} (model.chat.template)"
            raise ConfigError(
                f"model: {whose} fails on {where}: {' '.join(str(error).split())}; "
                "mend the template, give another (model.chat.template), or set model.chat=none"
            ) from error
        return str(text)

    def ids(self, text: str) -> tuple[int, ...]:
        """Ids of a prompt. A chat template writes the special tokens itself; else the tokenizer adds its own."""
        if self.template is None:
            return plain_ids(self.tokenizer, text)
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def response(self, text: str) -> tuple[int, ...]:
        """Ids of what follows a prompt, the end token behind it."""
        return (*self.tokenizer.encode(text, add_special_tokens=False), self.tokenizer.eos_token_id)

    def steps(self, steps: Sequence[str], separator: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of a response made of steps, the end token behind it, and where each step ends, exclusive.

        The response is encoded as a whole, as a model writes it. A separator belongs to the step before it, and so does
        a token that reaches into the next step; the end token belongs to the last.
        """
        ids, ends = self._whole(steps, separator) or self._apart(steps, separator)
        return (*ids, self.tokenizer.eos_token_id), (*ends[:-1], len(ids) + 1)

    def _whole(self, steps: Sequence[str], separator: str) -> tuple[list[int], list[int]] | None:
        """None where it cannot be told from tokens where every step ends."""
        if not self.tokenizer.is_fast:
            return None
        found = self.tokenizer(separator.join(steps), add_special_tokens=False, return_offsets_mapping=True)
        starts = [start for start, _ in found["offset_mapping"]]
        borders = accumulate(len(step) + len(separator) for step in steps[:-1])
        ends = [*(bisect_left(starts, border) for border in borders), len(starts)]
        return (found["input_ids"], ends) if all(a < b for a, b in pairwise([0, *ends])) else None

    def _apart(self, steps: Sequence[str], separator: str) -> tuple[list[int], list[int]]:
        """Each step encoded for itself."""
        texts = [*(step + separator for step in steps[:-1]), steps[-1]]
        parts = [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        return [token for part in parts for token in part], list(accumulate(map(len, parts)))


def make_encoder(tokenizer: Any, chat: Chat) -> Encoder:
    """Raises ConfigError for a template file that cannot be read."""
    return Encoder(tokenizer, chat, chat_template(tokenizer, chat.template))


def chat_template(tokenizer: Any, chosen: str) -> str | None:
    """The text of a chat template, None for plain prompts; raises ConfigError where the file cannot be read."""
    if chosen == "none":
        return None
    if chosen == "auto":
        own = getattr(tokenizer, "chat_template", None)
        if isinstance(own, dict):  # Several by name, for tools for instance.
            own = own.get("default")
        return str(own) if own else None
    try:
        return Path(chosen).read_text()
    except OSError as error:
        raise ConfigError(
            f"model.chat.template: '{chosen}' is no file ({error.strerror}); give auto, none, or a file with a template"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"model.chat.template: '{chosen}' is no UTF-8 text; give a file with a template") from error
