"""From a problem to the token ids a model reads, and from a worked solution to those it is taught."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from selftrain.config import ConfigError
from selftrain.schema import Prompt
from selftrain.types import Problem


@dataclass(frozen=True)
class Prompter:
    """Prompts of one task for one tokenizer."""

    tokenizer: Any
    prompt: Prompt
    chat: bool
    """Whether prompts go through the tokenizer's chat template."""
    _encoded: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)
    """Ids by problem: every iteration asks for the same."""

    def text(self, problem: Problem) -> str:
        """The prompt as text, chat template applied."""
        from jinja2 import TemplateError

        try:
            body = self.prompt.template.format(**{**problem.metadata, "question": problem.question})
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                f"tasks.{problem.task}.prompt.template: cannot fill {error} for problem {problem.id}; known: question"
                + "".join(f", {name}" for name in problem.metadata)
            ) from error
        if not self.chat:
            return body
        messages = [{"role": "system", "content": self.prompt.system}] if self.prompt.system else []
        messages.append({"role": "user", "content": body})
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except TemplateError as error:
            raise ConfigError(
                f"model: the chat template of the tokenizer fails on problem {problem.id}: {error}; "
                "mend the template, or set model.chat=none"
            ) from error

    def ids(self, problem: Problem) -> tuple[int, ...]:
        """Prompt ids. A chat template writes the special tokens itself; else the tokenizer adds its own, less an end
        token it may put behind the text."""
        if problem.id not in self._encoded:
            encoded = self.tokenizer.encode(self.text(problem), add_special_tokens=not self.chat)
            if not self.chat and encoded and encoded[-1] == self.tokenizer.eos_token_id:
                encoded = encoded[:-1]
            self._encoded[problem.id] = tuple(encoded)
        return self._encoded[problem.id]

    def solution(self, text: str) -> tuple[int, ...]:
        """Ids of a worked solution, the end token behind it."""
        return (*self.tokenizer.encode(text, add_special_tokens=False), self.tokenizer.eos_token_id)


def make_prompter(tokenizer: Any, prompt: Prompt, chat: str) -> Prompter:
    return Prompter(tokenizer, prompt, chat == "auto" and bool(getattr(tokenizer, "chat_template", None)))


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """Raises ConfigError where training or batching with this tokenizer would go wrong silently."""
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"model: the tokenizer of {name} has no end token; set eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        raise ConfigError(
            f"model: the tokenizer of {name} has no pad token; set pad_token in its tokenizer_config.json "
            "to a token that is not the end token"
        )


def check_prompt(ids: tuple[int, ...], problem: Problem, tokenizer: Any, context: int | None) -> None:
    """Raises ConfigError for a prompt no response can follow, one that begins twice, or one it cannot spell."""
    begin, unknown = tokenizer.bos_token_id, tokenizer.unk_token_id
    where = f"tasks.{problem.task}: the prompt of {problem.id}"
    if not ids:
        raise ConfigError(f"{where} is empty; check the prompt template")
    if begin is not None and ids[:2] == (begin, begin):
        raise ConfigError(f"{where} begins with two beginning tokens; the chat template adds one too many")
    if unknown is not None and unknown in ids:
        raise ConfigError(f"{where} has characters the tokenizer does not know; add them to model.alphabet")
    if context is not None and len(ids) >= context:
        raise ConfigError(f"{where} has {len(ids)} tokens, the model's context is {context}; shorten it or drop it")


def check_solution(ids: tuple[int, ...], before: int, problem: Problem, tokenizer: Any, context: int | None) -> None:
    """Raises ConfigError for a demonstration the tokenizer cannot spell, or that does not fit behind its prompt.

    Args:
        ids: the demonstration, its end token included.
        before: tokens of the prompt.
    """
    unknown = tokenizer.unk_token_id
    where = f"tasks.{problem.task}: the demonstration of {problem.id}"
    if unknown is not None and unknown in ids[:-1]:  # Some tokenizers use the end token for both.
        raise ConfigError(f"{where} has characters the tokenizer does not know; add them to model.alphabet")
    if context is not None and before + len(ids) > context:
        raise ConfigError(
            f"{where} has {before + len(ids)} tokens with its prompt, the model's context is {context}; "
            "shorten it or drop it"
        )
