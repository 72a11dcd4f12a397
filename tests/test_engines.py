"""Which engine answers: one lives as long as one writer is asked, and takes new weights only where they fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import qwen_like

from selftrain.artifacts import RunDir
from selftrain.config import check_tree
from selftrain.errors import RunError
from selftrain.events import Handover, Notice, StageFinished
from selftrain.models.checkpoint import load_tokenizer
from selftrain.sampling.vllm_checkpoint import Layout, layout_of, reading, weights_of
from selftrain.sampling.vllm_engine import Engine, Sleep, Weights
from selftrain.schema import Replicas
from selftrain.session import Session
from selftrain.stages.place import closing

SAMPLER = """
from dataclasses import dataclass
from pathlib import Path

from selftrain.sampling.vllm_process import EngineFailed

LOG = Path(__file__).with_name("log")

def note(*words):
    with LOG.open("a") as log:
        print(*words, file=log)

@dataclass(frozen=True)
class Noted:
    name = "noted"
    sleeps = True

    def open(self, checkpoint):
        note("open", checkpoint)
        return Engine()

class Engine:
    spent = {"wake": 0.0, "reload": 0.0, "reset": 0.0}

    def sleep(self, level):
        note("sleep", level)
        if level == 2 and Path(__file__).with_name("dead").exists():
            raise EngineFailed("was killed by SIGKILL")

    def reload(self, checkpoint):
        note("reload", checkpoint)
        if "broken" in str(checkpoint):
            raise RuntimeError("vLLM did not let go")
        return "other" not in str(checkpoint)

    def while_waiting(self, check_stop):
        self.check_stop = check_stop

    def close(self):
        note("close")
"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """With a teacher that the policy's own sampler would serve."""
    (tmp_path / "noted.py").write_text(SAMPLER)
    qwen_like.write_rows(tmp_path / "train.jsonl", 4)
    sampler = {"kind": f"{tmp_path / 'noted.py'}:Noted"}
    files = {"train": str(tmp_path / "train.jsonl")}
    tree = {
        "run": {"folder": str(tmp_path)},
        "model": {"path": str(tmp_path / "start")},
        "tasks": {"sums": {"kind": "jsonl", "files": files, "verifier": "numeric_answer"}},
        "grow": {"draft": {"model": str(tmp_path / "teacher"), "sampler": sampler}, "own": {"sampler": sampler}},
        "learners": {"policy": {"examples": {"own": {"from": "draft"}}}},
    }
    (tmp_path / "run").mkdir()
    with Session(check_tree(tree), RunDir(tmp_path / "run")) as opened:
        yield opened


def asked(session: Session, folder: Path, *checkpoints: str) -> list[str]:
    """What became of engines when these answered one after the other."""
    component = session.config.grow["own"].sampler
    for checkpoint in checkpoints:
        session.sampler(component, folder / checkpoint)
    log = folder / "log"
    return log.read_text().replace(f"{folder}/", "").splitlines()


def test_a_policy_reloads_and_a_teacher_has_an_engine_of_its_own(session: Session, tmp_path: Path) -> None:
    found = asked(session, tmp_path, "start", "start", "first", "teacher", "teacher", "second")
    assert found == ["open start", "reload first", "close", "open teacher", "close", "open second"]


def test_weights_that_do_not_fit_get_a_new_engine(session: Session, tmp_path: Path) -> None:
    found = asked(session, tmp_path, "start", "other", "second")
    assert found == ["open start", "reload other", "close", "open other", "reload second"]


def test_a_reload_that_fails_is_told_in_one_line(session: Session, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"could not load .*broken: RuntimeError: vLLM did not let go; "):
        asked(session, tmp_path, "start", "broken")


def test_an_engine_can_ask_whether_the_run_is_to_stop(session: Session, tmp_path: Path) -> None:
    engine: Any = session.sampler(session.config.grow["own"].sampler, tmp_path / "start")
    assert engine.check_stop == session.check_stop


def keeping(session: Session, **launch: Any) -> Session:
    """A session whose engines stay."""
    config = replace(session.config, launch=replace(session.config.launch, keep="run", **launch))
    return Session(config, session.run)


