"""Replicas that share a work list: idle time with a straggler, deaths, and samples that stay the same."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from asking import ask, collect

from selftrain.drawing.expected import mean_lengths
from selftrain.drawing.journal import Journal
from selftrain.drawing.ledger import Ledger
from selftrain.planning.engine import open_sampler
from selftrain.sampling.base import ALL, AllWanted, Begun, Completion, Request
from selftrain.sampling.fleet import Fleet
from selftrain.sampling.order import longest_first
from selftrain.sampling.scripted import Scripted
from selftrain.sampling.seats import Seat, seated
from selftrain.sampling.sharing import Part, Shared
from selftrain.sampling.transformers import Transformers
from selftrain.sampling.vllm import VLLM
from selftrain.sampling.vllm_process import EngineFailed
from selftrain.schema import Component, Launch, Replicas, Sampling
from selftrain.types import Problem

PLUGINS = Path(__file__).parent / "plugins" / "samplers.py"
TWO = Launch(sample=Replicas(replicas=2))
TOKEN, LENGTH, COUNT = 0.0015, 8, 110
"""Seconds of a token, about tokens of a response, and responses of a stage."""


def work_list(count: int, n: int = 1, expected: dict[int, float] | None = None) -> list[Request]:
    known = expected or {}
    return [
        Request(
            Problem(f"t/train/{place}", "t", "train", str(place), "34"),
            (1,) * 4,
            tuple(range(place * n, place * n + n)),
            Sampling(max_tokens=64),
            expected=known.get(place),
        )
        for place in range(count)
    ]


def opened(kind: str, checkpoint: Path, **options: Any) -> Fleet:
    made = open_sampler(Component(f"{PLUGINS}:{kind}", options), checkpoint, TWO)
    assert isinstance(made, Fleet)
    return made


@pytest.mark.parametrize("known", [True, False])
def test_idle_time_with_a_straggler_of_a_third_of_the_stage(known: bool, tmp_path: Path) -> None:
    """A stage of T seconds on two replicas, one response of T/3: what is known to be long is begun first."""
    last = COUNT - 1
    longer = COUNT // 5  # (COUNT + longer) / 2 responses are T, a third of which is longer.
    told = {place: float(longer if place == last else 1) for place in range(COUNT)}
    work = work_list(COUNT, expected=told if known else {})
    fleet = opened("Timed", tmp_path, token_seconds=TOKEN, straggler=f"t/train/{last}", longer=longer)
    found = collect(fleet, work)
    account = fleet.account
    fleet.close()
    assert set(found) == {(place, 0) for place in range(COUNT)}
    overhang = TOKEN * len(found[last, 0].ids) * longer / account.seconds
    assert 0.2 < overhang < 0.45
    # Of two replicas, one waits for the other's straggler where it was begun last.
    assert account.idle_share < 0.05 + (0 if known else overhang / 2)
    assert known or account.idle_share > 0.05


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = opened("Timed", tmp_path_factory.mktemp("none"), token_seconds=0.0002, unparsed=0.1)
    yield fleet
    fleet.close()


def test_replicas_draw_what_one_sampler_draws(scripted: Fleet, tmp_path: Path) -> None:
    work = work_list(40, n=3)
    assert collect(scripted, work) == collect(Scripted(unparsed=0.1).open(tmp_path), work)


def test_only_what_is_wanted_is_drawn(scripted: Fleet) -> None:
    work = work_list(10, n=2)
    done = frozenset((request, 0) for request in range(10))
    assert set(collect(scripted, work, AllWanted(done))) == {(request, 1) for request in range(10)}
    assert collect(scripted, work, AllWanted(done | {(request, 1) for request in range(10)})) == {}


def test_leaving_early_leaves_nothing_behind(scripted: Fleet) -> None:
    few = work_list(6, n=2)
    expected = collect(scripted, few)
    rows = scripted.sample(work_list(50))
    while not next(rows):
        pass
    rows.close()  # type: ignore[attr-defined]
    assert collect(scripted, few) == expected


def test_a_run_that_is_stopped_does_not_wait_for_what_is_being_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is let go of once the engines are closed says nothing."""
    said: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", said.append)
    monkeypatch.setattr("selftrain.sampling.vllm_process.SILENT", 0.2)
    fleet, seconds = opened("Timed", tmp_path, token_seconds=1.0), time.monotonic()

    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    fleet.while_waiting(stop)
    try:
        collect(fleet, work_list(6))
    except Stopped:
        fleet.close()
    del fleet
    gc.collect()
    assert said == []
    assert time.monotonic() - seconds < 8  # A response takes nine.


