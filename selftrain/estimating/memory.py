"""Memory of one GPU by part, in bytes, while a learner is fitted and while a policy is sampled.

Weights, gradients and optimizer state follow Rajbhandari et al. 2020, "ZeRO", section 3.1, as DeepSpeed's own
estimators count them; what is kept of a layer for its backward pass is counted from what transformers' decoders keep
(Korthikanti et al. 2022, "Reducing Activation Recomputation", counts the same for GPT). All of it is a few per cent
below what an allocator takes in the end: `USABLE` is left for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from selftrain.estimating.shapes import Shape

Offload = Literal["none", "optimizer", "parameters"]
Parts = dict[str, int]
"""Bytes by what they are for."""

USABLE = 0.92
"""Of a GPU's memory, what may be planned with: the rest is the driver's, NCCL's, and lost to fragments."""
CHUNK_LOGITS, CHUNK_LOGITS_GPU = 2**24, 2**27
"""Logits that the loss holds at once (`selftrain.models.logprobs`)."""
REDUCE_BUCKET, LIVE_PARAMETERS = 500_000_000, 1_000_000_000
"""DeepSpeed's defaults: numbers that are reduced together, and parameters that ZeRO-3 keeps gathered."""
FP32, BF16 = 4, 2


@dataclass(frozen=True)
class Trainer:
    """How a learner is fitted."""

    engine: Literal["torch", "deepspeed"] = "torch"
    processes: int = 1
    """One per GPU."""
    zero: int = 0
    """What is divided among the processes: 1 the optimizer's state, 2 gradients too, 3 weights too."""
    offload: Offload = "none"
    sequence_parallel: int = 1
    """Processes that share every sequence."""
    micro_tokens: int = 16384
    longest: int = 0
    """Tokens of the longest sequence: a forward pass holds at least that one, however small ``micro_tokens``."""
    checkpointing: bool = False
    bf16: bool = True
    packed: bool = False
    trained: int | None = None
    """Parameters that are fitted, where it is an adapter's alone."""
    gpu: bool = True

    @property
    def width(self) -> int:
        """Bytes of a number in the type of the computation."""
        return BF16 if self.bf16 else FP32

    @property
    def tokens(self) -> int:
        """Tokens of a forward pass on one GPU."""
        return ceil(max(self.micro_tokens, self.longest) / self.sequence_parallel)


def training(shape: Shape, trainer: Trainer) -> Parts:
    """Bytes on each GPU while a learner is fitted."""
    states = deepspeed_states(shape, trainer) if trainer.engine == "deepspeed" else torch_states(shape, trainer)
    return {**states, **passes(shape, trainer)}


def torch_states(shape: Shape, trainer: Trainer) -> Parts:
    """fp32 parameters, gradients and moments; autocast adds a copy of the weights in the type it computes in, but for a
    GPU that computes activations again.

    Of an adapter the frozen base is held in the compute type.
    """
    copies = BF16 if trainer.bf16 and not (trainer.gpu and trainer.checkpointing) else 0
    if trainer.trained is not None:
        base = shape.parameters * trainer.width
        fitted = trainer.trained
        return {"weights": base + fitted * (FP32 + copies), "gradients": fitted * FP32, "optimizer": fitted * 2 * FP32}
    return {
        "weights": shape.parameters * (FP32 + copies),
        "gradients": shape.parameters * FP32,
        "optimizer": shape.parameters * 2 * FP32,
    }


def deepspeed_states(shape: Shape, trainer: Trainer) -> Parts:
    """Weights and gradients in the type of the computation; fp32 gradients, weights and moments for the step."""
    fitted = shape.parameters if trainer.trained is None else trainer.trained
    held = shape.parameters if trainer.trained is None else shape.parameters + trainer.trained
    weights, gathered = trainer.width * held, 0
    if trainer.zero == 3:
        gathered = FP32 * shape.largest
        weights = 0 if trainer.offload == "parameters" else weights // trainer.processes
    stepped = fitted // trainer.processes if trainer.zero else fitted
    reduced = stepped if trainer.zero >= 2 else fitted
    on_gpu = trainer.offload == "none"
    # ZeRO-1 in bf16 is another optimizer of DeepSpeed's (BF16_Optimizer), whose fp32 gradients are whole on every rank.
    summed = fitted if trainer.zero == 1 and trainer.bf16 else stepped
    return {
        "weights": weights + gathered,
        "gradients": trainer.width * reduced + FP32 * summed if on_gpu else 0,
        "optimizer": 3 * FP32 * stepped if on_gpu else 0,
        "buffers": buffers(held, trainer),
    }