@pytest.mark.parametrize("level", [None, 2])
def test_an_engine_that_stays_sleeps_while_others_need_its_gpu(
    session: Session, tmp_path: Path, level: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selftrain.machine.gpus", lambda: ("0",))
    with keeping(session, sample=Replicas(sleep=level)) as kept:
        asked(kept, tmp_path, "start")
        kept.free_for_training()
        kept.free_for_training()
        found = asked(kept, tmp_path, "start", "start")
        handover = kept.handed_over()
        kept.free_for_training()
    # Also the weights it fell asleep with are loaded anew: it may have forgotten them.
    assert found == ["open start", f"sleep {level or 1}", "reload start"]
    assert list(handover.seconds) == ["open", "sleep", "wake", "reload", "reset"]
    told = r"engine: open \d+\.\d s, sleep \d+\.\d s, wake 0\.0 s, reload \d+\.\d s, reset 0\.0 s"
    assert re.fullmatch(told, handover.in_words())


def test_an_engine_that_cannot_sleep_any_more_is_replaced_and_that_is_told(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selftrain.machine.gpus", lambda: ("0",))
    (tmp_path / "dead").touch()
    with keeping(session, sample=Replicas(sleep=2)) as kept:
        asked(kept, tmp_path, "start")
        kept.free_for_training()
        assert asked(kept, tmp_path, "first") == ["open start", "sleep 2", "close", "open first"]
        events = [*closing(kept, StageFinished(1, "grow", 1.0, "done", False))]
    told, handover, finished = events
    assert told == Notice("an engine failed, and another took its place: was killed by SIGKILL", "warning")
    assert isinstance(handover, Handover) and isinstance(finished, StageFinished)


def test_without_a_gpu_an_engine_that_stays_keeps_awake(session: Session, tmp_path: Path) -> None:
    with keeping(session) as kept:
        asked(kept, tmp_path, "start")
        kept.free_for_training()
        assert asked(kept, tmp_path, "first") == ["open start", "reload first"]
    assert kept.handed_over().seconds.keys() == {"open", "wake", "reload", "reset", "exit"}
    assert kept.handed_over().in_words() == ""


def test_an_engine_ends_where_its_memory_is_needed(session: Session, tmp_path: Path) -> None:
    asked(session, tmp_path, "start")
    session.free_for_training()
    assert asked(session, tmp_path) == ["open start", "close"]
    assert session.handed_over().seconds.keys() == {"open", "exit"}


class Recorded:
    """What is asked of vLLM's engine, in order; without a GPU there is none that sleeps."""

    vllm_config = SimpleNamespace(device_config=SimpleNamespace(device_type="cuda"))

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def sleep(self, level: int) -> None:
        self.calls.append(("sleep", level))

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append(("wake", *tags))

    def collective_rpc(self, name: str, kwargs: dict[str, str]) -> None:
        self.calls.append((name, kwargs["weights_path"]))

    def reset_prefix_cache(self) -> bool:
        self.calls.append("reset")
        return True


@pytest.mark.parametrize(
    ("level", "model", "loaded"), [(1, "old", []), (1, "new", ["new"]), (2, "old", ["old"]), (2, "new", ["new"])]
)
def test_a_sleeping_engine_has_its_weights_before_its_cache(level: int, model: str, loaded: list[str]) -> None:
    recorded = Recorded()
    engine = Engine(recorded, "old")
    assert list(engine.answer(Sleep(level))) == [None]
    (seconds,) = engine.answer(Weights(model))
    reloads = [("reload_weights", path) for path in loaded]
    expected = [("sleep", level), ("wake", "weights"), *reloads, ("wake", "kv_cache"), "reset"]
    assert recorded.calls == expected
    assert isinstance(seconds, dict) and set(seconds) == {"wake", "reset", *(["reload"] if loaded else [])}
    assert list(engine.answer(Weights(model))) == [{}] and recorded.calls == expected  # It is awake, and has them.


def layout(checkpoint: Path) -> Layout:
    return layout_of(weights_of(checkpoint)[0], load_tokenizer(checkpoint))


def edited(folder: Path, name: str, **values: Any) -> Path:
    written = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(written | values))
    return folder


def test_checkpoints_of_one_layout_differ_in_weights_and_notes_alone(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from selftrain.models.checkpoint import load_model, save

    for name in ("start", "shape", "ends", "words", "context", "base"):
        qwen_like.write(tmp_path / name, base=name == "base")
    start = tmp_path / "start"
    # As it comes out of a fit: sampling settings and the layout of its files are others.
    save(load_model(start, dtype="float32"), load_tokenizer(start), tmp_path / "fitted")
    assert layout(tmp_path / "fitted") == layout(start)
    own: Any = AutoTokenizer.from_pretrained(tmp_path / "words")
    own.add_tokens(["zzz"])
    own.save_pretrained(tmp_path / "words")
    edited(tmp_path / "shape", "config.json", intermediate_size=256)
    edited(tmp_path / "context", "config.json", max_position_embeddings=96)
    edited(tmp_path / "ends", "generation_config.json", eos_token_id=own.eos_token_id)
    for name in ("shape", "ends", "words", "context", "base"):
        assert layout(tmp_path / name) != layout(start), name


def test_an_adapter_is_read_and_ended_as_it_was_trained(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    made = qwen_like.write(base)
    made.save_pretrained(adapter)
    (adapter / "adapter_config.json").write_text(f'{{"r": 8, "base_model_name_or_path": "{base}"}}')
    weights = weights_of(adapter)[0]
    ends = made.convert_tokens_to_ids([qwen_like.IM_END, qwen_like.ENDOFTEXT])
    assert reading(weights_of(base)[0]) == {}
    assert reading(weights) == {"tokenizer": str(adapter)}
    assert layout(adapter).ends == layout(base).ends == set(ends)
    (adapter / "generation_config.json").write_text(json.dumps({"eos_token_id": ends[0]}))
    assert reading(weights) == {"tokenizer": str(adapter), "generation_config": str(adapter)}
    assert layout(adapter).ends == {ends[0]}
