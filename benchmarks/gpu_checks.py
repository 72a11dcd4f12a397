"""What `gpu_check.py` runs, each in a process of its own: functions of a `Place` that return what they found.

A check that cannot be done here returns why, as ``skipped``; one that fails raises.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config
from model_flops import PEAK, SHAPES, Shape, training_flops
from torch import Tensor

from selftrain.machine import environment
from selftrain.models import attention, logprobs
from selftrain.models.checkpoint import save
from selftrain.models.options import OPTIONS, lacking
from selftrain.models.small import character_tokenizer
from selftrain.objectives.nll import NLL
from selftrain.sampling.base import Request
from selftrain.schema import Kernels, Lora, Optim, Sampling
from selftrain.training.data import MicroBatch, micro_batches
from selftrain.training.engine import TorchEngine
from selftrain.training.fit import Fit, fit
from selftrain.training.learnt import LanguageModel
from selftrain.training.scoring import score
from selftrain.types import Example, Problem

TINY = Shape("qwen3", 32, 64, 2, 4, 2, 16, True, vocab_size=512, max_position_embeddings=512)
PACKED = (512, 512, 1024, 1024, 1024, 2048, 2048)
"""Sequences of one packed row of 8,192 tokens."""
PROMPT = 32
ALPHABET = "0123456789+-*= #"
Found = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where checks run, and how large."""

    device: str
    tiny: bool

    def shape(self, name: str) -> Shape:
        return TINY if self.tiny else SHAPES[name]

    @property
    def lengths(self) -> tuple[int, ...]:
        return (40, 41, 47) if self.tiny else PACKED

    def peak(self) -> int | None:
        """Largest bytes allocated since the last call; None on a CPU, where they are not counted."""
        if self.device == "cpu":
            return None
        bytes_ = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return int(bytes_)

    def wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


class Given(LanguageModel):
    """A model that is here already."""

    def __init__(self, model: Any) -> None:
        self.model = self.backbone = model
        self.adapter, self._temperature = None, 1.0


