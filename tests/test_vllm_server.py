"""A real vLLM server as a teacher: its token ids are taken as they are, its death costs nothing that had come."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import ask, collect

from selftrain.cli import main
from selftrain.models.checkpoint import load_tokenizer
from selftrain.sampling.base import Request
from selftrain.sampling.openai import OpenAI
from selftrain.sampling.transformers import Transformers
from selftrain.schema import Sampling
from selftrain.types import Sample

START_SECONDS = 180


class Server:
    """``python -m vllm.entrypoints.openai.api_server`` on a free port of this machine."""

    def __init__(self, model: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.model = f"http://127.0.0.1:{port}/v1", "teacher"
        arguments = ["--model", str(model), "--served-model-name", self.model, "--port", str(port)]
        more = ["--host", "127.0.0.1", "--enforce-eager", "--dtype", "float32", "--no-enable-chunked-prefill"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments, *more],
            env={
                **os.environ,
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "VLLM_LOGGING_LEVEL": "ERROR",
                "VLLM_NO_USAGE_STATS": "1",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._process.poll() is None, "the server ended while it started"
            try:
                with urllib.request.urlopen(f"{self.url}/models", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise TimeoutError("the server did not start")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def server(tiny: Path) -> Iterator[Server]:
    started = Server(tiny)
    try:
        started.wait()
        yield started
    finally:
        started.stop()


def work_list(tokenizer: Any, count: int, n: int, settings: Sampling) -> list[Request]:
    return [ask(tokenizer, f"{i % 10}+{i // 10}=", n, settings) for i in range(count)]


def test_its_ids_are_those_the_embedded_sampler_would_draw(server: Server, tokenizer: Any, tiny: Path) -> None:
    work = work_list(tokenizer, 40, 1, Sampling(temperature=0, max_tokens=24))
    asked = OpenAI(url=server.url, prompt_ids=True).open(Path(server.model))
    theirs = collect(asked, work)
    asked.close()
    ours = collect(Transformers(dtype="float32").open(tiny), work)
    assert set(theirs) == set(ours)
    assert sum(theirs[place].ids == ours[place].ids for place in ours) >= 38
    assert {c.ids_from for c in theirs.values()} == {"engine"}


def test_samples_with_seeds_come_again_and_stops_are_told_apart(server: Server, tokenizer: Any) -> None:
    work = work_list(tokenizer, 20, 4, Sampling(max_tokens=24, stop=("7",)))
    asked = OpenAI(url=server.url, concurrency=16).open(Path(server.model))
    first, again = collect(asked, work), collect(asked, work)
    asked.close()
    assert {place: c.text for place, c in first.items()} == {place: c.text for place, c in again.items()}
    reasons = {c.finish_reason for c in first.values()}
    assert {"stop", "eos"} <= reasons
    for completion in first.values():
        assert "7" not in completion.text
        if completion.finish_reason == "eos":
            assert completion.ids[-1] == tokenizer.eos_token_id


def test_a_run_learns_from_it_with_its_own_tokens(server: Server, tiny: Path, tmp_path: Path) -> None:
    from selftrain import records

    config = Path(__file__).parent / "tiny.yaml"
    verifier = tmp_path / "lenient.py"
    verifier.write_text("def verify(problem, response):\n    return len(response) > 2\n")
    settings = [
        f"run.folder={tmp_path}",
        f"model={{path: {tiny}, architecture: null, alphabet: null}}",
        f"tasks.arithmetic.verifier={verifier}:verify",
        f"grow.draft={{n: 4, max_tokens: 18, stop: ['#'], model: {server.model}}}",
        f"grow.draft.sampler={{kind: openai, url: '{server.url}', batch_size: null}}",
        "evaluate={n: 0, sampler: transformers}",
        "loop.iterations=1",
    ]
    assert main(["run", str(config), *settings]) == 0
    run = tmp_path / "tiny" / "iteration_0001"
    samples = [s for part in records.parts(run / "samples") for s in records.read(part, Sample)]
    tokenizer = load_tokenizer(tiny)
    assert {(s.policy, s.origin, s.sampler) for s in samples} == {("teacher", "teacher", "openai")}
    assert {s.ids_from for s in samples} == {"engine"}
    assert all(tokenizer.decode(s.response_ids, skip_special_tokens=True) == s.text for s in samples)
    assert (run / "policy" / "checkpoint" / "model.safetensors").exists()
