"""How long replicas that share a work list are idle, and what a replica that dies costs.

Scheduling is measured with processes that sleep for every token: a stage of T seconds whose longest response takes T/3,
with its length known or not. What a static split would leave idle is worked out from the same responses, dealt out in
turn. The real vLLM draws such a stage on two replicas, which share the cores there are: what counts is the queue's own
bookkeeping, when a replica had nothing to draw, not how fast it was.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import random_checkpoint, save

TOKEN, SHORT, RUNS = 0.005, 20, 3
"""Seconds of a token, tokens of a response, runs of each kind."""
TIMED = """
import time
from dataclasses import dataclass
from selftrain.sampling.scripted import Scripted, ScriptedSampler, codec

@dataclass(frozen=True)
class Timed(Scripted):
    def open(self, checkpoint):
        return TimedSampler(self, codec(checkpoint))

class TimedSampler(ScriptedSampler):
    def _answer(self, place, request, indices):
        for found in super()._answer(place, request, indices):
            time.sleep(SECONDS * request.problem.metadata["tokens"])
            yield found
"""


def timed_work(count: int, longest: int, known: bool) -> list[Any]:
    """Short responses, and a long one behind them."""
    from selftrain.sampling.base import Request
    from selftrain.schema import Sampling
    from selftrain.types import Problem

    tokens = [SHORT] * count + [longest]
    problems = [
        Problem(f"t/train/{place}", "t", "train", "", "3", metadata={"tokens": own}) for place, own in enumerate(tokens)
    ]
    return [
        Request(problem, (1,), (place,), Sampling(), expected=tokens[place] if known else None)
        for place, problem in enumerate(problems)
    ]


def scheduled(folder: Path, replicas: int, known: bool) -> dict[str, float]:
    """Idle share of a stage whose longest response takes a third of it where it is begun first."""
    from selftrain.planning.engine import open_sampler
    from selftrain.sampling.fleet import Fleet
    from selftrain.schema import Component, Launch, Replicas

    (folder / "timed.py").write_text(TIMED.replace("SECONDS", str(TOKEN)))
    count = 40 * replicas
    longest = count * SHORT // (3 * replicas - 1)  # A third of (count * SHORT + longest) / replicas.
    work = timed_work(count, longest, known)
    launch = Launch(sample=Replicas(replicas=replicas))
    fleet = open_sampler(Component(f"{folder}/timed.py:Timed"), folder, launch)
    assert isinstance(fleet, Fleet)
    assert sum(map(len, fleet.sample(work))) == count + 1
    account = fleet.account
    fleet.close()
    return {
        "seconds": account.seconds,
        "idle": account.idle_share,
        "longest of stage": TOKEN * longest / account.seconds,
        # Each waits for the long response from when the rest is done, but who draws it.
        "overhang": 0.0 if known else TOKEN * longest * (replicas - 1) / replicas / account.seconds,
        "static split": static([SHORT] * count + [longest], replicas),
    }


def static(tokens: Sequence[int], replicas: int) -> float:
    """Idle share where responses are dealt out in turn beforehand."""
    loads = [sum(tokens[number::replicas]) for number in range(replicas)]
    return 1 - sum(loads) / (replicas * max(loads))


def greedy_work(tokenizer: Any, count: int, longest: int, known: bool) -> list[Any]:
    """Greedy responses, which end at their limit: short ones, and a long one, which is begun last where it is not
    known to be."""
    from selftrain.sampling.base import Request
    from selftrain.schema import Sampling
    from selftrain.types import Problem

    work = []
    for place in range(count + 1):
        prompt = f"{place % 10}+{place // 10}="
        short = SHORT // 2 + 7 * place % (SHORT + 1)  # SHORT in the mean.
        settings = Sampling(temperature=0, max_tokens=short if place < count else longest)
        problem = Problem(f"t/train/{place}", "t", "train", prompt, "3")
        expected = 1.0 if place == count and not known else None
        work.append(Request(problem, tuple(tokenizer.encode(prompt)), (place,), settings, expected=expected))
    return work


def engines(folder: Path) -> dict[str, Any]:
    """A stage on two vLLM engines, and the same with one of them killed half way; what handing over took."""
    from selftrain.planning.engine import OpenEngine
    from selftrain.sampling.fleet import Fleet
    from selftrain.sampling.replica import Account
    from selftrain.schema import Component, Launch, Replicas

    slots, count = 8, 960
    # Steps: count * SHORT / (2 * slots) of both; the long one is about a third of them.
    longest = count * SHORT // (2 * slots) // 3
    model = folder / "model"
    tokenizer = random_checkpoint(model)
    work = greedy_work(tokenizer, count, longest, known=True)
    open_engine = OpenEngine(lambda: None, Launch(sample=Replicas(replicas=2)))
    component = Component("vllm", {"max_num_seqs": slots, "engine": {"block_size": 32}})
    fleet: Any = open_engine.loaded(component, "policy", model)
    assert isinstance(fleet, Fleet)
    undisturbed = drawn(fleet, work)
    first, fleet.account = fleet.account, Account(2)
    drawn(fleet, greedy_work(tokenizer, count, longest, known=False))
    unknown, fleet.account = fleet.account, Account(2)
    disturbed = drawn(fleet, work, kill_after=count // 2)
    second = fleet.account
    shutil.copytree(model, folder / "next")
    assert fleet.reload(folder / "next")
    seconds = {part: round(spent, 2) for part, spent in fleet.spent.items()}
    open_engine.close()
    handover = open_engine.handed_over()
    return {
        "longest, in steps of all": round(longest / (count * SHORT / (2 * slots)), 2),
        "undisturbed": told(first),
        "undisturbed, length unknown": told(unknown),
        "killed": {
            **told(second),
            "replaced": second.replaced,
            "responses drawn twice": second.redone,
            "tokens drawn twice": second.twice,
            "of tokens": sum(map(len, disturbed.values())),
            "without a replica": round(second.missing / (2 * second.seconds), 3),
        },
        "samples equal": sum(undisturbed[place] == disturbed[place] for place in undisturbed) / len(undisturbed),
        "lost or doubled": len(undisturbed.keys() ^ disturbed.keys()),
        "handover seconds": {**{part: round(spent, 2) for part, spent in handover.seconds.items()}, **seconds},
    }


def told(account: Any) -> dict[str, float]:
    return {"seconds": round(account.seconds, 1), "idle": round(account.idle_share, 4)}


def drawn(fleet: Any, work: Sequence[Any], kill_after: int | None = None) -> dict[tuple[int, int], tuple[int, ...]]:
    found: dict[tuple[int, int], tuple[int, ...]] = {}
    for completions in fleet.sample(work):
        for one in completions:
            assert (one.request, one.index) not in found
            found[one.request, one.index] = one.ids
        if kill_after is not None and len(found) >= kill_after:
            keeper = fleet.replicas[1]._engine._worker._process.pid
            body = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()[0]
            os.kill(int(body), signal.SIGKILL)
            kill_after = None
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = {
            f"{replicas} replicas, length {'known' if known else 'unknown'}": [
                scheduled(folder, replicas, known) for _ in range(RUNS)
            ]
            for replicas in (2, 4)
            for known in (True, False)
        }
        real = engines(folder)
    shown = {kind: {part: [round(run[part], 4) for run in own] for part in own[0]} for kind, own in runs.items()}
    save("fleet", {"scheduling": shown, "vllm, 2 replicas": real})


if __name__ == "__main__":
    main()
