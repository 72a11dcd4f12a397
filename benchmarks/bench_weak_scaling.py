"""Weak scaling from one process to two: the same work for each, and how much more is done in the same time.

Each rank of a DeepSpeed fit reads as many tokens in a step, each vLLM replica draws as many samples. A process has a
core and a thread, two have two. What the cores themselves lose where both are busy (memory, caches, clock) is told
apart by a third kind of run: two single processes side by side that know nothing of each other. Runs are interleaved;
everything is started before the clock.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from common import random_checkpoint, save

from selftrain.config import instantiate
from selftrain.objectives.nll import NLL
from selftrain.planning.engine import open_sampler
from selftrain.sampling.base import Request
from selftrain.sampling.fleet import Fleet
from selftrain.sampling.replica import Replica
from selftrain.sampling.seats import Seat
from selftrain.schema import Component, Launch, Optim, Replicas, Sampling, Trainer
from selftrain.training.data import length, micro_batches
from selftrain.training.group import Group
from selftrain.training.zero.engine import SERVE, DeepSpeedEngine, start_of
from selftrain.types import Example, Problem

CORES = (*sorted(os.sched_getaffinity(0))[:2],)
KINDS = ("1", "2", "2 apart")
OPTIM = Optim(lr=1e-4, warmup=0.0, schedule="constant", dtype="float32")
Run = Callable[[], int]
"""Does its work and says how many tokens it was."""


@dataclass(frozen=True)
class Size:
    """How much is done; for each process."""

    rounds: int = 5
    steps: int = 8
    sequences: int = 32
    """Of a rank in a step."""
    tokens: tuple[int, int] = (64, 192)
    """Of a sequence, from and to."""
    hidden: int = 128
    layers: int = 4
    samples: int = 512
    """Of a replica."""
    together: int = 128
    longest: int = 96


TINY = Size(rounds=2, steps=2, sequences=4, hidden=64, layers=2, samples=16, together=8, longest=16)


@contextmanager
def on(cores: Sequence[int]) -> Iterator[None]:
    """This thread, and what it starts, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def apart(runs: Sequence[Run]) -> Run:
    """All at once, each in a thread."""

    def run() -> int:
        with ThreadPoolExecutor(len(runs)) as threads:
            return sum(threads.map(lambda one: one(), runs))

    return run


def measured(kinds: dict[str, Run], rounds: int) -> dict[str, Any]:
    """Tokens per second of each kind of run, after one of each that does not count."""
    speeds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds + 1):
        for kind in list(kinds)[:: 1 if number % 2 else -1]:
            with on(CORES[:1] if kind == "1" else CORES):
                began = time.perf_counter()
                tokens = kinds[kind]()
                if number:
                    speeds[kind].append(tokens / (time.perf_counter() - began))
    return {
        "tokens_per_second": {kind: [round(speed) for speed in own] for kind, own in speeds.items()},
        "two_to_one": ratios(speeds["2"], speeds["1"]),
        "two_to_two_apart": ratios(speeds["2"], speeds["2 apart"]),
    }


def ratios(more: Sequence[float], fewer: Sequence[float]) -> dict[str, float]:
    """Of runs of the same round."""
    own = [one / other for one, other in zip(more, fewer, strict=True)]
    return {"median": round(statistics.median(own), 3), "least": round(min(own), 3), "most": round(max(own), 3)}


def sequences(size: Size) -> list[Example]:
    """Those of one rank, and behind them as many of the same lengths."""
    draw = random.Random(0)
    sizes = [draw.randint(*size.tokens) for _ in range(size.sequences)]
    every = [tuple(draw.randrange(3, 19) for _ in range(own)) for own in 2 * sizes]
    return [Example(f"{at}", f"{at}", "own", ids[:16], ids[16:]) for at, ids in enumerate(every)]


def training(model: Path, size: Size) -> dict[str, Any]:
    """ZeRO-2 and ZeRO-3 at the same tokens for each rank."""
    with ExitStack() as opened:
        groups = []
        for cores, count in ((CORES[:1], 1), (CORES[-1:], 1), (CORES, 2)):
            with on(cores):
                groups.append(opened.enter_context(closing(Group(SERVE, count))))
        return {f"zero {zero}": measured(_fits(model, size, groups, zero), size.rounds) for zero in (2, 3)}


def _fits(model: Path, size: Size, groups: Sequence[Group], zero: int) -> dict[str, Run]:
    examples = sequences(size)
    one, other, both = (_steps(model, size, group, zero, examples[: len(group) * size.sequences]) for group in groups)
    return dict(zip(KINDS, (one, both, apart([one, other])), strict=True))


def _steps(model: Path, size: Size, group: Group, zero: int, examples: Sequence[Example]) -> Run:
    trainer = Trainer("deepspeed", len(group), zero)
    engine = DeepSpeedEngine(start_of(model, NLL(), OPTIM), NLL(), OPTIM, steps=1_000_000, trainer=trainer, group=group)

    def run() -> int:
        tokens = 0
        for _ in range(size.steps):
            laid = micro_batches(
                examples, batching=OPTIM.batching, max_tokens=OPTIM.micro_tokens, pad=0, shares=engine.shares
            )
            tokens += engine.step(laid).tokens
        return tokens

    return run


def requests(tokenizer: Any, count: int, longest: int) -> list[Request]:
    """Greedy responses, which end at their limit, from a third of the longest on."""
    work = []
    for place in range(count):
        prompt = f"{place % 10}+{place // 10}="
        asked = Sampling(temperature=0, max_tokens=longest // 3 + 7 * place % (longest - longest // 3))
        problem = Problem(f"t/train/{place}", "t", "train", prompt, "3")
        work.append(Request(problem, tuple(tokenizer.encode(prompt)), (place,), asked))
    return work


def sampling(model: Path, tokenizer: Any, size: Size) -> dict[str, Any]:
    """vLLM engines, a core each, at the same samples for each; one alone is fed by the same queue."""
    component = Component("vllm", {"max_num_seqs": size.together, "engine": {"block_size": 32}})
    fleet = open_sampler(component, model, Launch(sample=Replicas(replicas=2)))
    assert isinstance(fleet, Fleet)
    with closing(fleet):
        half, whole = (requests(tokenizer, count * size.samples, size.longest) for count in (1, 2))
        alone = [_drawn(_of_one(component, model, replica), half) for replica in fleet.replicas]
        kinds = dict(zip(KINDS, (alone[0], _drawn(fleet, whole), apart(alone)), strict=True))
        return {**measured(kinds, size.rounds), "idle": round(fleet.account.idle_share, 4)}


def _of_one(component: Component, model: Path, replica: Replica) -> Fleet:
    return Fleet(instantiate("sampler", component), model, [Seat()], lambda *_: replica)


def _drawn(sampler: Fleet, work: Sequence[Request]) -> Run:
    return lambda: sum(len(one.ids) for completions in sampler.sample(work) for one in completions)


def main(size: Size) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        tokenizer = random_checkpoint(
            model,
            hidden_size=size.hidden,
            intermediate_size=3 * size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=size.hidden // 32,
        )
        return {
            "parameters": (model / "model.safetensors").stat().st_size // 4,
            "tokens of a rank and step": sum(map(length, sequences(size)[: size.sequences])),
            "samples of a replica": size.samples,
            "training": training(model, size),
            "sampling": sampling(model, tokenizer, size),
        }


if __name__ == "__main__":
    if sys.argv[1:] == ["--tiny"]:
        print(main(TINY))
    else:
        assert len(CORES) == 2, "it needs two cores"
        save("weak_scaling", main(Size()))
