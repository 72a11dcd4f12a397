"""The schema of a config: one frozen dataclass per section, its defaults, and what each field means."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from omegaconf import MISSING

from selftrain.ranges import BelowOne, Count, Finite, Mass, NotNegative, Positive, Share, Size


@dataclass(frozen=True)
class Component:
    """A component by name, its options checked and complete."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    name: str = "run"
    folder: str = "runs"
    """Where runs lie; this one is ``folder/name``."""
    seed: int = 0
    part_size: Count = 1024
    """Samples per file of Grow, about; a killed run samples at most the unfinished parts again."""
    reuse: bool = True
    """Whether this run takes samples and verdicts from ``folder/.samples`` where another made the same, and gives its
    own."""


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

    n: Count | None = None
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
    """Examples per optimizer step."""
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


@dataclass(frozen=True)
class Warmup:
    """A fit to demonstrations before the first iteration; its result is what ``base`` means."""

    source: str = "demonstrations"
    """Written ``from``: the split whose demonstrations are learnt, or ``gold``: those of the train split."""
    optim: Optim = field(default_factory=Optim)
    lora: Lora | None = None


@dataclass(frozen=True)
class Selection:
    """Which scored samples become examples."""

    source: str = MISSING
    """Written ``from``: a step of Grow, ``gold`` (demonstrations), or ``replay:FILE.jsonl``."""
    kind: Literal["samples", "pairs"] = "samples"
    """samples: each by itself; pairs: a right and a wrong one of the same problem."""
    verdict: Literal["any", "right", "wrong"] = "any"
    reward_above: Finite | None = None
    cap: Count | None = None
    """Examples kept per problem at most, by index."""
    dedupe: Literal["none", "text", "answer"] = "none"
    weight: NotNegative = 1.0
    """Multiplies the loss of every example."""
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
    """Pairs per problem at most; taken so that no sample comes again before each has come once."""


@dataclass(frozen=True)
class Gap:
    """Where the sampler records log-probabilities (its option ``logprobs``): what is done where the trainer finds
    others."""

    correct: Literal["none", "truncate", "mask"] = "truncate"
    """truncate: tokens count by p_trainer / p_sampler, ``bound`` at most; mask: tokens beyond it do not count."""
    bound: Positive = 2.0


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
    verify: Verify = field(default_factory=Verify)


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
class Grow(Sampling):
    """A step of Grow."""

    kind: Literal["sample"] = "sample"
    n: Count = 8
    """Samples per problem."""
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
    n: Size = 8
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


@dataclass(frozen=True)
class Stop:
    """Stops the loop when validation no longer improves."""

    metric: str = "pass@1"
    split: str = "val"
    patience: Count = 1
    """Evaluations without a better value before the loop stops."""


@dataclass(frozen=True)
class Loop:
    iterations: Size = 3
    evaluate_every: Count = 1
    """Iterations from one evaluation to the next; the first and the last are always evaluated."""
    save_every: Count = 1
    """Iterations from one saved optimizer state to the next, where ``optim.state`` is keep: so many are done again at
    most after a kill."""
    keep: Count | None = None
    """Newest iterations whose checkpoints stay on disk, the best one beside them; all where none is given."""
    stop: Stop | None = None


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


@dataclass(frozen=True)
class Launch:
    place: Literal["inline", "processes"] = "inline"
    """inline: stages run in this process; processes: each heavy stage in a child that exits and frees its memory."""
    keep: Literal["stage", "run"] = "stage"
    """How long an engine lives: stage: its memory is freed before a fit; run: it stays and loads new weights."""
    verify_workers: Count = 2
    score_processes: Count = 1
    """Processes that share the responses a model scores; 1: this one does. No more than there are GPUs, where there are
    any."""


@dataclass(frozen=True)
class Track:
    live: Literal["auto", "plain", "none"] = "auto"
    """auto: a live area on a terminal, plain lines elsewhere; plain: lines everywhere; none: nothing."""


@dataclass(frozen=True)
class RunConfig:
    """Everything a run depends on."""

    run: Run = field(default_factory=Run)
    model: Model = field(default_factory=Model)
    tasks: dict[str, Task] = field(default_factory=dict)
    warmup: dict[str, Warmup] = field(default_factory=dict)
    grow: dict[str, Grow] = field(default_factory=dict)
    reward: Reward = field(default_factory=Reward)
    learners: dict[str, Learner] = field(default_factory=dict)
    evaluate: Evaluate = field(default_factory=Evaluate)
    loop: Loop = field(default_factory=Loop)
    monitor: Monitor = field(default_factory=Monitor)
    launch: Launch = field(default_factory=Launch)
    track: Track = field(default_factory=Track)
