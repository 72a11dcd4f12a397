"""The other ways to a score: two gloo ranks, the real vLLM, and the file of what was scored before. They agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scored import ANSWERS, END, adapter_of, answer, assert_equal, log_ratios, nudged

from selftrain.artifacts import RunDir
from selftrain.config import check_tree
from selftrain.errors import RunError
from selftrain.models.checkpoint import load_model
from selftrain.models.logprobs import batch_logprobs
from selftrain.planning.plan import Model
from selftrain.sampling.vllm import VLLM, VLLMSampler
from selftrain.session import Session
from selftrain.stages.logprobs import Logprobs, RunModels
from selftrain.stages.scorers import Scorers
from selftrain.training import scoring
from selftrain.training.group import device_of
from selftrain.training.ranks import Ranks
from selftrain.training.scoring import Scorer
from selftrain.types import Example, Sample

VLLM_TOLERANCE = 1e-5
"""In fp32 without a GPU: 1.2e-6 was the most that was seen over 15,000 tokens."""


@pytest.fixture(scope="module")
def other(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nudged(tiny, tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[VLLMSampler]:
    opened = VLLM(max_num_seqs=16, engine={"block_size": 32}).open(tiny)
    yield opened
    opened.close()


@pytest.mark.filterwarnings("default")
def test_two_ranks_give_what_one_process_gives(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, where each computes with as many threads: the batches are the same ones, dealt out. As a run has
    them that says how many."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    adapter = adapter_of(tiny, tmp_path / "adapter")
    many = [replace(one, id=str(i)) for i, one in enumerate(ANSWERS * 10)]
    assert len(scoring.batches(scoring.alone(many))) > 3
    session = opened(tmp_path, tiny, score_processes=2)
    with Scorer(adapter) as alone, session, Scorers(session) as scorers:
        two = scorers.at(adapter)
        assert isinstance(two, Ranks)
        assert_equal(two.logprobs(many, temperature=0.7), alone.logprobs(many, temperature=0.7))
        assert_equal(two.base_logprobs(many), alone.base_logprobs(many))
        assert two.logprobs([]) == [] and len(two.logprobs([answer((3,), (4, END))])) == 1
        two._group._workers[1].kill()
        with pytest.raises(RuntimeError, match="killed by SIGKILL"):
            two.logprobs(many)


def test_a_checkpoint_no_rank_can_load_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(OSError, match="no file named"):
        Ranks(tmp_path, 1)


def test_every_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_of(rank, 2, "launch.score_processes") for rank in range(2)] == ["cuda:0", "cuda:1"]
    with pytest.raises(ValueError, match=r"3 processes for 2 GPUs, one each; set launch\.score_processes"):
        device_of(0, 3, "launch.score_processes")


def test_vllm_reads_what_the_model_in_this_process_gives(engine: VLLMSampler, tiny: Path, other: Path) -> None:
    full = answer((3,) * 40, (4,) * 23 + (END,))
    assert len(full.prompt_ids) + len(full.response_ids) == 64, "all the engine reads"
    masked = replace(answer((3,), (4, 5, END)), loss_mask=(True, False, True))
    asked = [*ANSWERS, full, answer((3, 4), ()), answer((3,), (END,)), masked]
    for checkpoint in (tiny, other, tiny):
        assert engine.reload(checkpoint)
        with Scorer(checkpoint, dtype="float32") as scorer:
            expected = scorer.logprobs(asked)
        found = engine.logprobs(asked)
        assert [own.shape for own in found] == [own.shape for own in expected]
        assert np.abs(np.concatenate(found) - np.concatenate(expected)).max() < VLLM_TOLERANCE
    assert found[-1][1] == 0 and engine.logprobs([]) == []


def test_vllm_refuses_what_it_cannot_read_whole(engine: VLLMSampler) -> None:
    with pytest.raises(ValueError, match="have 65 tokens, and the engine reads 64"):
        engine.logprobs([answer((3,) * 40, (4,) * 25)])


def opened(folder: Path, tiny: Path, dtype: str = "auto", **launch: Any) -> Session:
    tree = {
        "model": {"path": str(tiny)},
        "tasks": {"arithmetic": {}},
        "grow": {"draft": {}},
        "learners": {"policy": {"examples": {"own": {"from": "draft"}}}},
        "reward": {"dtype": dtype},
        "launch": launch,
    }
    (folder / "run").mkdir(exist_ok=True)
    return Session(check_tree(tree), RunDir(folder / "run"))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of sequences of each forward pass."""
    seen: list[int] = []

    def counting(model: Any, ids: Any, *rest: Any, **options: Any) -> Any:
        seen.append(len(ids))
        return batch_logprobs(model, ids, *rest, **options)

    monkeypatch.setattr("selftrain.training.scoring.batch_logprobs", counting)
    return seen


def ask(folder: Path, tiny: Path, model: Model, examples: list[Example], temperature: float = 1.0) -> list[Any]:
    """As a process does that has nothing in memory."""
    with opened(folder, tiny) as session, Logprobs(session, 1) as logprobs:
        return logprobs.of(model, examples, temperature)


