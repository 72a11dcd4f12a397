"""What is asked: the model a run starts from, tasks and their prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from selftrain.ranges import Count, Draws, Mass, NotNegative, Size


@dataclass(frozen=True)
class Reasoning:
    """The marks around what a model thinks before it answers."""

    open: str = "<think>"
    close: str = "</think>"


@dataclass(frozen=True)
class Chat:
    """How a prompt becomes what the model reads, and where its answer stands; a plain string is the template."""

    template: str = "auto"
    """auto: the tokenizer's chat template where it has one; none: plain text; else a file with a Jinja template."""
    system: str | None = None
    """System message of every task that has none of its own."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Given to the template, such as ``enable_thinking: false``."""
    stop: tuple[str, ...] = ()
    """Strings that end a response, beside those of a step."""
    stop_ids: tuple[int, ...] = ()
    """Token ids of the model, likewise; they end what a teacher writes only where they are the same tokens to it."""
    reasoning: Reasoning | None = None
    """The answer is what follows the last close; a response that does not close counts as truncated."""


@dataclass(frozen=True)
class Model:
    """Where the run starts: a checkpoint, or a small architecture with random weights."""

    path: str | None = None
    """Folder or hub name of a causal language model."""
    architecture: dict[str, Any] | None = None
    """``model_type`` and fields of a transformers config, instead of ``path``."""
    alphabet: str | None = None
    """With ``architecture``: the characters its tokenizer knows, one token each."""
    chat: Chat = field(default_factory=Chat)


@dataclass(frozen=True)
class FewShot:
    """Worked examples in front of every problem."""

    n: Size = 0
    source: str = "train"
    """Written ``from``: the split whose demonstrations they are; the first by a hash of their ids, never the problem
    itself."""
    separator: str = "\n\n"
    """Between examples, where the prompt is plain text; a chat has a turn for each."""


@dataclass(frozen=True)
class Prompt:
    template: str = "{question}"
    """Filled with the question and what the task knows of the problem."""
    system: str | None = None
    """System message, for chat templates; that of ``model.chat`` where none is given."""
    instruction: str = ""
    """How to answer; follows the question on a line of its own."""
    answer: str = "{demonstration}"
    """How a worked solution is written, in an example and where it is taught; fields as in a template, and
    ``{answer}``. Plain text needs its own space or line break in front: " {demonstration}"."""
    few_shot: FewShot = field(default_factory=FewShot)


@dataclass(frozen=True)
class TaskSampling:
    """What a task samples otherwise than the step or the evaluation says; what stops it comes beside theirs, ids as in
    ``model.chat``."""

    n: Draws | None = None
    temperature: NotNegative | None = None
    top_k: Size | None = None
    top_p: Mass | None = None
    max_tokens: Count | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Task:
    """A task of the run; fields the schema does not know are options of its kind."""

    kind: str = MISSING
    """Defaults to the task's name."""
    prompt: Prompt = field(default_factory=Prompt)
    train_prompt: Prompt | None = None
    """The prompt examples are taught under, where it is another than they are sampled with."""
    sampling: TaskSampling = field(default_factory=TaskSampling)
    weight: NotNegative = 1.0
    """Its share of ``grow.STEP.prompts``, beside the other tasks' weights; 0: evaluated only, nothing is learnt from it
    or decided by it."""
    verifier: Any = None
    """A component; the task's own verifier where none is given."""
    limit: dict[str, Size] = field(default_factory=dict)
    """Problems used at most, per split; the first ones."""
    options: Any = None
