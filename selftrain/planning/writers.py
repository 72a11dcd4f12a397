"""Who answers a work list: the policy of an iteration, or a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from selftrain import registry
from selftrain.planning.settings import POLICY
from selftrain.prompts import Prompter
from selftrain.sampling.base import Completion, Request
from selftrain.sampling.ending import trim
from selftrain.schema import Component


def remote(component: Component) -> bool:
    """Whether a sampler asks a server, which loads no checkpoint of ours."""
    return bool(getattr(registry.resolve("sampler", component.kind), "remote", False))


def reads_ids(component: Component) -> bool:
    """Whether a sampler that asks a server says that its model has the policy's vocabulary."""
    return bool(component.options.get("prompt_ids"))


def same_tokens(ids: Sequence[int], ours: Any, theirs: Any) -> tuple[int, ...]:
    """The ids that stand for the same token in two tokenizers."""
    return tuple(token for token in ids if ours.convert_ids_to_tokens(token) == theirs.convert_ids_to_tokens(token))


@dataclass(frozen=True)
class Writer:
    """Where samples come from, as they record it, and how it is asked."""

    name: str
    """Digest of the checkpoint, or the name of a teacher."""
    origin: str
    checkpoint: Path
    """What the sampler opens: a folder, or the name of a model."""
    sampler: Component
    prompters: Mapping[str, Prompter]
    """By task, with the writer's own tokenizer; a server is asked with the policy's."""
    readers: Mapping[str, Prompter]
    """By task, with the tokenizer of the policy, which will be trained on what is written."""

    def read_by_us(self, request: Request) -> tuple[int, ...]:
        """The prompt in tokens of the policy."""
        problem = request.problem
        return request.prompt_ids if self.origin == POLICY else self.readers[problem.task].ids(problem)

    def in_our_tokens(self, task: str, answer: Completion) -> Completion:
        """A response in tokens of the policy: the writer's own where they are the policy's too, else encoded again.

        The end token of a teacher stands for that of the policy. A text that the policy cannot read, or would read
        as special tokens, counts as truncated, so that it is never taught.
        """
        if self.origin == POLICY:
            return answer
        tokenizer = self.readers[task].tokenizer
        end: tuple[int, ...] = (tokenizer.eos_token_id,) if answer.finish_reason == "eos" else ()
        if self._ours(answer, end):
            # Servers give the ids of a stop string too.
            kept, source = trim(tokenizer, answer.ids[: len(answer.ids) - len(end)], answer.text)
            if source == "engine":
                return replace(answer, ids=(*kept, *end))
        encoded = tokenizer.encode(answer.text, add_special_tokens=False)
        if self._special.intersection(encoded):
            return replace(answer, ids=tuple(encoded), finish_reason="length", logprobs=None, ids_from="retokenised")
        return replace(answer, ids=(*encoded, *end), logprobs=None, ids_from="retokenised")

    @cached_property
    def _size(self) -> int:
        return len(next(iter(self.readers.values())).tokenizer)

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(next(iter(self.readers.values())).tokenizer.all_special_ids)

    def _ours(self, answer: Completion, end: tuple[int, ...]) -> bool:
        """Whether the ids can be of our vocabulary."""
        ids = answer.ids
        return bool(ids) and answer.ids_from == "engine" and max(ids) < self._size and ids[len(ids) - len(end) :] == end