def test_what_was_scored_is_not_scored_again(tiny: Path, other: Path, tmp_path: Path, passes: list[int]) -> None:
    one, two = Model(tiny, "aaaa"), Model(other, "bbbb")
    first = ask(tmp_path, tiny, one, ANSWERS[:10])
    assert sum(passes) == 10
    assert_equal(ask(tmp_path, tiny, one, ANSWERS[5:10] + ANSWERS[:5]), first[5:] + first[:5])
    assert sum(passes) == 10, "a new process finds them in the file"
    ask(tmp_path, tiny, one, ANSWERS[:12])
    assert sum(passes) == 12, "the two new ones alone"
    (masked,) = ask(tmp_path, tiny, one, [replace(ANSWERS[0], loss_mask=(False,) * len(ANSWERS[0].response_ids))])
    assert not masked.any() and sum(passes) == 13, "a mask is part of what is asked"
    theirs = ask(tmp_path, tiny, two, ANSWERS[:10])
    assert sum(passes) == 23 and np.abs(np.concatenate(theirs) - np.concatenate(first)).max() > 0.1
    cooler = ask(tmp_path, tiny, one, ANSWERS[:10], 0.5)
    assert sum(passes) == 33 and np.abs(np.concatenate(cooler) - np.concatenate(first)).max() > 0.1
    assert_equal(ask(tmp_path, tiny, one, ANSWERS[:10]), first)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The checkpoints that were loaded."""
    seen: list[str] = []

    def counting(path: Path | str, **options: Any) -> Any:
        seen.append(str(path))
        return load_model(path, **options)

    monkeypatch.setattr("selftrain.models.checkpoint.load_model", counting)
    return seen


def test_an_adapter_and_its_base_are_loaded_once(tiny: Path, tmp_path: Path, loads: list[str]) -> None:
    adapter = adapter_of(tiny, tmp_path / "adapter")
    expected = log_ratios(adapter, tiny, ANSWERS)
    loads.clear()
    with opened(tmp_path, tiny) as session, Logprobs(session, 1) as logprobs:
        own, base = logprobs.of(Model(adapter, "aaaa"), ANSWERS), logprobs.of(Model(tiny, "bbbb"), ANSWERS)
        again = logprobs.of(Model(adapter, "cccc"), ANSWERS)
    assert loads == [str(adapter), str(tiny)]  # The second is the base that the adapter is put on.
    assert_equal([mine - theirs for mine, theirs in zip(own, base, strict=True)], expected)
    assert_equal(again, own)  # The adapter is on again.
    assert np.abs(np.concatenate(expected)).max() > 0.1


def test_a_checkpoint_against_itself_is_zero_and_not_loaded(
    tiny: Path, other: Path, tmp_path: Path, loads: list[str]
) -> None:
    samples = [
        Sample(str(i), "p", 1, "draft", i, one.prompt_ids, one.response_ids, "", "eos", "policy", "scripted")
        for i, one in enumerate(ANSWERS)
    ]
    with opened(tmp_path, tiny) as session, Logprobs(session, 1) as logprobs:
        models = RunModels(session, 1, "score", logprobs)
        found = models.log_ratios(str(tiny), str(tiny), samples)
        assert [own.shape for own in found] == [(len(one.response_ids),) for one in ANSWERS]
        assert loads == [] and not np.concatenate(found).any()
        found = models.log_ratios(str(other), str(tiny), samples)
    assert loads == [str(other), str(tiny)]
    assert_equal(found, log_ratios(other, tiny, ANSWERS))


def test_what_computes_in_another_type_is_kept_apart(tiny: Path, tmp_path: Path) -> None:
    model, found = Model(tiny, "aaaa"), {}
    for dtype in ("float32", "bfloat16", "auto"):
        with opened(tmp_path, tiny, dtype) as session, Logprobs(session, 1) as logprobs:
            found[dtype] = logprobs.of(model, ANSWERS[:9])
    folders = (tmp_path / "run" / "iteration_0001" / "logprobs").iterdir()
    assert sorted(folder.name for folder in folders) == ["aaaa", "aaaa-bfloat16"]
    assert 1e-4 < np.abs(np.concatenate(found["bfloat16"]) - np.concatenate(found["float32"])).max() < 0.1


def test_a_kill_while_writing_leaves_what_was_there(
    tiny: Path, tmp_path: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    model = Model(tiny, "aaaa")
    first = ask(tmp_path, tiny, model, ANSWERS[:5])
    real = pq.write_table

    def cut_short(table: Any, path: Any, *rest: Any, **options: Any) -> None:
        real(table, path, *rest, **options)
        whole = Path(path).read_bytes()
        Path(path).write_bytes(whole[: len(whole) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pq, "write_table", cut_short)
        ask(tmp_path, tiny, model, ANSWERS[:10])
    (tmp_path / "run" / "iteration_0001" / "logprobs" / "aaaa" / ".part-00001.parquet.1.tmp").write_bytes(b"PAR1")
    passes.clear()
    assert_equal(ask(tmp_path, tiny, model, ANSWERS[:10])[:5], first)
    assert sum(passes) == 5


def test_a_model_that_cannot_score_is_told_in_one_line(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^iteration 1: .*nowhere could not score the responses: .*again$"):
        ask(tmp_path, tiny, Model(tmp_path / "nowhere", "bbbb"), ANSWERS[:1])