def random_model(shape: Shape, place: Place, dtype: torch.dtype = torch.float32, spread: float = 0.02) -> Any:
    """Random weights, made where they are to be."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = shape.config()
    config.initializer_range = spread
    with torch.device(place.device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")


def written(folder: Path, shape: Shape, place: Place) -> Path:
    """A checkpoint with random weights."""
    save(random_model(shape, place), character_tokenizer(ALPHABET, shape.max_position_embeddings), folder)
    return folder


def rows(lengths: Sequence[int], vocabulary: int) -> list[Example]:
    """Random sequences; all but the prompt carries loss."""
    draw = torch.Generator().manual_seed(0)
    every = [torch.randint(3, vocabulary, (length,), generator=draw).tolist() for length in lengths]
    return [
        Example(f"{number:04d}", f"{number:04d}", "own", tuple(ids[:PROMPT]), tuple(ids[PROMPT:]))
        for number, ids in enumerate(every)
    ]


def trainer(model: Any, optim: Optim, kernels: Kernels, folder: Path) -> TorchEngine:
    character_tokenizer(ALPHABET, 512).save_pretrained(folder)
    return TorchEngine(folder, NLL(), optim, steps=100, device=str(model.device), kernels=kernels, learnt=Given(model))


def laid(lengths: Sequence[int], shape: Shape) -> list[MicroBatch]:
    return micro_batches(rows(lengths, shape.vocab_size), batching="packed", max_tokens=sum(lengths), pad=0)


OPTIM = Optim(lr=1e-4, warmup=0.0, schedule="constant", dtype="bfloat16", batching="packed")


def about(place: Place) -> Found:
    """The card, versions, and what can be had."""
    found: Found = {**environment(), "options": {name: lacking(name) or "can be had" for name in OPTIONS}}
    if place.device != "cpu":
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "memory": card.total_memory, "cuda": torch.version.cuda}
    return found


def sampling(place: Place) -> Found:
    """The transformers sampler: tokens per second, and greedy answers twice."""
    from selftrain.sampling.transformers import Transformers

    shape, rows_, longest = place.shape("Qwen2.5-0.5B"), *((4, 8) if place.tiny else (256, 128))
    work = [
        Request(
            Problem(str(at), "check", "train", ""),
            (3, 4, 5 + at % 8),
            (at,),
            Sampling(temperature=0, max_tokens=longest),
        )
        for at in range(rows_)
    ]
    with tempfile.TemporaryDirectory() as folder:
        sampler = Transformers(device=place.device, dtype="bfloat16").open(written(Path(folder), shape, place))
        answers, seconds = [], []
        for _ in range(3):
            began = time.perf_counter()
            done = sorted((one for part in sampler.sample(work) for one in part), key=lambda one: one.request)
            seconds.append(time.perf_counter() - began)
            answers.append([one.ids for one in done])
    return {
        "tokens per second": round(sum(map(len, answers[-1])) / min(seconds[1:])),
        "rows": rows_,
        "repeats": answers[1] == answers[2],
    }


def training(place: Place) -> Found:
    """The engine in bf16 learns a few sequences by heart; and does it again."""
    shape = place.shape("Qwen2.5-0.5B")
    lengths, steps = ((40, 47), 4) if place.tiny else ((128,) * 8, 12)
    found: Found = {}
    for exact in (False, True):
        torch.use_deterministic_algorithms(exact, warn_only=True)
        ends = [_learn(place, shape, lengths, steps) for _ in range(2)]
        name = "deterministic algorithms" if exact else "as it is"
        found[name] = {"repeats bit for bit": ends[0] == ends[1]}
        found["losses"] = [round(loss, 4) for loss in ends[0][0]]
    torch.use_deterministic_algorithms(False)
    if not found["losses"][-1] < found["losses"][0]:
        raise ValueError(f"the loss does not fall: {found['losses']}")
    return found


def _learn(place: Place, shape: Shape, lengths: Sequence[int], steps: int) -> tuple[list[float], str]:
    with tempfile.TemporaryDirectory() as folder:
        engine = trainer(random_model(shape, place), replace(OPTIM, lr=1e-3), Kernels(), Path(folder))
    batches = laid(lengths, shape)
    losses = [engine.step(batches).loss for _ in range(steps)]
    digest = hashlib.sha256()
    for tensor in engine.weights().values():
        digest.update(tensor.numpy().tobytes())
    engine.close()
    return losses, digest.hexdigest()


def speed(name: str, *, again: bool = False, compiled: bool = False) -> Callable[[Place], Found]:
    """Tokens per second and model FLOP utilisation of training a shape at one packed row a step."""

    def check(place: Place) -> Found:
        shape = place.shape(name)
        kernels = Kernels(compile=compiled)
        if compiled and place.device == "cpu":
            torch._inductor.config.compile_threads = 1  # Others would have to start first.
        optim = replace(OPTIM, gradient_checkpointing=again)
        with suppress(torch.OutOfMemoryError):
            return _measured(place, shape, kernels, optim)
        gc.collect()
        torch.cuda.empty_cache()
        return {"note": "the whole model and its optimizer do not fit: half the layers"} | _measured(
            place, shape.halved(), kernels, optim
        )

    return check


def _measured(place: Place, shape: Shape, kernels: Kernels, optim: Optim) -> Found:
    place.peak()
    model = random_model(shape, place)
    with tempfile.TemporaryDirectory() as folder:
        engine = trainer(model, optim, kernels, Path(folder))
    found: Found = {
        "parameters": model.num_parameters(),
        "layers": shape.num_hidden_layers,
        "attention": attention.in_use(model),
        "compiled": kernels.compile,
        "gradient checkpointing": optim.gradient_checkpointing,
    }
    del model
    layouts = {"packed": place.lengths, "one sequence": (sum(place.lengths),)}
    for layout, lengths in [*layouts.items()][: 1 if place.tiny else 2]:
        batches = laid(lengths, shape)
        seconds = []
        for _ in range(2 if place.tiny else 8):
            began = time.perf_counter()
            step = engine.step(batches)
            seconds.append(time.perf_counter() - began)
        typical = statistics.median(seconds[-5:])
        work = training_flops(shape, lengths, step.loss_tokens)
        found[layout] = {
            "tokens per second": round(step.tokens / typical),
            "utilisation": round(work / typical / PEAK, 4),
            "seconds per step": round(typical, 4),
            "first step": round(seconds[0], 2),
            "tokens": step.tokens,
            "peak bytes": place.peak(),
        }
    engine.close()
    return found


def attentions(place: Place) -> Found:
    """Each implementation over one packed row, in bf16: time, memory, and how far it is from sdpa with its mask."""
    shape = place.shape("Qwen3-0.6B")
    shape = shape if place.tiny else replace(shape, num_hidden_layers=4)
    model = random_model(shape, place, spread=0.05)
    (batch,) = (_there(one, place) for one in laid(place.lengths, shape))
    names = ["sdpa", attention.VARLEN, *(name for name in attention.FLASH if lacking(name) is None)]
    found: Found = {name: lacking(name) for name in attention.FLASH if lacking(name)}
    expected: Tensor | None = None
    for name in names:
        attention.use(model, name)
        values, row = _timed(place, lambda: _read(model, batch))
        expected = values if expected is None else expected
        difference = float((values - expected).abs().max())
        found[name] = row | {"largest difference": difference}
        if difference > 0.5:
            raise ValueError(f"{name} computes something else than sdpa: {found}")
    return found


def _there(batch: MicroBatch, place: Place) -> MicroBatch:
    from selftrain.training.data import moved

    return moved(batch, place.device)


def _read(model: Any, batch: MicroBatch, **chosen: Any) -> Tensor:
    """Log-probabilities, and their gradient."""
    model.zero_grad(set_to_none=True)
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        found = logprobs.batch_logprobs(
            model, batch.input_ids, batch.position_ids, batch.positions, lengths=batch.lengths, **chosen
        )
    (-found.mean()).backward()
    return found.detach()


def _timed(place: Place, run: Callable[[], Tensor]) -> tuple[Tensor, Found]:
    run()
    place.peak()
    seconds = []
    for _ in range(1 if place.tiny else 5):
        place.wait()
        began = time.perf_counter()
        values = run()
        place.wait()
        seconds.append(time.perf_counter() - began)
    return values, {"seconds": round(statistics.median(seconds), 5), "peak bytes": place.peak()}


def loss_memory(place: Place) -> Found:
    """The loss of one row at the full vocabulary: all logits at once, in chunks of several sizes, by the package."""
    shape = replace(place.shape("Qwen2.5-0.5B"), num_hidden_layers=1)
    model = random_model(shape, place)
    (batch,) = (_there(one, place) for one in laid(place.lengths, shape))
    found: Found = {}
    losses: list[Tensor] = []
    for bits in (24, 10) if place.tiny else (31, 24, 26, 27, 28):
        logprobs.CHUNK_LOGITS = logprobs.CHUNK_LOGITS_GPU = 2**bits
        values, row = _timed(place, lambda: _read(model, batch))
        found["all at once" if not losses else f"chunks of 2^{bits}"] = row
        losses.append(values)
    if (reason := lacking("cut_cross_entropy")) is None:
        values, found["cut_cross_entropy"] = _timed(place, lambda: _read(model, batch, cut=True))
        losses.append(values)
    else:
        found["cut_cross_entropy"] = reason
    found["largest difference"] = max(float((own - losses[0]).abs().max()) for own in losses)
    if found["largest difference"] > 0.1:
        raise ValueError(f"the ways to compute the loss do not agree: {found}")
    return found


def scoring(place: Place) -> Found:
    """Log-probabilities of given responses in bf16: tokens per second, and how far they are from fp32."""
    shape = place.shape("Qwen2.5-0.5B")
    examples = rows(
        [40 + at % 7 for at in range(6)] if place.tiny else [200 + at for at in range(300)], shape.vocab_size
    )
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = random_model(shape, place).to(dtype).eval()
        values, row = _timed(place, lambda model=model: _joined(score(model, examples)))  # type: ignore[misc]
        tokens = sum(len(one.prompt_ids) + len(one.response_ids) for one in examples)
        found[str(dtype)] = (values, row | {"tokens per second": round(tokens / row["seconds"])})
    exact, half = found.values()
    return {name: row for name, (_, row) in found.items()} | {
        "largest difference": float((exact[0] - half[0]).abs().max())
    }


def _joined(values: Sequence[Any]) -> Tensor:
    return torch.cat([torch.from_numpy(own) for own in values])


def four_bits(place: Place) -> Found:
    """An adapter on a base in 4 bits learns."""
    if (reason := lacking("nf4")) is not None:
        return {"skipped": reason}
    return {"losses": _fitted(place, "nf4", lora=Lora(base="nf4"))}


def zero(stage: int) -> Callable[[Place], Found]:
    """One rank of DeepSpeed's ZeRO against the plain engine, over the same steps."""

    def check(place: Place) -> Found:
        if importlib.util.find_spec("selftrain.training.zero") is None or lacking_package("deepspeed"):
            return {"skipped": "not installed: the DeepSpeed engine"}
        chosen = importlib.import_module("selftrain.schema").Trainer(engine="deepspeed", processes=1, zero=stage)
        began = time.perf_counter()
        losses = _fitted(place, f"zero{stage}", trainer=chosen)
        seconds = time.perf_counter() - began
        plain = _fitted(place, "plain")
        apart = max(abs(one - other) / abs(other) for one, other in zip(losses, plain, strict=True))
        if apart > 0.05:
            raise ValueError(f"ZeRO-{stage} learns otherwise than the plain engine: {losses} against {plain}")
        return {"losses": losses, "plain": plain, "largest share apart": apart, "seconds": round(seconds, 1)}

    return check