def buffers(parameters: int, trainer: Trainer) -> int:
    """What DeepSpeed reduces and gathers through."""
    if trainer.processes == 1 and trainer.offload == "none":
        return 0
    reduced = trainer.width * min(parameters, REDUCE_BUCKET)
    return reduced + (trainer.width * min(parameters, LIVE_PARAMETERS) if trainer.zero == 3 else 0)


def host(shape: Shape, trainer: Trainer) -> int:
    """Bytes of the machine's own memory that a process takes for what is not on its GPU."""
    if trainer.offload == "none":
        return 0
    fitted = shape.parameters if trainer.trained is None else trainer.trained
    weights = trainer.width * shape.parameters if trainer.offload == "parameters" else 0
    # Gradients in both types, and weights and moments in fp32.
    return (weights + (trainer.width + 4 * FP32) * fitted) // trainer.processes


def passes(shape: Shape, trainer: Trainer) -> Parts:
    """Bytes that one forward pass leaves for its backward pass."""
    tokens, residual = trainer.tokens, residual_bytes(trainer)
    layer = layer_bytes(shape, trainer)
    # A checkpointed layer leaves its input, and one at a time is computed anew.
    kept = shape.layers * shape.hidden * residual + layer if trainer.checkpointing else shape.layers * layer
    mask = 3 * tokens * tokens if trainer.packed else 0
    return {"activations": tokens * kept + mask, "loss": 3 * tokens * shape.hidden * FP32 + chunk(shape, trainer)}


def chunk(shape: Shape, trainer: Trainer) -> int:
    """Bytes beside the hidden states, those that are read, and their gradient: a chunk of logits, its exponentials and
    their gradient; where there are several chunks, the gradient of the output matrix by one and by those before it."""
    most = max(1, (CHUNK_LOGITS_GPU if trainer.gpu else CHUNK_LOGITS) // shape.vocabulary)
    again = trainer.tokens > most and trainer.trained is None
    several = 2 * trainer.width * shape.vocabulary * shape.hidden if again else 0
    return 3 * FP32 * min(trainer.tokens, most) * shape.vocabulary + several


def residual_bytes(trainer: Trainer) -> int:
    """Of a number between two layers: under autocast it stays fp32."""
    return BF16 if trainer.engine == "deepspeed" and trainer.bf16 else FP32


def layer_bytes(shape: Shape, trainer: Trainer) -> int:
    """Bytes a token leaves in a layer: norms and inputs of products, the gated feed-forward part, attention with its
    log-sum-exp. Attention keeps no scores."""
    queries, keys = shape.attention, shape.kv_heads * shape.head_dim
    statistics = 8 + 4 * shape.heads
    if not trainer.bf16:
        normed = 8 * (queries + keys) + 4 * (shape.heads + shape.kv_heads) if shape.qk_norm else 0
        return 24 * shape.hidden + 16 * shape.intermediate + 8 * (queries + keys) + statistics + normed
    wide = 26 if residual_bytes(trainer) == FP32 else 16
    normed = 6 * (queries + keys) + 4 * (shape.heads + shape.kv_heads) if shape.qk_norm else 0
    return wide * shape.hidden + 8 * shape.intermediate + 4 * (queries + keys) + statistics + normed


@dataclass(frozen=True)
class Sampler:
    """How a policy is sampled."""

    memory: float
    """Bytes of a GPU."""
    share: float = 0.9
    """Of them that the engine takes."""
    tensor_parallel: int = 1
    sequences: int = 256
    """Responses that grow together at most."""
    length: int = 4096
    """Longest prompt and response together."""
    batched_tokens: int = 8192
    """Tokens of one step of the engine at most."""


def sampling(shape: Shape, sampler: Sampler) -> Parts:
    """Bytes on each GPU while a policy is sampled: the key-value cache takes what the rest leaves."""
    weights = BF16 * shape.parameters // sampler.tensor_parallel
    widest = max(2 * shape.intermediate, shape.attention) // sampler.tensor_parallel
    hidden = sampler.batched_tokens * BF16 * (2 * shape.hidden + widest)
    working = hidden + 2 * FP32 * sampler.sequences * shape.vocabulary
    room = int(sampler.share * sampler.memory) - weights - working
    return {"weights": weights, "activations": working, "cache": max(0, room)}


def cached_tokens(shape: Shape, sampler: Sampler) -> int:
    """Tokens whose keys and values a replica of the engine has room for."""
    # Heads that do not divide are held by every GPU.
    per_token = BF16 * shape.kv_values // min(sampler.tensor_parallel, shape.kv_heads)
    return sampling(shape, sampler)["cache"] // per_token


def together(shape: Shape, sampler: Sampler, tokens: float | None = None) -> int:
    """Responses of so many tokens, or of the longest, that grow together."""
    return min(sampler.sequences, int(cached_tokens(shape, sampler) // (tokens or sampler.length)))
