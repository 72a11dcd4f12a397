"""What several test files share: a tiny language model on disk, and runs of the command line as processes."""

from __future__ import annotations

import ast
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kill_driver import Driver, driving
from warm import FOLDER, WarmWorker

from selftrain.sampling import vllm_process
from selftrain.training import group

ALPHABET = "0123456789+-*= #"
LACKING = ("SELFTRAIN_DATA", "SELFTRAIN_HARNESSES")
"""Variables without which tests are skipped; the reasons name them."""
LEVELS = "NOT CHECKED: sandbox level"
"""How the reason begins where a level of isolation is lacking."""
LONGEST = (
    "test_real_run.py",
    "test_mixed_run.py",
    "test_end_tokens.py",
    "test_vllm_server.py",
    "test_vllm.py",
    "test_protocol_parity.py",
    "test_protocols.py",
    "test_hub.py",
    "test_reuse.py",
    "test_ray.py",
)
"""Half a minute and more each: begun first, so that test processes that run beside each other end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: position for position, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


MEETING = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """What all test processes of this run share ends when the pipe of this one, their first, is closed."""
    if FOLDER not in os.environ:
        folder = os.environ[FOLDER] = tempfile.mkdtemp(prefix="selftrain-tests-")
        os.mkfifo(f"{folder}/pipe")
        config.stash[MEETING] = os.open(f"{folder}/pipe", os.O_RDWR)


def pytest_unconfigure(config: pytest.Config) -> None:
    if MEETING in config.stash:
        os.close(config.stash[MEETING])
        shutil.rmtree(os.environ.pop(FOLDER))


@pytest.fixture(scope="session", autouse=True)
def warm_engines() -> Iterator[None]:
    """Engines and ranks start in processes that have vLLM and DeepSpeed imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_process, "Worker", WarmWorker)
        patch.setattr(group, "Worker", WarmWorker)
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """The last word of a test run is what it did not check."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        for line in unchecked(reporter.stats.get("skipped", [])):
            reporter.write_line(line, yellow=True, bold=True)


def unchecked(skipped: list[Any]) -> Iterator[str]:
    """A line for each variable that is not set, and one for each file of tests that asked for it; one for each level
    of isolation that this machine does not have."""
    for variable in LACKING:
        reports = [report for report in skipped if variable in str(report.longrepr)]
        if reports:
            yield f"NOT CHECKED, because {variable} is not set (CONTRIBUTING.md says what it names):"
        for path, count in sorted(Counter(report.nodeid.partition("::")[0] for report in reports).items()):
            promise = ast.get_docstring(ast.parse((Path(__file__).parent.parent / path).read_text())) or ""
            yield f"  {path}, {count} skipped: {promise.partition(chr(10))[0]}"
    reasons = (str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple))
    yield from sorted({reason[reason.index(LEVELS) :] for reason in reasons if LEVELS in reason})


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Data sets of the hub from this test's folder alone."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "cache" / "downloads")
    datasets.disable_progress_bars()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two layers with random weights, spread enough that its distributions are far from uniform.

    It knows the characters of the arithmetic task and reads 64 tokens.
    """
    import torch

    from selftrain.models.checkpoint import save
    from selftrain.models.small import character_tokenizer, random_model

    torch.set_num_threads(1)
    tokenizer = character_tokenizer(ALPHABET, context=64)
    architecture = {
        "model_type": "qwen3",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 64,
        "initializer_range": 0.08,
        "tie_word_embeddings": True,
    }
    folder = tmp_path_factory.mktemp("tiny")
    save(random_model(architecture, tokenizer, seed=0), tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights and a chat template, laid out as Qwen's are."""
    from qwen_like import write

    folder = tmp_path_factory.mktemp("qwen")
    write(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny: Path) -> Any:
    from selftrain.models.checkpoint import load_tokenizer

    return load_tokenizer(tiny)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Runs in forked processes, which can be killed at an exact moment."""
    with driving(tmp_path_factory.mktemp("driver")) as made:
        yield made
