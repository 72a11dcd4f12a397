"""Two replicas of the real vLLM: what they draw is what one draws, and one that is killed costs what it held."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from asking import ask, collect

from selftrain.models.checkpoint import load_model, load_tokenizer, save
from selftrain.planning.engine import open_sampler
from selftrain.sampling.base import AllWanted, Completion, Place, Request
from selftrain.sampling.fleet import Fleet
from selftrain.sampling.vllm_drawing import Drawing, Row
from selftrain.sampling.vllm_engine import Grown
from selftrain.schema import Component, Launch, Replicas, Sampling

SAMPLER = Component("vllm", {"max_num_seqs": 32, "engine": {"block_size": 32}})
SAMPLED = Sampling(max_tokens=56)


@pytest.fixture(scope="module")
def fleet(tiny: Path) -> Iterator[Fleet]:
    made = open_sampler(SAMPLER, tiny, Launch(sample=Replicas(replicas=2)))
    assert isinstance(made, Fleet)
    yield made
    made.close()


@pytest.fixture(scope="module")
def work(tokenizer: Any) -> list[Request]:
    return [ask(tokenizer, f"{i % 10}{'+-*'[i % 3]}{i // 10 % 10}=", 4, SAMPLED) for i in range(80)]


@pytest.fixture(scope="module")
def alone(fleet: Fleet, work: list[Request]) -> dict[Place, Completion]:
    """What a single engine draws: one of the replicas, asked by itself."""
    replica: Any = fleet.replicas[0]
    return collect(replica, work)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[int, Counter[Place]]:
    """Tokens that came, by the list of rows they grew (one for each replica and work list) and by place."""
    given: dict[int, Counter[Place]] = {}
    grow = Drawing.grow

    def counted(drawing: Drawing, grown: Sequence[Grown]) -> list[Row]:
        own = given.setdefault(id(drawing), Counter())
        kept.append(drawing)  # Its id is not given to another.
        for piece in grown:
            own[piece.place] += len(piece.ids)
        return grow(drawing, grown)

    kept: list[Drawing] = []
    monkeypatch.setattr(Drawing, "grow", counted)
    return given


def same(found: dict[Place, Completion], alone: dict[Place, Completion]) -> float:
    """Share of samples with the same ids; vLLM's batches differ, and so may last bits."""
    assert found.keys() == alone.keys()
    return sum(found[place].ids == alone[place].ids for place in alone) / len(alone)


def test_both_draw_and_the_samples_are_those_of_one(
    fleet: Fleet, work: list[Request], alone: dict[Place, Completion], drawn: dict[int, Counter[Place]]
) -> None:
    found = collect(fleet, work)
    assert same(found, alone) > 0.99
    # Who draws how much depends on how fast each is; neither draws less than what it holds from the start.
    assert [len(own) >= 32 for own in drawn.values()] == [True, True]
    assert sum(own.total() for own in drawn.values()) == sum(len(c.ids) for c in found.values())
    assert fleet.account.replaced == 0 and fleet.account.idle_share < 0.5


def test_a_list_that_one_could_hold_is_drawn_by_both(
    fleet: Fleet, work: list[Request], drawn: dict[int, Counter[Place]]
) -> None:
    collect(fleet, work[:6])
    assert [len(own) for own in drawn.values()] == [12, 12]


def test_a_replica_that_is_killed_costs_its_open_requests(
    fleet: Fleet, work: list[Request], alone: dict[Place, Completion], drawn: dict[int, Counter[Place]]
) -> None:
    class Told(AllWanted):
        """Tokens of responses that were under way in the dead replica."""

        def lost(self, request: int, index: int, tokens: int) -> None:
            lost[request, index] += tokens

    before, lost = fleet.account.twice, Counter[Place]()
    found: dict[Place, Completion] = {}
    killed = False
    for completions in fleet.sample(work, Told()):
        places = {(one.request, one.index): one for one in completions}
        assert not found.keys() & places.keys()
        found |= places
        if len(found) > 60 and not killed:
            killed = bool(kill(fleet.replicas[1]))
    assert same(found, alone) > 0.99
    twice = fleet.account.twice - before
    assert fleet.account.replaced == 1 and 0 < len(lost) <= 40  # 1.25 times max_num_seqs.
    assert fleet.account.redone == len(lost) and twice == lost.total() > 0
    # All that came is in the samples, but for what was drawn twice.
    came = sum(own.total() for own in drawn.values())
    assert came == sum(len(c.ids) for c in found.values()) + twice


def kill(replica: Any) -> int:
    """End the process of an engine as the system would; its keeper notices."""
    keeper = replica._engine._worker._process.pid
    (body,) = (int(pid) for pid in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split())
    os.kill(body, signal.SIGKILL)
    return body


def test_all_of_them_take_new_weights(fleet: Fleet, work: list[Request], tiny: Path, tmp_path: Path) -> None:
    import torch

    model = load_model(tiny, dtype="float32")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    save(model, load_tokenizer(tiny), tmp_path / "other")
    assert fleet.reload(tmp_path / "other")
    assert fleet.spent.keys() == {"reload", "reset"}
    assert len(fleet.replicas) == 2  # The one that took the place of the dead one too.
    first, second = (collect(replica, work[:40]) for replica in fleet.replicas)  # type: ignore[arg-type]
    assert same(first, second) > 0.99
    assert fleet.reload(tiny)
    assert same(collect(fleet, work[:40]), first) < 0.5