def _fitted(place: Place, name: str, **chosen: Any) -> list[float]:
    """The losses of a short fit from a checkpoint to a checkpoint."""
    shape = place.shape("Qwen2.5-0.5B")
    optim = replace(OPTIM, batching="bucketed", batch_size=4, steps=4)
    with tempfile.TemporaryDirectory() as folder:
        source = written(Path(folder) / "start", shape, place)
        asked = Fit(source, Path(folder) / name, Path(folder) / "log", NLL(), optim, 0, **chosen)
        steps = list(fit(rows([48 if place.tiny else 512] * 4, shape.vocab_size), asked))
    losses = [step.last.loss for step in steps]
    if not losses[-1] < losses[0]:
        raise ValueError(f"the loss does not fall: {losses}")
    return losses


def lacking_package(name: str) -> bool:
    return importlib.util.find_spec(name) is None


def through_vllm(place: Place) -> Found:
    """Tokens per second through the real engine."""
    if place.device == "cpu":
        return {"skipped": "on a CPU: benchmarks/bench_grow.py measures it"}
    if lacking_package("vllm"):
        return {"skipped": "not installed: pip install 'selftrain[vllm]'"}
    from selftrain.sampling.vllm import VLLM

    asked = Sampling(temperature=1.0, max_tokens=256)
    work = [Request(Problem(str(at), "check", "train", ""), (3, 4, 5 + at % 8), (at,), asked) for at in range(1024)]
    with tempfile.TemporaryDirectory() as folder:
        engine = VLLM().open(written(Path(folder), place.shape("Qwen2.5-0.5B"), place))
        try:
            began = time.perf_counter()
            tokens = sum(len(one.ids) for part in engine.sample(work) for one in part)
            seconds = time.perf_counter() - began
        finally:
            engine.close()
    return {"tokens per second": round(tokens / seconds), "requests": len(work)}


CHECKS: dict[str, tuple[Callable[[Place], Found], int]] = {
    "about": (about, 30),
    "speed Qwen3-8B": (speed("Qwen3-8B", again=True), 90),
    "speed Qwen3-0.6B": (speed("Qwen3-0.6B"), 60),
    "training": (training, 60),
    "attention": (attentions, 60),
    "loss memory": (loss_memory, 60),
    "sampling": (sampling, 60),
    "scoring": (scoring, 60),
    "speed Qwen2.5-0.5B": (speed("Qwen2.5-0.5B"), 60),
    "speed Qwen2.5-1.5B": (speed("Qwen2.5-1.5B"), 60),
    "speed Qwen3-8B compiled": (speed("Qwen3-8B", again=True, compiled=True), 120),
    "speed Qwen3-0.6B compiled": (speed("Qwen3-0.6B", compiled=True), 90),
    "zero 2": (zero(2), 90),
    "zero 3": (zero(3), 90),
    "4 bits": (four_bits, 60),
    "vllm": (through_vllm, 120),
}
"""By name, the most telling first: the check, and the seconds it may take."""
