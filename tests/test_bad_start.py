"""What is wrong before a command does its work: overrides of ``evaluate``, models nowhere, engines that fail."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from kill_driver import Driver
from one_line import check_refused, check_stopped

from selftrain.cli import main

TINY = Path(__file__).with_name("tiny.yaml")
NOWHERE = "http://127.0.0.1:9"
"""Nothing listens there."""


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("tasks.arithmetic.sizes={", "'tasks.arithmetic.sizes={'"),
        ("evaluate.n", "'evaluate.n' is no override; write key=value"),
        ("evaluate.nn=3", "evaluate.nn: unknown key (did you mean 'n'?)"),
        ("evaluate.n=${none}", "'none' not found"),
    ],
)
def test_evaluate_refuses_the_overrides_that_run_refuses(
    override: str, told: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    command = ["evaluate", str(tiny), "--task", "arithmetic", "--output", str(folder), override]
    check_refused(command, [told], capsys, unwritten=folder)


def test_device_that_is_not_here_is_told_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    assert main(["run", str(TINY), f"run.folder={runs}", "grow.draft.sampler.device=cuda:99"]) == 2
    assert "grow.draft.sampler.device: there is no 'cuda:99' here; choose auto or" in capsys.readouterr().err
    assert not runs.exists()


SAMPLER = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Hungry:
    def open(self, checkpoint):
        raise {error}
"""


@pytest.mark.parametrize("error", ["RuntimeError('CUDA out of memory')", "ImportError('no engine')", "MemoryError()"])
def test_sampler_that_does_not_open_stops_with_what_to_do(error: str, tmp_path: Path, driver: Driver) -> None:
    plugin = tmp_path / "hungry.py"
    plugin.write_text(SAMPLER.replace("{error}", error))
    ended = driver.run(
        ["run", str(TINY), f"run.folder={tmp_path}", "warmup=null", f"grow.draft.sampler={plugin}:Hungry"]
    )
    told = ("Hungry' could not load", error.partition("(")[0], "choose another device", "run the same command")
    check_stopped(ended, *told)


@pytest.fixture(scope="module")
def hub(tiny: Path) -> Iterator[str]:
    """Address of a small hub that holds one model, ``some/tiny``."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            name = self.path.partition("/some/tiny/resolve/main/")[2]
            known = self.path == "/" or (tiny / name).is_file()
            content = (tiny / name).read_bytes() if name and known else b""
            if self.path.startswith("/api/models/some/tiny"):
                known, content = True, b"[]" if "/tree/" in self.path else b'{"id": "some/tiny"}'
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", "1" * 40)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            if not known:
                self.send_header("X-Error-Code", "EntryNotFound" if name else "RepoNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def load(name: str, endpoint: str, cache: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """Load a model by name in a fresh process, and the seconds that took beside the imports."""
    code = f"""
import time, transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from selftrain.models.checkpoint import load_model, load_tokenizer
started = time.monotonic()
try:
    print(load_tokenizer({name!r}).eos_token, load_model({name!r}).num_parameters())
except OSError as error:
    print(type(error).__name__)
print(time.monotonic() - started)
"""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    variables |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=True)
    return done, float(done.stdout.splitlines()[-1])


def test_hub_names_load_where_the_hub_answers_and_from_the_cache_where_it_does_not(hub: str, tmp_path: Path) -> None:
    fetched, _ = load("some/tiny", hub, tmp_path)
    assert fetched.stdout.startswith("<end> "), fetched
    cached, seconds = load("some/tiny", NOWHERE, tmp_path)
    assert cached.stdout.splitlines()[0] == fetched.stdout.splitlines()[0]
    assert seconds < 5 and cached.stderr == ""


def test_a_mistyped_path_fails_at_once_and_in_silence_where_no_hub_answers(tmp_path: Path) -> None:
    done, seconds = load("outputs/ckpt", NOWHERE, tmp_path)
    assert done.stdout.splitlines()[0] == "OSError"
    assert seconds < 5 and done.stderr == ""


def test_a_model_that_is_nowhere_is_one_line(tmp_path: Path) -> None:
    arguments = [
        "model.architecture=null",
        "model.alphabet=null",
        "model.path=outputs/ckpt",
        f"run.folder={tmp_path}/r",
    ]
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "selftrain.cli", "run", str(TINY), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_ENDPOINT": NOWHERE, "HF_HOME": str(tmp_path)},
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert (
        done.stderr.startswith("selftrain: model.path: no folder 'outputs/ckpt' here") and done.stderr.count("\n") == 1
    )
    assert time.monotonic() - started < 20
    assert not (tmp_path / "r").exists()