def test_a_replica_that_dies_costs_only_what_it_held(tmp_path: Path) -> None:
    work = work_list(60)
    once = tmp_path / "died"
    fleet = opened("Fatal", tmp_path, problem="train/30", once=str(once))
    found = collect(fleet, work)
    assert once.exists() and found == collect(Scripted().open(tmp_path), work)
    assert (fleet.account.replaced, fleet.account.redone) == (1, 1)
    assert fleet.account.in_words().endswith(" idle, 1 replaced: 1 responses and 0 tokens drawn twice")
    again = work_list(20)
    assert len(collect(fleet, again)) == 20  # The new one has come, or comes.
    fleet.close()


def test_a_sample_that_kills_two_replicas_stops_the_run(tmp_path: Path) -> None:
    fleet = opened("Fatal", tmp_path, problem="train/3")
    with pytest.raises(EngineFailed, match=r"a second replica died over 1 samples of t/train/3; .*SIGKILL"):
        collect(fleet, work_list(12))
    fleet.close()


def test_a_replica_that_does_not_start_is_told_and_none_is_left(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(EngineFailed, match="ValueError: Couldn't instantiate the backend tokenizer"):
        open_sampler(Component("transformers"), tmp_path, TWO)
    assert threading.active_count() == before


def test_batches_of_transformers_are_the_same_whoever_draws_them(tiny: Path, tokenizer: Any) -> None:
    options: dict[str, Any] = {"batch_size": 8, "dtype": "float32", "logprobs": True}
    work = [ask(tokenizer, f"{i % 10}{'+-*'[i % 3]}{i}=", 3, Sampling(max_tokens=24)) for i in range(20)]
    fleet = open_sampler(Component("transformers", options), tiny, TWO)
    found = collect(fleet, work)
    fleet.close()
    assert found == collect(Transformers(**options).open(tiny), work)


def test_who_has_room_takes_the_next_and_no_more_than_a_share() -> None:
    shared = Shared([((place, 0),) for place in range(7)], ALL, 3)
    first = [shared.take(0) for _ in range(7)]
    assert first == [((0, 0),), ((1, 0),), ((2, 0),), None, None, None, None]
    assert [shared.take(1) for _ in range(3)] == [((3, 0),), ((4, 0),), ((5, 0),)]
    shared.done([Completion(place, 0, (), "", "eos") for place in (3, 4, 5)])
    assert (shared.take(1), shared.left, shared.take(1)) == (((6, 0),), False, None)


class Noting(AllWanted):
    """Says once of one sample that it is dropped and of each what had been begun, and notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.drops, self.heads = [(1, 0)], [Begun((7, 8))]
        self.told: list[tuple[str, int, int, int]] = []

    def dropped(self) -> Sequence[tuple[int, int]]:
        drops, self.drops = self.drops, []
        return drops

    def begun(self, request: int, index: int) -> Begun | None:
        return self.heads.pop() if self.heads else None

    def given_up(self, request: int, index: int, tokens: int) -> None:
        self.told.append(("given up", request, index, tokens))

    def lost(self, request: int, index: int, tokens: int) -> None:
        self.told.append(("lost", request, index, tokens))


def test_what_a_dead_replica_held_begins_where_it_had_begun() -> None:
    answers = Noting()
    shared = Shared([((place, 0),) for place in range(4)], answers, 2)
    one, other = Part(shared, 0), Part(shared, 1)
    held = [one.take(), one.take(), other.take()]
    assert held == [((0, 0),), ((1, 0),), ((2, 0),)]
    assert other.dropped() == [] and one.dropped() == [(1, 0)]  # Whoever asks, the holder is told.
    one.given_up(1, 0, 5)
    assert one.begun(0, 0) == Begun((7, 8))
    one.grown(0, 0, [1, 2, 3], None)
    assert shared.lost(0) == [] and (shared.redone, shared.twice) == (1, 3)
    assert answers.told == [("given up", 1, 0, 5), ("lost", 0, 0, 3)]
    assert other.take() == ((0, 0),) and other.begun(0, 0) == Begun((7, 8))
    assert shared.lost(1) == [(0, 0)]


def test_a_journal_forgets_what_a_dead_replica_had_drawn(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j")
    first.grown((0, 0), [1, 2], [-1.0, -2.0])
    first.close()
    second = Journal(tmp_path / "j")
    ledger = Ledger(work_list(2), journal=second)
    assert ledger.begun(0, 0) == Begun((1, 2), (-1.0, -2.0))
    for place, ids in (((0, 0), [3, 4]), ((1, 0), [5])):
        ledger.grown(*place, ids, [-0.5] * len(ids))
        ledger.lost(*place, len(ids))
    ledger.grown(0, 0, [9], [-3.0])
    assert ledger.drawn == 3
    second.close()
    third = Journal(tmp_path / "j")
    assert third.begun == {(0, 0): Begun((1, 2, 9), (-1.0, -2.0, -3.0), (2,))}
    third.close()


def test_long_responses_are_begun_first() -> None:
    work = work_list(5, expected={1: 50.0, 2: 3.0, 4: 20.0})
    assert longest_first(work) == [0, 3, 1, 4, 2]  # Of the first two nothing is known but their limit.
    assert longest_first(work_list(3)) == [0, 1, 2]
    options = Transformers(batch_size=2)
    assert list(options.units(work, by_index=False)) == [((0, 0), (1, 0)), ((2, 0), (3, 0)), ((4, 0),)]
    assert [place for ((place, _),) in VLLM().units(work, by_index=False)] == [0, 3, 1, 4, 2]


def test_lengths_are_known_by_problem_and_by_task(tmp_path: Path) -> None:
    from selftrain import records
    from selftrain.types import Sample

    def sample(problem: str, tokens: int) -> Sample:
        return Sample(problem, problem, 1, "draft", 0, (1,), tuple(range(tokens)), "x", "eos", "p", "scripted")

    part = tmp_path / "draft-00000.parquet"
    records.write(part, Sample, [sample("a/train/1", 2), sample("a/train/1", 4), sample("a/train/2", 9)])
    by_problem, by_task = mean_lengths([part, tmp_path / "none.parquet"])
    assert by_problem == {"a/train/1": 3, "a/train/2": 9} and by_task == {"a": 5}


def test_seats_have_gpus_or_cores_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [f"{number}" for number in range(4, 8)]
    assert [seat.environment() for seat in seated(2, 2, gpus)] == [
        {"CUDA_VISIBLE_DEVICES": "4,5"},
        {"CUDA_VISIBLE_DEVICES": "6,7"},
    ]
    assert seated(1, 2, gpus) == [Seat()]
    with pytest.raises(ValueError, match=r"3 replicas of 2 GPU\(s\) each need 6, and there are 4"):
        seated(3, 2, gpus)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {2, 3, 6, 7, 9})
    assert [seat.cores(1) for seat in seated(2, 1, [])] == [[[2, 3]], [[6, 7, 9]]]
    assert [seat.cores(2) for seat in seated(4, 2, [])] == [[[2], [3]], [[6], [7]], [[9], [2]], [[3], [6]]]
    assert VLLM(tensor_parallel_size=2).environment(False, Seat(1, 2))["VLLM_CPU_OMP_THREADS_BIND"] == "6|7,9"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in VLLM().environment(False, Seat())
