"""What learners learn, and how they are fitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import MISSING

from selftrain.ranges import BelowOne, Count, Finite, NotNegative, Positive, Share


@dataclass(frozen=True)
class Validation:
    """Early stopping inside a fit, by loss on held-out problems."""

    fraction: BelowOne = 0.0
    """Share of the problems held out; 0 switches validation off."""
    every: Count = 50
    """Steps between two looks."""
    patience: Count = 3
    """Looks without a better loss before the fit stops; the best weights are kept."""


@dataclass(frozen=True)
class Optim:
    """How a learner is fitted: AdamW on fp32 parameters."""

    lr: Positive = 1e-5
    schedule: Literal["cosine", "constant"] = "cosine"
    state: Literal["reset", "keep"] = "reset"
    """Of a learner that starts from its last iteration: reset: moments and schedule begin anew in every iteration;
    keep: they go on, and the schedule spans the run."""
    warmup: Share = 0.05
    """Share of the steps over which the learning rate rises."""
    min_lr: Share = 0.1
    """Where the cosine ends, as a share of ``lr``."""
    weight_decay: NotNegative = 0.0
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.95)
    eps: Positive = 1e-8
    clip: NotNegative = 1.0
    """Largest gradient norm; 0 switches clipping off."""
    batch_size: Count = 64
    """Examples per optimizer step; all of them, once, where there are fewer."""
    steps: Count | None = None
    epochs: Positive = 1.0
    """Used where ``steps`` is not given."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the computation; parameters are fp32 always."""
    batching: Literal["bucketed", "packed"] = "bucketed"
    micro_tokens: Count = 16384
    """Tokens of one forward pass at most; changes memory and speed only."""
    gradient_checkpointing: bool = False
    validation: Validation = field(default_factory=Validation)


@dataclass(frozen=True)
class Lora:
    """A learner fits low-rank additions to frozen weights. ``optim.lr`` is then ten times its default where none is
    written (Schulman et al. 2025, "LoRA Without Regret")."""

    r: Count = 32
    """Rank of the additions."""
    alpha: Count = 64
    """They are scaled by ``alpha / r``."""
    dropout: BelowOne = 0.0
    """Of what they read, in training."""
    targets: tuple[str, ...] = ("all-linear",)
    """Layers by the ends of their names; ``all-linear``: every linear layer but the output head."""
    base: Literal["compute", "nf4"] = "compute"
    """What the frozen weights are held in during a fit: the type of the computation, or 4 bits (Dettmers et al. 2023,
    QLoRA), by bitsandbytes and on a GPU."""


@dataclass(frozen=True)
class Warmup:
    """A fit to demonstrations before the first iteration; its result is what ``base`` means. A learner of values learns
    that step k of K is worth k / K, and less where a step of another demonstration stands in its place."""

    source: str = "demonstrations"
    """Written ``from``: the split whose demonstrations are learnt, or ``gold``: those of the train split."""
    optim: Optim = field(default_factory=Optim)
    lora: Lora | None = None


@dataclass(frozen=True)
class StepLabels:
    """Where a selection of kind ``step_labels`` finds what each step is worth, and one of ``tree_values`` who must find
    the same first wrong step."""

    source: str = MISSING
    """Written ``from``: the reward source whose step rewards they are."""
    threshold: Finite | None = None
    """Step rewards from here on are labels of 1, others of 0; as they are where none is given."""


