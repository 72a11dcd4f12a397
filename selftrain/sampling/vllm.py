"""Sampling with vLLM, in a process of its own that ends with this one.

The whole work list is fed to the engine as fast as it takes it. Long responses are shown to the journal while they
grow, and one that a kill cut off goes on from its last token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from selftrain.ranges import Count, Positive, Share
from selftrain.sampling.base import ALL, Answers, Completion, Request
from selftrain.sampling.vllm_checkpoint import context_length, layout_of, reading, weights_of
from selftrain.sampling.vllm_drawing import Drawing
from selftrain.sampling.vllm_engine import Turn
from selftrain.sampling.vllm_process import EngineProcess
from selftrain.sampling.vllm_scoring import logprobs
from selftrain.types import Example

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray


@dataclass(frozen=True)
class VLLM:
    """Options of the vLLM sampler; needs `vllm` (`make install`, or pip's extra ``vllm`` for GPUs)."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: as the checkpoint says on a GPU, float32 elsewhere."""
    max_num_seqs: Count = 256
    """Responses that grow together."""
    max_model_len: Count | None = None
    """Longest prompt and response together; the model's context where none is given."""
    gpu_memory_utilization: Share = 0.9
    cache_gb: Count = 1
    """Memory for the key-value cache where there is no GPU."""
    tensor_parallel_size: Count = 1
    quantization: str | None = None
    enforce_eager: bool = False
    """No CUDA graphs and no compilation: a quicker start, slower sampling; always where there is no GPU."""
    prefix_caching: bool = True
    logprobs: bool = False
    """Record the log-probability of every sampled token under the distribution it was drawn from: 4-5 times slower
    where there is no GPU."""
    patience: Positive = 1800.0
    """Seconds without any progress, also while a model loads, after which an engine counts as stuck and is ended."""
    engine: dict[str, Any] = field(default_factory=dict)
    """Further arguments of vLLM's engine, by their own names."""

    name = "vllm"
    speed = ("max_num_seqs", "gpu_memory_utilization", "cache_gb", "tensor_parallel_size", "enforce_eager", "patience")
    journaled = True

    def check(self) -> None:
        """Raises ValueError where vLLM is not installed."""
        from importlib.util import find_spec

        if find_spec("vllm") is None:
            raise ValueError("kind: vllm is not installed here; install it (make install), or choose transformers")

    def open(self, checkpoint: Path) -> VLLMSampler:
        return VLLMSampler(self, checkpoint)

    def arguments(self, gpu: bool) -> dict[str, Any]:
        """Fields of vLLM's EngineArgs."""
        given = {
            "dtype": "float32" if self.dtype == "auto" and not gpu else self.dtype,
            "max_num_seqs": self.max_num_seqs,
            "max_model_len": self.max_model_len,
            "gpu_memory_utilization": self.gpu_memory_utilization if gpu else None,
            "tensor_parallel_size": self.tensor_parallel_size,
            "quantization": self.quantization,
            "enforce_eager": self.enforce_eager or not gpu,
            "enable_prefix_caching": self.prefix_caching,
            "logprobs_mode": "processed_logprobs",
            "disable_log_stats": True,
            # Seeded requests crash the CPU engine once a prefill is chunked.
            **({} if gpu else {"enable_chunked_prefill": False}),
            **self.engine,
        }
        return {name: value for name, value in given.items() if value is not None}

    def environment(self, gpu: bool) -> dict[str, str]:
        common = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
        if gpu:
            return common
        own = {"VLLM_CPU_KVCACHE_SPACE": str(self.cache_gb), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        # One process per rank must not bind to the cores of another.
        cores = {"VLLM_CPU_OMP_THREADS_BIND": "|".join(map(str, range(self.tensor_parallel_size)))}
        return common | own | (cores if self.tensor_parallel_size > 1 else {})


class VLLMSampler:
    """An engine with the weights of one checkpoint; ``reload`` gives it those of another."""

    def __init__(self, options: VLLM, checkpoint: Path) -> None:
        from selftrain.models.checkpoint import load_tokenizer

        self._tokenizer: Any = load_tokenizer(checkpoint)
        weights, self._rank = weights_of(checkpoint)
        self._options = options
        self._layout = layout_of(weights, self._tokenizer)
        self._context = context_length(weights.model, options.max_model_len)
        gpu = Path("/proc/driver/nvidia/version").exists()
        adapters = {"enable_lora": True, "max_lora_rank": self._rank} if self._rank else {}
        arguments = {**adapters, **reading(weights), **options.arguments(gpu)}
        self._engine = EngineProcess(weights, arguments, options.environment(gpu), patience=options.patience)

    def close(self) -> None:
        self._engine.close()

    def while_waiting(self, check_stop: Callable[[], None]) -> None:
        """Call this while the engine is silent; what it raises ends the waiting."""
        self._engine.check_stop = check_stop

    def reload(self, checkpoint: Path) -> bool:
        """Take over the weights of a checkpoint; False where this engine cannot: it keeps the architecture, tokenizer
        and end tokens it was opened with, and without an adapter then it has no place for any."""
        from selftrain.models.checkpoint import load_tokenizer

        weights, rank = weights_of(checkpoint)
        if rank > self._rank or layout_of(weights, load_tokenizer(checkpoint)) != self._layout:
            return False
        self._engine.ask(weights)
        self._engine.receive()
        return True

    def sample(self, work: Sequence[Request], answers: Answers = ALL) -> Iterator[list[Completion]]:
        own = self._options
        drawing = Drawing(
            work, answers, self._tokenizer, context=self._context, together=own.max_num_seqs, logprobs=own.logprobs
        )
        asked = self._ask(drawing) + self._ask(drawing)
        while asked:
            ended = drawing.grow(self._engine.receive())
            # One turn is under way and the next goes out before this answer is looked at: the engine never waits.
            asked += self._ask(drawing) - 1
            try:
                yield [drawing.completion(row) for row in ended]
            except GeneratorExit:
                self._give_up(drawing, asked)
                raise

    def logprobs(self, examples: Sequence[Example]) -> list[NDArray[float32]]:
        """log p of every response token under the weights as they are, the end token included, at temperature 1:
        ``[L]`` each, 0 outside the loss mask. As `selftrain.training.scoring.Scorer.logprobs`.

        Raises:
            ValueError: a sequence is longer than the context, or a log-probability is not a number.
            EngineFailed: the engine failed.
        """
        return logprobs(self._engine, examples, context=self._context, together=self._options.max_num_seqs)

    def _give_up(self, drawing: Drawing, asked: int) -> None:
        """Nobody listens any more: what is under way must not answer the next work list."""
        for _ in range(asked):
            self._engine.receive()
        if asked:
            self._engine.ask(Turn(drop=list(drawing.rows)))
            self._engine.receive()

    def _ask(self, drawing: Drawing) -> bool:
        """Send the next turn, where there is anything to tell or to wait for."""
        turn = drawing.turn()
        if waits := bool(turn.add or turn.drop or drawing.rows or drawing.full):
            self._engine.ask(turn)
        return waits
