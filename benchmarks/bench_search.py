"""What a tree search costs beside the models it asks, and what growing many trees at once is worth.

MCTS* on chained arithmetic, a warmed-up policy and a value model of the same size. (a) The time of a search against
that of its engine and value-model calls alone: the same requests to the engine again, and forward passes of the value
model over as many rows, with as many tokens read before them and as many new ones. (b) Nodes a second with 64 problems
at once, with one problem at a time, and with one proposal and one path a call. (c) Tokens that the models read and drew
for each node, and the memory of trees. Sides are interleaved; each begins with nothing remembered.

    python benchmarks/bench_search.py [key=value ...]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from common import save
from transformers import DynamicCache

from selftrain.artifacts import RunDir
from selftrain.cli import main as cli
from selftrain.config import instantiate, load_config
from selftrain.drawing.proposing import Proposer
from selftrain.drawing.sampled import request
from selftrain.sampling.base import ALL, Answers, Completion, Request
from selftrain.search.asks import Functions, Proposal, State, Wanted
from selftrain.search.driver import advance
from selftrain.search.tree import Tree
from selftrain.session import Session
from selftrain.stages.search import budget
from selftrain.training import paths as value_paths
from selftrain.training.keys import Row, read_rows
from selftrain.training.paths import PathValues
from selftrain.training.valuing import StepPath

CONFIG = Path(__file__).parent.parent / "configs" / "rest_mcts_arithmetic.yaml"
PROBLEMS, ALONE, SINGLY, RUNS = 64, 8, 2, 3
"""Problems of each side: at once, one at a time, and one proposal a call."""

Shape = list[tuple[int, int]]
"""Of a forward pass: tokens read before and new ones, by row."""


@dataclass
class Recorder:
    """What a search asked its models, in order: an engine like any other."""

    engine: Any
    requests: list[list[Request]] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)

    def close(self) -> None:
        """The engine stays open."""

    def sample(self, work: Sequence[Request], answers: Answers = ALL) -> Iterator[list[Completion]]:
        self.requests.append(list(work))
        yield from self.engine.sample(work, answers)

    def read(self, model: Any, rows: Sequence[Row]) -> list[list[float]]:
        self.shapes.append([(row.back, row.tokens) for row in rows])
        return read_rows(model, rows)


@dataclass
class Bench:
    session: Session
    step: str
    engine: Any
    value_model: Path
    requests: list[Request]

    def search(self, count: int, lanes: int, singly: bool = False, recorder: Recorder | None = None) -> dict[str, Any]:
        """So many problems, ``lanes`` at a time; what it took, and its trees."""
        chosen = self.session.config.grow[self.step]
        asked = {one.problem.id: one for one in self.requests[:count]}
        propose = Proposer(recorder or self.engine, self.session.tokenizer, asked, chosen.separator)
        with PathValues(self.value_model, writer=self.session.tokenizer) as values:
            functions = Functions(propose, lambda states: values.values(paths(states, asked)))
            began, trees, cached = time.perf_counter(), [], 0
            strategy, limits = instantiate("search", chosen.strategy), budget(chosen, chosen.max_tokens)
            for tree in advance(
                asked, strategy, one_by_one(functions) if singly else functions, budget=limits, lanes=lanes
            ):
                cached = max(cached, values.cached_tokens)
                values.forget(asked[tree.problem].prompt_ids)
                trees.append(tree)
            seconds = time.perf_counter() - began
            return {
                "seconds": seconds,
                "nodes": nodes(trees),
                "trees": trees,
                "read": values.tokens_read,
                "cached": cached,
            }

    def alone(self, recorder: Recorder) -> float:
        """Seconds of the recorded calls, with nothing around them."""
        with PathValues(self.value_model, writer=self.session.tokenizer) as values:
            backbone, seconds = values._valuer.model.backbone, 0.0
            for work in recorder.requests:
                began = time.perf_counter()
                for _ in self.engine.sample(work):
                    pass
                seconds += time.perf_counter() - began
            for shape in recorder.shapes:
                given = tensors(backbone, shape)
                began = time.perf_counter()
                with torch.inference_mode():
                    backbone(**given)
                seconds += time.perf_counter() - began
        return seconds


def paths(states: Sequence[State], asked: dict[str, Request]) -> list[StepPath]:
    every = [(asked[state.problem], state.steps) for state in states]
    return [StepPath(one.prompt_ids, steps, one.problem.question) for one, steps in every]


def one_by_one(functions: Functions) -> Functions:
    """A call for each proposal and for each value."""

    def propose(wanted: Sequence[Wanted]) -> list[list[Proposal]]:
        singles = [[replaced(one, seed) for seed in one.seeds] for one in wanted]
        return [[functions.propose([single])[0][0] for single in own] for own in singles]

    def value(states: Sequence[State]) -> list[float]:
        assert functions.value is not None
        return [functions.value([state])[0] for state in states]

    return Functions(propose, value)


def replaced(wanted: Wanted, seed: int) -> Wanted:
    return Wanted(wanted.state, 1, wanted.max_tokens, wanted.to_end, wanted.greedy, (seed,))


def tensors(backbone: Any, shape: Shape) -> dict[str, Any]:
    """A forward pass of this shape: right-padded new tokens behind a filled cache."""
    back, width = max(old for old, _ in shape), max(new for _, new in shape)
    mask = torch.zeros(len(shape), back + width, dtype=torch.long)
    for at, (old, new) in enumerate(shape):
        mask[at, :old] = mask[at, back : back + new] = 1
    config, cache = backbone.config, DynamicCache(config=backbone.config)
    size = (len(shape), config.num_key_value_heads, back, config.head_dim)
    layers: list[Any] = cache.layers if back else []
    for layer in layers:
        layer.lazy_initialization(torch.zeros(size), torch.zeros(size))
        layer.keys, layer.values = torch.randn(size), torch.randn(size)
    positions = torch.tensor([[old + place for place in range(width)] for old, _ in shape])
    ids = torch.ones(len(shape), width, dtype=torch.long)
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return {**given, "past_key_values": cache, "use_cache": True}


def nodes(trees: Sequence[Tree]) -> int:
    """The roots were not searched for."""
    return sum(len(tree.nodes) - 1 for tree in trees)


@contextmanager
def opened(folder: str, overrides: Sequence[str]) -> Iterator[Bench]:
    given = [f"run.folder={folder}", "track.live=none", *overrides]
    assert cli(["run", str(CONFIG), *given, "--until", "warmup-value"]) == 0
    config = load_config(CONFIG, given)
    (step,) = [name for name, one in config.grow.items() if one.kind == "search"]
    with Session(config, RunDir(Path(folder) / config.run.name)) as session:
        writer = session.writer(step, 0)
        chosen = session.problems.of("arithmetic", "train")[:PROBLEMS]
        settings = session.settings(config.grow[step].sampling(), "arithmetic")
        asked = [request(one, writer, settings, 1, seed=0, iteration=1, step=step) for one in chosen]
        engine = session.sampler(writer.sampler, writer.checkpoint)
        yield Bench(session, step, engine, session.stages.checkpoint("value", 0), asked)


def measure(bench: Bench) -> dict[str, Any]:
    bench.search(4, 4)  # Warm.
    ratios: list[float] = []
    rates: dict[str, list[float]] = {"64 at once": [], "one at a time": [], "one proposal a call": []}
    for _ in range(RUNS):
        recorder = Recorder(bench.engine)
        setattr(value_paths, "read_rows", recorder.read)  # noqa: B010
        whole = bench.search(PROBLEMS, PROBLEMS, recorder=recorder)
        setattr(value_paths, "read_rows", read_rows)  # noqa: B010
        ratios.append(whole["seconds"] / bench.alone(recorder))
        one, single = bench.search(ALONE, 1), bench.search(SINGLY, 1, singly=True)
        for name, side in zip(rates, (whole, one, single), strict=True):
            rates[name].append(side["nodes"] / side["seconds"])
    return {
        "times its calls alone": told(ratios),
        "nodes a second": {name: told(values) for name, values in rates.items()},
        "times one at a time": told([a / b for a, b in zip(rates["64 at once"], rates["one at a time"], strict=True)]),
        "times one proposal a call": told(
            [a / b for a, b in zip(rates["64 at once"], rates["one proposal a call"], strict=True)]
        ),
        **costs(whole, recorder, bench),
    }


def costs(whole: dict[str, Any], recorder: Recorder, bench: Bench) -> dict[str, Any]:
    """Per node: what the models read and drew; memory of a thousand nodes."""
    trees: list[Tree] = whole["trees"]
    prompts = sum(len(ids) for work in recorder.requests for ids in {one.prompt_ids for one in work})
    drawn = sum(tree.spent.policy_tokens for tree in trees)
    proposals = sum(tree.spent.proposals for tree in trees)
    tracemalloc.start()
    kept = bench.search(ALONE, ALONE)
    del kept["seconds"]
    size = sum(
        one.size
        for one in tracemalloc.take_snapshot()
        .filter_traces([tracemalloc.Filter(True, "*/search/*")])
        .statistics("filename")
    )
    tracemalloc.stop()
    return {
        "nodes": whole["nodes"],
        "proposals": proposals,
        "calls of the engine": len(recorder.requests),
        "forward passes of the value model": len(recorder.shapes),
        "tokens by node": {
            "drawn": round(drawn / whole["nodes"], 2),
            "read by the policy": round(prompts / whole["nodes"], 2),
            "read by the value model": round(whole["read"] / whole["nodes"], 2),
        },
        "kilobytes of 1000 nodes": round(size / kept["nodes"], 1),
        "tokens whose keys are kept at most": whole["cached"],
    }


def told(values: Sequence[float]) -> dict[str, Any]:
    return {"median": round(statistics.median(values), 3), "by run": [round(value, 3) for value in values]}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, opened(folder, sys.argv[1:]) as bench:
        result = measure(bench)
    save("search", result)


if __name__ == "__main__":
    main()