@dataclass(frozen=True)
class Selection:
    """Which scored samples become examples."""

    source: str = MISSING
    """Written ``from``: a step of Grow, ``gold`` (demonstrations), or ``replay:FILE.jsonl``."""
    kind: Literal["samples", "pairs", "outcome", "step_labels", "leaves", "tree_values", "step_pairs"] = "samples"
    """samples: each by itself; pairs: a right and a wrong one of the same problem. For value heads, outcome: each with
    its label as the target of its last token; step_labels: each with a target where a step ends. Of a search, leaves:
    samples, also by what the value function says of them; tree_values: every path with what its steps are worth, for
    value heads; step_pairs: a better and a worse step behind the same path."""
    verdict: Literal["any", "right", "wrong"] = "any"
    reward_above: Finite | None = None
    cap: Count | None = None
    """Examples kept per problem at most, by index."""
    dedupe: Literal["none", "text", "answer"] = "none"
    weight: NotNegative = 1.0
    """Multiplies the loss of every example."""
    weigh: Literal["none", "exp", "sigmoid"] = "none"
    """exp, sigmoid: of the total reward; examples weigh as much more, and 1 on the mean of the selection."""
    history: Literal["this", "all"] = "this"
    """all: samples of earlier iterations too, newest first."""
    truncated: Literal["out", "in"] = "out"
    """in: responses that were cut short are learnt from too, without an end token, where labels or advantages say how
    good they are."""
    label: Literal["verdict", "reward"] = "verdict"
    """What objectives that read labels are told of a sample: the verifier's credit, or the total reward."""
    balance: Literal["none", "problem", "all"] = "none"
    """Right and wrong ones weigh the same, in every problem or over all; where there is one kind alone, it is left
    out."""
    pairing: Literal["one_to_one", "cartesian"] = "one_to_one"
    """Of pairs: the first right one with the first wrong one and so on, or each with each."""
    max_per_problem: Count | None = None
    """Pairs per problem at most; taken so that no sample comes again before each has come once, and of step_pairs no
    place of a tree before each."""
    labels: StepLabels | None = None
    """Of step_labels: what the steps are worth. Of tree_values with monte_carlo_hard: only responses of which this
    source and the completions find the same first wrong step are learnt, up to there."""
    value_above: Finite | None = None
    """Of leaves: those of which the value function says more."""
    values: Literal["mcts_star", "simple", "monte_carlo_hard", "monte_carlo_soft", "progress"] = "mcts_star"
    """Of tree_values: how the worth of a step is read off a tree."""
    rank: Literal["q", "mc", "value"] = "q"
    """Of step_pairs: what steps are compared by: their mean over visits, the share of right completions, the value
    function."""
    margin: NotNegative = 0.0
    """Of step_pairs: the better step is better by more than this."""


@dataclass(frozen=True)
class Gap:
    """Where the sampler records log-probabilities (its option ``logprobs``): what is done where the trainer finds
    others."""

    correct: Literal["none", "truncate", "mask"] = "truncate"
    """truncate: tokens count by p_trainer / p_sampler, ``bound`` at most; mask: tokens beyond it do not count."""
    bound: Positive = 2.0


@dataclass(frozen=True)
class LearnerModel:
    """Of a learner that values what is written: what it begins with, and what its head is."""

    path: str | None = None
    """Folder or hub name with the policy's tokenizer; where none is given, the model the run starts from, after its
    warm-up."""
    head: Literal["linear", "mlp"] | None = None
    """A fresh head, ``scalar`` is another name of linear; none: the one that ``path`` holds."""
    normaliser: Literal["sigmoid", "tanh"] | None = None
    """From the head's output to a value; where none is given, as its objective has it."""
    separator: str = "\n"
    """What ends a step."""
    read: Literal["step", "last"] = "step"
    """Where values are read: at the end of every step, or at the last token of a response."""


@dataclass(frozen=True)
class Learner:
    init: str = "base"
    """``base``: the model the run starts from, after warm-up; ``previous``: the last iteration's."""
    when: Literal["after_score", "before_score"] = "after_score"
    """before_score: reward sources already ask what it learns in the same iteration."""
    objective: Any = "nll"
    advantage: Any = None
    """A component; how rewards become advantages, for objectives that read them."""
    reference: str = "base"
    """Which model is the reference, for objectives that read one."""
    examples: dict[str, Selection] = field(default_factory=dict)
    optim: Optim = field(default_factory=Optim)
    gap: Gap = field(default_factory=Gap)
    lora: Lora | None = None
    """Fit an adapter in place of all weights; ``previous`` continues the last one."""
    model: LearnerModel = field(default_factory=LearnerModel)
