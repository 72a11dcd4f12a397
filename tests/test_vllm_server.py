"""A real vLLM server as a teacher: its token ids are taken as they are, its death costs nothing that had come."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import ask, collect
from warm import Warm

from selftrain import records
from selftrain.cli import main
from selftrain.drawing.journal import Journal
from selftrain.models.checkpoint import load_tokenizer
from selftrain.sampling.base import Request
from selftrain.sampling.openai import OpenAI
from selftrain.sampling.transformers import Transformers
from selftrain.schema import Sampling
from selftrain.types import Sample

START_SECONDS = 180


class Server:
    """vLLM's server on a free port of this machine, the same one at every start."""

    def __init__(self, model: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.model = f"http://127.0.0.1:{port}/v1", "teacher"
        named = ["--model", str(model), "--served-model-name", self.model, "--port", str(port)]
        more = ["--host", "127.0.0.1", "--enforce-eager", "--dtype", "float32", "--no-enable-chunked-prefill"]
        self._arguments = [*named, *more]
        self.start()

    def start(self) -> None:
        own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
        self._process = Warm("warm:api_server", self._arguments, environment=own)

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

    def answered(self) -> int:
        """Responses finished since it started, by its own count."""
        with urllib.request.urlopen(f"{self.url.removesuffix('/v1')}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        return round(sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:request_success_total{")))

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

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


def command(server: Server, tiny: Path, folder: Path, *more: str) -> list[str]:
    """A run of one iteration whose Grow it writes."""
    verifier = folder / "lenient.py"
    verifier.write_text("def verify(problem, response):\n    return len(response) > 2\n")
    return [
        "run",
        str(Path(__file__).parent / "tiny.yaml"),
        f"run.folder={folder}",
        f"model={{path: {tiny}, architecture: null, alphabet: null}}",
        f"tasks.arithmetic.verifier={verifier}:verify",
        f"grow.draft={{n: 4, max_tokens: 18, stop: ['#'], model: {server.model}}}",
        f"grow.draft.sampler={{kind: openai, url: '{server.url}', batch_size: null}}",
        "evaluate={n: 0, sampler: transformers}",
        "loop.iterations=1",
        *more,
    ]


def samples_of(run: Path) -> list[Sample]:
    return [sample for part in records.parts(run / "samples") for sample in records.read(part, Sample)]


def test_a_run_learns_from_it_with_its_own_tokens(server: Server, tiny: Path, tmp_path: Path) -> None:
    assert main(command(server, tiny, tmp_path)) == 0
    run = tmp_path / "tiny" / "iteration_0001"
    samples = samples_of(run)
    tokenizer = load_tokenizer(tiny)
    assert {(s.policy, s.origin, s.sampler) for s in samples} == {("teacher", "teacher", "openai")}
    assert {s.ids_from for s in samples} == {"engine"}
    assert all(tokenizer.decode(list(s.response_ids), skip_special_tokens=True) == s.text for s in samples)
    assert (run / "policy" / "checkpoint" / "model.safetensors").exists()


def kill_after(server: Server, journal: Path, responses: int, seconds: float = 90) -> None:
    """End the server once so many responses are in the journal."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if journal.exists() and journal.read_bytes().count(b'"finish_reason"') >= responses:
            break
        time.sleep(0.02)
    server.kill()


def test_killed_in_the_middle_of_grow_it_is_not_asked_again_for_what_had_come(
    server: Server, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, total = tmp_path / "tiny" / "iteration_0001", 24 * 12
    journal = run / "samples" / "draft.journal"
    arguments = command(server, tiny, tmp_path, "grow.draft.n=12", "grow.draft.sampler.retries=1", "--until", "1/grow")
    # Slowly enough that the end does not come before the kill.
    slow = ["grow.draft.sampler.requests_per_minute=1800", "grow.draft.sampler.concurrency=8"]
    killer = threading.Thread(target=kill_after, args=(server, journal, 60))
    killer.start()
    assert main([*arguments, *slow]) == 1
    killer.join()
    before = Journal(journal)
    before.close()
    came = len(before.finished)
    assert 60 <= came < total
    assert (
        f"no answer from {server.url}" in (said := capsys.readouterr().err) and f"; {came} responses had come" in said
    )
    server.start()
    server.wait()
    assert main(arguments) == 0
    assert server.answered() == total - came
    samples = samples_of(run)
    assert len({sample.id for sample in samples}) == len(samples) == total
    written = {(sample.text, sample.response_ids) for sample in samples}
    assert all((done.text, done.ids) in written for done in before.finished if done.finish_reason == "eos")
    assert not journal.exists()
