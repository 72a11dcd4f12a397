"""Turns to text by a chat template, and text to token ids: one way for all that a model reads or is taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
