"""The core records every part of selftrain speaks in.

All are frozen and made of plain Python values, so they cross process borders and files unchanged;
a changed record is made with ``dataclasses.replace``. Token sequences are tuples of vocabulary ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

FinishReason = Literal["eos", "stop", "length", "context", "tool_limit"]
Status = Literal["right", "wrong", "unparsed", "timeout", "error"]
STATUSES: tuple[Status, ...] = ("right", "wrong", "unparsed", "timeout", "error")
UNJUDGED: tuple[Status, ...] = ("error", "timeout")
"""Those that say nothing of a response."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One task item."""

    id: str
    """``task/split/upstream id`` (or a hash of the question); unique in a run."""
    task: str
    split: str
    question: str
    answer: Any = None
    """Gold answer; None where there is none; a JSON-able object for code tests."""
    demonstration: str | None = None
    """A worked gold solution, or None."""
    difficulty: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One response of one policy to one problem."""

    id: str
    """Known before sampling: sha256(run seed, iteration, step, problem, parent, index), 20 hex digits."""
    problem_id: str
    iteration: int
    step: str
    """The step of Grow that wrote it (``draft``), or the split it evaluates."""
    index: int
    """Position among the problem's samples, counted from 0 and fixed before sampling."""
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    """What followed the prompt, the end token included where the model wrote one."""
    text: str
    """The response decoded, without special tokens, cut before a stop string."""
    finish_reason: FinishReason
    policy: str
    """Who wrote it: digest of the checkpoint, or name of the model of a server."""
    sampler: str
    origin: str = "policy"
    """``policy``, ``teacher``, or the file of another tool it was taken over from."""
    ids_from: Literal["engine", "retokenised"] = "engine"
    seed: int = 0
    parent_id: str | None = None
    loss_mask: tuple[bool, ...] | None = None
    """One flag per response id, False on tokens the policy did not write; None means all True."""
    logprobs: tuple[float, ...] | None = None
    """Natural log-probability per response id under the distribution sampled from; None when off."""
    segments: tuple[int, ...] | None = None
    """Where a later process went on after a kill, as indices into the response ids; the seed of a segment is
    derived from ``seed`` and its place."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says of one response. ``error`` and ``timeout`` mean: could not judge."""

    status: Status
    value: float | None = None
    """Credit in [0, 1]; None where the response was not judged."""
    answer: str | None = None
    """The final answer the verifier extracted."""
    reason: str | None = None
    seconds: float = 0.0
    """Wall-clock time of this one judgement."""
    verifier: str = ""
    """Name and digest of the verifier and its options."""
    by: str | None = None
    """Which part of the verifier decided: ``judge`` for a model where no rule could; None for its rules."""


@dataclass(frozen=True, slots=True)
class Score:
    """A number a reward source gave one sample."""

    sample_id: str
    source: str
    """Name of the source, or ``total`` after transforms and weighting."""
    valid: bool
    reward: float | None = None
    step_ends: tuple[int, ...] | None = None
    """Exclusive end of each step, as an index into the response ids."""
    step_rewards: tuple[float, ...] | None = None
    token_rewards: tuple[float, ...] | None = None
    members: tuple[float, ...] | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence a learner is fitted to."""

    id: str
    problem_id: str
    source: str
    """Name of the selection it came through."""
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    """Carries loss where ``loss_mask`` allows it, the end token included."""
    weight: float = 1.0
    """Multiplies every token's loss."""
    sample_id: str | None = None
    loss_mask: tuple[bool, ...] | None = None
    eos_added: bool = False
    """The end token was appended here; the policy did not sample it."""
    label: float | None = None
    """How right the response is, in [0, 1]."""
    advantages: tuple[float, ...] | None = None
    """One per response id; 0 where nothing is learnt."""
    targets: tuple[float, ...] | None = None
    """One per response id: what a value head is to say there; NaN where it is told nothing."""
    old_logprobs: tuple[float, ...] | None = None
    """Natural log-probability per response id under the distribution it was sampled from."""
    reference_logprobs: tuple[float, ...] | None = None
    """Natural log-probability per response id under the reference."""
    pair_id: str | None = None
    """Two examples with the same one, a chosen and a rejected response to one problem, are learnt together."""
    role: Literal["chosen", "rejected", "mismatched"] | None = None
    """mismatched: a response under a prompt it does not answer; nothing is learnt from it."""


@dataclass(frozen=True, slots=True)
class TreeNode:
    """A state of a search: a problem and the steps that lead here."""

    tree_id: str
    problem_id: str
    node_id: int
    """Place in its tree, parents before children; 0 is the root, which has no tokens."""
    parent: int
    """-1: none."""
    depth: int
    ids: tuple[int, ...]
    """What this node adds to its parent's response."""
    text: str
    prior: float | None = None
    """log p of ``ids`` under the distribution they were sampled from."""
    value: float | None = None
    """What the value function says of it, in [0, 1]."""
    visits: int = 0
    value_sum: float = 0.0
    """Over its visits."""
    state: Literal["open", "end", "closed"] = "open"
    """end: the response is complete; closed: nothing may follow, for ``reason``."""
    reason: str | None = None
    sample_id: str | None = None
    """Of an end: the sample whose verdict says whether it is right."""
    mc: float | None = None
    """Share of the completions from here that are right, where some were drawn."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What a model gives the tokens of one response."""

    key: str
    """Digest of prompt and response."""
    logprobs: tuple[float, ...]
    """Natural log-probability per response token, the end token included."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """One named number of one evaluation."""

    task: str
    split: str
    iteration: int
    name: str
    value: float
    low: float | None = None
    high: float | None = None
    """95 % interval over problems."""
    n: int = 0
    """Number of problems."""
