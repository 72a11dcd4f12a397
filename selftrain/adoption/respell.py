"""The responses of another tool in the run's own tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from selftrain.prompts import unclosed
from selftrain.rollouts.base import Rollout
from selftrain.schema import Reasoning
from selftrain.types import FinishReason

FOREIGN = "token ids of another tokenizer, and no text"
SPECIAL = "special tokens in the text, or characters the tokenizer does not know"


@dataclass(frozen=True, slots=True)
class Spelling:
    """A response as a sample holds it."""

    ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    ids_from: Literal["engine", "retokenised"]


@dataclass(frozen=True)
class Speller:
    """Spells for one tokenizer and one length of context."""

    tokenizer: Any
    context: int | None
    """Positions of the model; None where it does not say."""
    reasoning: Reasoning | None = None
    """A response that does not close it is truncated, whatever the dump says."""

    def prompt(self, rollout: Rollout) -> str | None:
        """The prompt as text, decoded where the dump has ids alone."""
        if rollout.prompt is not None or rollout.prompt_ids is None or not self._known(rollout.prompt_ids):
            return rollout.prompt
        return str(self.tokenizer.decode(rollout.prompt_ids, skip_special_tokens=True))

    def spell(self, prompt: str, prompt_ids: tuple[int, ...], rollout: Rollout) -> Spelling | str:
        """The response, or why it is none: by the dump's own ids where they say what its text says, else encoded.

        Args:
            prompt: what this run asks with, which may have begun the reasoning, as may the dump's own.
        """
        spelling = self._own(rollout) or self._encoded(rollout)
        if isinstance(spelling, str):
            return spelling
        if any(unclosed(asked, spelling.text, self.reasoning) for asked in (prompt, rollout.prompt or "")):
            spelling = _open(spelling)
        if self.context is None:
            return spelling
        if len(prompt_ids) + len(spelling.ids) > self.context:
            return f"too long for the model's context of {self.context} tokens"
        return spelling

    def _own(self, rollout: Rollout) -> Spelling | None:
        ids = rollout.response_ids
        if not ids or not self._known(ids):
            return None
        ended = ids[-1] == self._end
        body = ids[:-1] if ended else ids
        text = str(self.tokenizer.decode(body, skip_special_tokens=True))
        same = text == rollout.response if rollout.response is not None else all(p in text for p in rollout.pieces)
        if not same or self._special & set(body):
            return None
        return Spelling(ids, text, _reason(rollout, ended), "engine")

    def _encoded(self, rollout: Rollout) -> Spelling | str:
        """A text whose end the dump does not tell of is taken as complete."""
        if rollout.response is None:
            return FOREIGN
        text = rollout.response.removesuffix(self.tokenizer.eos_token)
        if not _is_unicode(text):
            return SPECIAL
        ids = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        if self._special & set(ids):
            return SPECIAL
        cut = rollout.finish == "length"
        return Spelling(ids if cut else (*ids, self._end), text, "length" if cut else "eos", "retokenised")

    @cached_property
    def _end(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def _special(self) -> frozenset[int]:
        """Ids no response holds but at its end."""
        return frozenset(self.tokenizer.all_special_ids)

    def _known(self, ids: tuple[int, ...]) -> bool:
        return min(ids) >= 0 and max(ids) < len(self.tokenizer)


def _open(spelling: Spelling) -> Spelling:
    """As truncated, without the end token where it was put behind the text here."""
    ours = spelling.ids_from == "retokenised" and spelling.finish_reason == "eos"
    return replace(spelling, ids=spelling.ids[:-1] if ours else spelling.ids, finish_reason="length")


def _is_unicode(text: str) -> bool:
    """JSON can name halves of characters, which nothing can be made of."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _reason(rollout: Rollout, ended: bool) -> FinishReason:
    """Of a response in the ids of its engine; one that just breaks off was cut."""
    if rollout.finish == "length":
        return "length"
    if ended:
        return "eos"
    return "stop" if rollout.finish == "complete" else "length"
