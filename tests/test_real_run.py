"""Real GSM8K problems through the real vLLM: one whole iteration, and one that is killed while it samples."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from published import DATA, needs_data, rows, tiny_model

from selftrain import records
from selftrain.cli import main
from selftrain.sampling.vllm_engine import GROWN_TOKENS
from selftrain.stages.journal import Journal
from selftrain.types import Example, Sample, Verdict

pytestmark = needs_data
CONFIGS = Path(__file__).parent.parent / "configs"
SEQUENCES, PROBLEMS, N = 32, 64, 8


def command(folder: Path, name: str, *more: str) -> list[str]:
    """The GPU job's own config, with a tiny model warmed up on the solutions of the problems it then samples."""
    return [
        "run",
        str(CONFIGS / "rest_em_gsm8k.yaml"),
        f"model.path={folder / 'model'}",
        f"run.folder={folder}",
        f"run.name={name}",
        "run.reuse=false",
        f"tasks.gsm8k.data_dir={DATA / 'gsm8k'}",
        "tasks.gsm8k.prompt.few_shot.n=0",  # It is too small to learn from examples, and knows the bare prompt.
        f"tasks.gsm8k.limit={{train: {PROBLEMS}, val: 4, test: 8}}",
        "warmup.policy={from: gold, optim: {lr: 3e-3, steps: 120, batch_size: 16}}",
        f"grow.draft.n={N}",
        "grow.draft.max_tokens=300",
        f"grow.draft.sampler.max_num_seqs={SEQUENCES}",
        "learners.policy.optim={lr: 1e-3, gradient_checkpointing: false, validation: {fraction: 0}}",
        "evaluate.n=1",
        "evaluate.splits=[test]",
        "loop.iterations=1",
        "loop.stop=null",
        "run.part_size=128",
        "track.live=plain",
        *more,
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the model and a run that is warmed up."""
    made = tmp_path_factory.mktemp("gsm8k")
    tiny_model(made / "model", [row["question"] + row["answer"] for row in rows("gsm8k/train.jsonl")[:400]])
    assert main(command(made, "whole", "--until", "0/warmup-policy")) == 0
    shutil.copytree(made / "whole", made / "killed")
    return made


def samples_of(run: Path) -> list[Sample]:
    return [row for part in records.parts(run / "iteration_0001" / "samples") for row in records.read(part, Sample)]


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(child) for child in children.read_text().split()]
    return [*found, *(below for child in found for below in descendants(child))]


def wait_until_gone(pids: list[int], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"{alive} outlive the run"
        time.sleep(0.1)


def test_a_whole_iteration_learns_from_its_own_right_answers(folder: Path) -> None:
    assert main(command(folder, "whole", "launch.keep=run")) == 0
    run = folder / "whole"
    samples = samples_of(run)
    verdicts = [v for p in records.parts(run / "iteration_0001" / "verdicts") for v in records.read(p, Verdict)]
    assert len(samples) == PROBLEMS * N
    assert sum(verdict.status == "right" for verdict in verdicts) >= 0.05 * len(verdicts)
    taught = [
        e for p in records.parts(run / "iteration_0001" / "examples" / "policy") for e in records.read(p, Example)
    ]
    assert len(taught) >= 20
    by_id = {sample.id: sample for sample in samples}
    assert all(by_id[str(example.sample_id)].response_ids == example.response_ids for example in taught)
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(row["iteration"], row["split"], row["n_problems"]) for row in metrics] == [(0, "test", 8), (1, "test", 8)]


def test_killed_while_it_samples_it_leaves_no_process_and_draws_no_finished_sample_again(folder: Path) -> None:
    run = folder / "killed"
    journal = run / "iteration_0001" / "samples" / "draft.journal"
    arguments = command(folder, "killed", "--until", "1/grow")
    process = subprocess.Popen(
        [sys.executable, "-m", "selftrain.cli", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 150_000):
        time.sleep(0.02)
    family = descendants(process.pid)
    assert len(family) >= 3  # The engine's keeper, the engine, the verifiers.
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until_gone(family)
    before = Journal(journal)
    before.close()
    assert before.finished and before.begun
    assert main(arguments) == 0
    samples = samples_of(run)
    assert len({sample.id for sample in samples}) == len(samples) == PROBLEMS * N
    kept = {(s.text, s.response_ids) for s in samples}
    assert all((done.text, done.ids) in kept for done in before.finished)
    continued = [sample for sample in samples if sample.segments]
    assert {len(begun.ids) for begun in before.begun.values()} >= {s.segments[0] for s in continued if s.segments}
    # Lost are at most the tokens a response had grown since it was last written down, and those of one answer.
    lost = len(before.begun) * GROWN_TOKENS
    assert len(before.begun) <= 1.25 * SEQUENCES
    assert lost <= 0.02 * sum(len(sample.response_ids) for sample in samples)
    assert not journal.exists()
