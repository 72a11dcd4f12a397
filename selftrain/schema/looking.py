"""What is measured: evaluations and monitors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import MISSING

from selftrain.ranges import Count, DrawsOrNone, Finite
from selftrain.schema.growing import Sampling
from selftrain.schema.searching import Searching


@dataclass(frozen=True)
class Kept:
    """Held-out text whose likelihood shows what a model forgets."""

    path: str = MISSING
    """JSON Lines of what is not trained on, general chat for instance: ``{"messages": [...]}``, or ``{"prompt": ...,
    "response": ...}``."""
    n: Count = 64
    """Rows used at most; the first ones."""


@dataclass(frozen=True)
class Evaluate:
    splits: tuple[str, ...] = ("val", "test", "transfer")
    """Splits evaluated where a task has them. Validation decides, test is only reported."""
    n: DrawsOrNone = 8
    """Samples per problem for avg@n, pass@k and maj@k; 0 leaves greedy pass@1 alone."""
    k: tuple[int, ...] = ()
    """Further k of pass@k and maj@k; n itself is always among them."""
    greedy: bool = True
    sampling: Sampling | None = None
    """Settings of the sampled metrics; those of the first step of Grow by the policy where none are given."""
    sampler: Any = None
    """A component; that of the first step of Grow by the policy where none is given."""
    prompt: Literal["prompt", "train_prompt"] = "prompt"
    """Which of a task's prompts its problems are asked with."""
    protocol: dict[str, Any] = field(default_factory=dict)
    """By task: a protocol of another evaluation harness, whose numbers are reported beside our own."""
    kept: dict[str, Kept] = field(default_factory=dict)
    """By a name of your choice: files of which every checkpoint's negative log-likelihood is reported."""
    best_of: dict[str, Any] = field(default_factory=dict)
    """By a name of your choice: reward sources that choose among the samples of a problem."""
    vote: Literal["exp", "sigmoid", "sum"] = "exp"
    """What a reward counts for where samples with the same answer are summed up."""
    search: dict[str, Searching] = field(default_factory=dict)
    """By a name of your choice: searches that answer each problem once, by the response that their strategy chooses."""


@dataclass(frozen=True)
class Threshold:
    """From where on a monitor is out of bounds."""

    warn_below: Finite | None = None
    """A smaller value is told as a warning."""
    warn_above: Finite | None = None
    stop_below: Finite | None = None
    """A smaller value ends the run once the iteration is scored."""
    stop_above: Finite | None = None
    after: Count = 1
    """Iterations in a row that must be beyond it."""


@dataclass(frozen=True)
class Monitor:
    """What is measured of every iteration's samples and their rewards; nothing of it makes a finished stage stale."""

    kl: bool = False
    """Whether the divergence of the policy from the model it began with is measured, which takes a forward pass of
    that model over all samples, and of the policy where the sampler records no log-probabilities."""
    repetition: Count = 4
    """Tokens of what counts as repeated."""
    thresholds: dict[str, Threshold] = field(default_factory=dict)
    """By monitor."""
