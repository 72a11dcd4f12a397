"""From a problem to what a model reads (chat, text, token ids), and from a worked solution to what it is taught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selftrain.config import ConfigError
from selftrain.encoding import Encoder, chat_template
from selftrain.schema import Chat, Prompt, Reasoning
from selftrain.types import Message, Problem


@dataclass(frozen=True)
class Prompter:
    """Prompts of one task for one tokenizer."""

    tokenizer: Any
    prompt: Prompt
    chat: Chat
    template: str | None = None
    """The chat template; None: the prompt is plain text."""
    shots: tuple[Problem, ...] = ()
    """Worked examples to choose from, one more than are shown: no problem is an example for itself."""
    _encoded: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)
    """Ids by problem: every iteration asks for the same."""
    _written: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Texts by problem, likewise."""

    def messages(self, problem: Problem) -> tuple[Message, ...]:
        """The prompt as a chat, with a turn each for the worked examples and their answers."""
        system = self.prompt.system if self.prompt.system is not None else self.chat.system
        turns = [Message("system", system)] if system else []
        for shot in self._shots(problem):
            turns += [Message("user", self._body(shot)), Message("assistant", self._answer(shot))]
        return (*turns, Message("user", self._body(problem)))

    def text(self, problem: Problem) -> str:
        """The prompt as text, chat template applied."""
        if problem.id not in self._written:
            self._written[problem.id] = self._write(problem)
        return self._written[problem.id]

    def _write(self, problem: Problem) -> str:
        if self.template is None:
            worked = [self._body(shot) + self._answer(shot) for shot in self._shots(problem)]
            return self.prompt.few_shot.separator.join([*worked, self._body(problem)])
        return self.encoder.turns(self.messages(problem), f"problem {problem.id}")

    def ids(self, problem: Problem) -> tuple[int, ...]:
        """Prompt ids."""
        if problem.id not in self._encoded:
            self._encoded[problem.id] = self.encoder.ids(self.text(problem))
        return self._encoded[problem.id]

    def solution(self, problem: Problem) -> tuple[int, ...]:
        """Ids of the worked solution, the end token behind it; written as in a worked example."""
        return self.encoder.response(self._answer(problem))

    @property
    def encoder(self) -> Encoder:
        return Encoder(self.tokenizer, self.chat, self.template)

    def _shots(self, problem: Problem) -> list[Problem]:
        return [shot for shot in self.shots if shot.id != problem.id][: self.prompt.few_shot.n]

    def _body(self, problem: Problem) -> str:
        body = _filled(self.prompt.template, problem, "prompt.template", {})
        return f"{body}\n{self.prompt.instruction}" if self.prompt.instruction else body

    def _answer(self, shot: Problem) -> str:
        solved = {"demonstration": shot.demonstration, "answer": shot.answer}
        text = _filled(self.prompt.answer, shot, "prompt.answer", solved)
        return text if self.template is None else text.strip()


def _filled(template: str, problem: Problem, where: str, more: Mapping[str, Any]) -> str:
    fields = {**problem.metadata, "question": problem.question, **more}
    try:
        return template.format(**fields)
    except ValueError as error:  # It is no template for any problem.
        raise ConfigError(
            f"tasks.{problem.task}.{where}: {template!r} is no template ({error}); write a field as "
            "{question}, and a brace that is meant as such twice"
        ) from error
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"tasks.{problem.task}.{where}: cannot fill {error} for problem {problem.id}; "
            f"known: {', '.join(sorted(fields))}"
        ) from error


def make_prompter(tokenizer: Any, prompt: Prompt, chat: Chat, shots: Sequence[Problem] = ()) -> Prompter:
    """Raises ConfigError for a template file that cannot be read."""
    return Prompter(tokenizer, prompt, chat, chat_template(tokenizer, chat.template), tuple(shots))


def answer_part(prompt: str, text: str, reasoning: Reasoning | None) -> str:
    """What a verifier reads of a response: what follows the last close of its reasoning; nothing where it is open."""
    if reasoning is None:
        return text
    return "" if unclosed(prompt, text, reasoning) else text.rpartition(reasoning.close)[2]


def unclosed(prompt: str, text: str, reasoning: Reasoning | None) -> bool:
    """Whether a response ended while it was still thinking; the prompt may have opened for it."""
    if reasoning is None:
        return False
    opened = reasoning.open in text or prompt.rstrip().endswith(reasoning.open)
    return opened and text.rfind(reasoning.close) <= text.rfind(reasoning.open)


def check_marks(tokenizer: Any, marks: Mapping[str, Sequence[str]]) -> None:
    """Raises ConfigError for strings that are looked for in the text of responses and can never stand there.

    Args:
        marks: by their place in the config.
    """
    special = set(tokenizer.all_special_ids)
    for where, strings in marks.items():
        for string in strings:
            if not string:
                raise ConfigError(f"{where}: '' is in every text; give a string of at least one character")
            found = special.intersection(ids := tokenizer.encode(string, add_special_tokens=False))
            if found:
                single = len(ids) == 1 and tokenizer.decode(ids) == string
                remedy = f"; its id is {ids[0]} (stop_ids)" if single and where.endswith("stop") else ""
                raise ConfigError(
                    f"{where}: no text of a response holds {string!r}: special tokens are left out of it, and so is "
                    f"what the tokenizer does not know{remedy}"
                )


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
        raise ConfigError(
            f"{where} has characters the tokenizer does not know; add them to model.alphabet, or choose another model"
        )
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
