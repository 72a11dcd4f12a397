"""Engines that fail, die or fall silent: what they printed is told, and nobody waits for ever."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from selftrain.sampling.base import ALL, Request
from selftrain.sampling.vllm import VLLM, VLLMSampler
from selftrain.sampling.vllm_process import EngineFailed, EngineProcess, telling
from selftrain.schema import Sampling
from selftrain.types import Problem

ENGINES = '''
import os, sys, time

LINES = """(EngineCore_DP0 pid=77) ERROR 11-21 09:53:19 [core.py:842] Traceback (most recent call last):
(EngineCore_DP0 pid=77) ERROR 11-21 09:53:19 [core.py:842]   File "gpu_worker.py", line 1, in load
(EngineCore_DP0 pid=77) ERROR 11-21 09:53:19 [core.py:842] torch.OutOfMemoryError: CUDA out of memory: 20.00 GiB
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
[W socket.cpp:12] goodbye
"""

def unable():
    print(LINES, file=sys.stderr)
    raise RuntimeError("Engine core initialization failed. See root cause above.")

def dying():
    def answer(told):
        print("terminate called after throwing an instance of 'dnnl::error'", file=sys.stderr, flush=True)
        os.abort()
    return answer

class Odd(Exception):
    """Of a class that has nothing in common with others."""

def odd():
    print("Loading: 100%", file=sys.stderr, flush=True)
    def answer(told):
        raise Odd("no such expert")
    return answer

def brief():
    def answer(told):
        yield [told]
        if told == 1:
            os._exit(3)
    return answer

def hanging():
    def answer(told):
        time.sleep(600)
        yield []
    return answer

def idle():
    def answer(told):
        time.sleep(0.3)
        yield []
    return answer

def slow():
    def answer(told):
        time.sleep(0.6)
        yield [told]
    return answer
'''


@pytest.fixture(autouse=True)
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "engines.py").write_text(ENGINES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("selftrain.sampling.vllm_process.GLANCE", 0.1)


def opened(name: str, patience: float = 60) -> EngineProcess:
    return EngineProcess(patience=patience, reference=f"engines:{name}")


def asked(engine: EngineProcess) -> str:
    """What the engine fails with."""
    engine.ask("go")
    with pytest.raises(EngineFailed) as failed:
        while True:
            engine.receive()
            engine.ask("go")
    engine.close()
    return str(failed.value)


def test_an_engine_that_does_not_start_tells_the_cause_and_where_the_rest_is(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed) as failed:
        opened("unable")
    said = str(failed.value)
    assert "torch.OutOfMemoryError: CUDA out of memory: 20.00 GiB" in said and "\n" not in said
    (log,) = tmp_path.glob("selftrain-vllm-*.log")
    assert f"(all of it: {log})" in said
    assert 'File "gpu_worker.py", line 1' in log.read_text()


def test_last_words_before_a_crash_are_told() -> None:
    said = asked(opened("dying"))
    assert "was killed by SIGABRT" in said
    assert "terminate called after throwing an instance of 'dnnl::error'" in said


def test_errors_of_any_class_are_told_and_notes_of_the_start_are_not_kept(tmp_path: Path) -> None:
    said = asked(opened("odd"))
    assert re.search(r"Odd.*: no such expert", said) and "printed" not in said
    assert not list(tmp_path.glob("*.log"))


def test_what_an_engine_answered_before_it_died_counts() -> None:
    engine = opened("brief")
    for number in range(2):
        engine.ask(number)
    engine._worker._process.wait(60)  # type: ignore[attr-defined]
    engine.ask(2)
    assert [engine.receive(), engine.receive()] == [[0], [1]]
    with pytest.raises(EngineFailed, match="ended with exit status 3"):
        engine.receive()
    engine.close()


@pytest.mark.parametrize("name", ["hanging", "idle"])
def test_an_engine_without_progress_is_ended(name: str) -> None:
    engine, began = opened(name, patience=1), time.monotonic()
    said = asked(engine)
    assert 1 <= time.monotonic() - began < 10
    assert said.startswith("vLLM made no progress for 1 s and was ended")


def test_time_spent_elsewhere_and_slow_progress_are_not_silence() -> None:
    engine = opened("slow", patience=1)
    for number in range(3):
        engine.ask(number)
        time.sleep(0.5)
        assert engine.receive() == [number]
    time.sleep(1.2)
    engine.ask(3)
    assert engine.receive() == [3]
    engine.close()


def test_an_engine_that_is_not_asked_is_not_silent() -> None:
    engine = opened("idle", patience=1)
    for _ in range(2):
        engine.ask("go")
        assert engine.receive() == []
        time.sleep(1.2)
    engine.close()


def test_a_silent_engine_does_not_keep_a_run_from_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftrain.sampling.vllm_process.SILENT", 0.5)

    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    for name in ("hanging", "idle"):
        engine = opened(name)
        engine.check_stop = stop
        engine.ask("go")
        with pytest.raises(Stopped):
            while True:
                engine.receive()
                engine.ask("go")
        engine.close()


def test_the_end_of_a_log_stands_in_where_it_names_no_error() -> None:
    assert telling("one\n\ntwo\nthree\nfour\n") == "two | three | four"
    assert telling("ValueError: a\nRuntimeError: b, see root cause above\nbye") == "ValueError: a"
    assert telling("\n") == ""


def test_who_is_left_when_an_engine_is_closed_does_not_ask_it_any_more() -> None:
    """A run that fails ends its engines first; what was being drawn is let go of later."""
    sampler: Any = object.__new__(VLLMSampler)
    sampler._engine, sampler._options, sampler._tokenizer, sampler._context = opened("hanging"), VLLM(), None, 64
    work = [Request(Problem("t/train/0", "t", "train", "0"), (1, 2), (0,), Sampling(max_tokens=8))]
    units = iter([((0, 0),)])
    rows = sampler.draw(work, lambda: next(units, None), ALL)
    assert next(rows) == [] and sampler._engine.waiting == 2
    sampler._engine.close()
    rows.close()
