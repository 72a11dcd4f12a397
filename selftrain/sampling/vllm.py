"""Sampling with vLLM, in a process of its own that ends with this one.

The whole work list is fed to the engine as fast as it takes it. Long responses are shown to the journal while they
grow, and one that a kill cut off goes on from its last token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from selftrain.errors import NotHere
from selftrain.ranges import Count, Positive, Share
from selftrain.sampling.base import ALL, AllWanted, Answers, Completion, Request, Take, Unit
from selftrain.sampling.order import longest_first, order
from selftrain.sampling.seats import Seat
from selftrain.sampling.vllm_checkpoint import context_length, layout_of, reading, weights_of
from selftrain.sampling.vllm_drawing import Drawing, Row
from selftrain.sampling.vllm_engine import Sleep, Turn
from selftrain.sampling.vllm_process import EngineProcess
from selftrain.sampling.vllm_scoring import logprobs
from selftrain.types import Example

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray


ALONE = Seat()


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
    sleeps = True

    def check(self) -> None:
        """Raises NotHere where vLLM is not installed."""
        from importlib.util import find_spec

        if find_spec("vllm") is None:
            raise NotHere("kind: vllm is not installed here; install it (make install), or choose transformers")

    def open(self, checkpoint: Path) -> VLLMSampler:
        return VLLMSampler(self, checkpoint)

    @property
    def gpus(self) -> int:
        """Those that one engine takes."""
        return self.tensor_parallel_size * int(self.engine.get("pipeline_parallel_size", 1))

    def replica(self, checkpoint: Path, seat: Seat) -> VLLMSampler:
        """One of several engines; they differ in nothing but their place."""
        return VLLMSampler(self, checkpoint, seat)

    def units(self, work: Sequence[Request], by_index: bool) -> Iterable[Unit]:
        """All samples, each for itself, in the order in which they are begun."""
        every = AllWanted(by_index=by_index)
        return ((place,) for place in order(work, every, self.max_num_seqs, longest_first(work)))

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

    def environment(self, gpu: bool, seat: Seat = ALONE) -> dict[str, str]:
        common = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", **seat.environment()}
        if gpu:
            return common
        own = {"VLLM_CPU_KVCACHE_SPACE": str(self.cache_gb), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        if seat.start is not None:  # Its threads are counted elsewhere, and its cores are those of another machine.
            return common | own | {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        # One process per rank and replica must not bind to the cores of another.
        ranks = (",".join(map(str, cores)) for cores in seat.cores(self.tensor_parallel_size))
        shared = self.tensor_parallel_size > 1 or seat.count > 1
        return common | own | ({"VLLM_CPU_OMP_THREADS_BIND": "|".join(ranks)} if shared else {})


class VLLMSampler:
    """An engine with the weights of one checkpoint; ``reload`` gives it those of another."""

    def __init__(self, options: VLLM, checkpoint: Path, seat: Seat = ALONE) -> None:
        from selftrain.models.checkpoint import load_tokenizer

        self._tokenizer: Any = load_tokenizer(checkpoint)
        weights, self._rank = weights_of(checkpoint)
        self._options = options
        self._layout = layout_of(weights, self._tokenizer)
        self._context = context_length(weights.model, options.max_model_len)
        gpu = seat.on_gpu
        adapters = {"enable_lora": True, "max_lora_rank": self._rank} if self._rank else {}
        sleeping = {"enable_sleep_mode": True} if seat.sleeps else {}
        arguments = {**adapters, **reading(weights), **sleeping, **options.arguments(gpu)}
        environment = options.environment(gpu, seat)
        self._engine = EngineProcess(weights, arguments, environment, patience=options.patience, start=seat.start)
        self.spent: dict[str, float] = {}
        """Seconds of what the last new weights took, by its part: wake, reload, reset."""

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
        self.spent = self._engine.receive()
        return True

    def sleep(self, level: int) -> None:
        """Give up the memory of the GPU until the next ``reload``; for an engine whose seat says that it sleeps."""
        self._engine.ask(Sleep(level))
        self._engine.receive()

    def sample(self, work: Sequence[Request], answers: Answers = ALL) -> Iterator[list[Completion]]:
        places = order(work, answers, self._options.max_num_seqs)
        rows = self.draw(work, lambda: next(((place,) for place in places), None), answers)
        next(rows)  # It has only asked by then.
        yield from rows

    def poll(self, timeout: float = 0.0) -> bool:
        """Whether ``draw`` would go on now, or within ``timeout`` seconds.

        Raises:
            EngineFailed: there was no progress for too long.
        """
        return not self._engine.waiting or self._engine.poll(timeout)

    def draw(self, work: Sequence[Request], take: Take, answers: Answers) -> Iterator[list[Completion]]:
        """As ``sample``, of those samples that ``take`` gives; it waits for the engine after its first answer."""
        own = self._options
        together, context = own.max_num_seqs, self._context
        drawing = Drawing(
            work, take, answers, self._tokenizer, context=context, together=together, logprobs=own.logprobs
        )
        asked = self._ask(drawing) + self._ask(drawing)
        ended: list[Row] = []
        while True:
            try:
                yield [drawing.completion(row) for row in ended]
            except GeneratorExit:
                if not self._engine.closed:
                    self._give_up(drawing, asked)
                raise
            if not asked:
                return
            ended = drawing.grow(self._engine.receive())
            # One turn is under way and the next goes out before this answer is looked at: the engine never waits.
            asked += self._ask(drawing) - 1

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
