"""How responses are drawn, judged and rewarded."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from selftrain.ranges import Count, Draws, Finite, Mass, NotNegative, Positive, Share, Size
from selftrain.schema.searching import Searching


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn."""

    temperature: NotNegative = 1.0
    """0 is greedy."""
    top_k: Size = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: Mass = 1.0
    max_tokens: Count = 512
    """Longest response in tokens, the end token included."""
    stop: tuple[str, ...] = ()
    """Strings that end a response; the text is cut before them."""
    stop_ids: tuple[int, ...] = ()
    """Tokens of who writes that end a response beside its own end tokens; the response is cut before them."""
    values: Literal["config", "model"] = "config"
    """config: the numbers above; model: temperature, top_k and top_p are those that the generation_config of the model
    names."""


@dataclass(frozen=True)
class Accept:
    """Which problems of a step are learnt from, by how often they were solved."""

    accuracy: tuple[Share, Share] = (0.2, 0.8)
    """Smallest and largest share of right samples, both included: nothing is learnt from problems that are always or
    never solved."""
    oversample: Count = 4
    """Problems asked at most, as a multiple of ``prompts``; so many at a time until enough are accepted."""
    truncated: Literal["keep", "drop"] = "keep"
    """drop: problems with a response that was cut short are not accepted."""


@dataclass(frozen=True)
class Grow(Searching, Sampling):
    """A step of Grow."""

    kind: Literal["sample", "search"] = "sample"
    """sample: whole responses, ``n`` for each problem; search: a tree for each problem, step by step."""
    keep: Literal["all", "chosen"] = "all"
    """Which complete responses of a tree become samples: all, or the one the strategy chooses."""
    n: Draws = 8
    """Samples per problem, at most 65,536."""
    enough: Count | None = None
    """Right samples after which a problem is done, counted by index."""
    prompts: Count | None = None
    """Problems per iteration, shared among the tasks by weight; all where none is given."""
    accept: Accept | None = None
    """Ask further problems until ``prompts`` of them are solved neither too often nor too seldom."""
    model: str = "policy"
    """Who writes: the policy; or a teacher: a folder or hub name, or the name under which a server knows it."""
    sampler: Any = "transformers"

    def sampling(self) -> Sampling:
        return Sampling(**{option.name: getattr(self, option.name) for option in fields(Sampling)})

    def idle(self) -> frozenset[str]:
        """Fields that mean nothing to a step of this kind."""
        return SAMPLE_ONLY if self.kind == "search" else SEARCH_ONLY


SEARCH_ONLY = frozenset({"keep", *(option.name for option in fields(Searching))})
"""Fields that mean nothing to a step that samples."""
SAMPLE_ONLY = frozenset({"n", "enough", "accept"})
"""Fields that mean nothing to a search."""


@dataclass(frozen=True)
class Verify:
    """Bounds of one judgement."""

    seconds: Positive = 25.0
    """A program that is run may take 10 s, and as long again while others have the processors."""
    memory_mb: Count = 2048
    max_errors: Share = 0.2
    """Share of judgements that end in error or timeout above which the run stops."""


@dataclass(frozen=True)
class Reward:
    sources: dict[str, Any] = field(default_factory=lambda: {"verdict": "outcome"})
    total: dict[str, Finite] | None = None
    """Weight of each source in the total; 1 each where none are given."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type in which models that score responses compute, references of learners and guides of searches too."""
    verify: Verify = field(default_factory=Verify)
