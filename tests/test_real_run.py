"""Real GSM8K problems through the real vLLM: one iteration that is killed while it samples, and goes on to its end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from counted import kill_at, start, tokens
from published import DATA, needs_data, rows, tiny_model

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.cli import main
from selftrain.config import load_config
from selftrain.drawing.journal import Journal
from selftrain.session import Session
from selftrain.stages.grow import work_list
from selftrain.types import Example, Sample, Verdict

pytestmark = needs_data
CONFIGS = Path(__file__).parent.parent / "configs"
SEQUENCES, PROBLEMS, N = 16, 64, 8


def command(folder: Path, *more: str) -> list[str]:
    """The GPU job's own config, with a tiny model warmed up on the solutions of the problems it then samples."""
    return [
        "run",
        str(CONFIGS / "rest_em_gsm8k.yaml"),
        f"model.path={folder / 'model'}",
        f"run.folder={folder}",
        "run.name=run",
        "run.reuse=false",
        f"tasks.gsm8k.data_dir={DATA / 'gsm8k'}",
        "tasks.gsm8k.prompt.few_shot.n=0",  # It is too small to learn from examples, and knows the bare prompt.
        f"tasks.gsm8k.limit={{train: {PROBLEMS}, val: 4, test: 8}}",
        "warmup.policy={from: gold, optim: {lr: 3e-3, steps: 80, batch_size: 16}}",
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
    """Holds the model and a run whose Grow was killed once."""
    made = tmp_path_factory.mktemp("gsm8k")
    tiny_model(made / "model", [row["question"] + row["answer"] for row in rows("gsm8k/train.jsonl")[:400]])
    assert main(command(made, "--until", "0/evaluate")) == 0
    grow, journal = command(made, "--until", "1/grow"), made / "run" / "iteration_0001" / "samples" / "draft.journal"
    kill_at(made / "first.count", grow, lambda: journal.exists() and journal.stat().st_size > 80_000)
    shutil.copy(journal, made / "journal")
    assert start(made / "second.count", grow).wait() == 0
    assert not journal.exists()
    return made


def samples_of(run: Path) -> list[Sample]:
    return [row for part in records.parts(run / "iteration_0001" / "samples") for row in records.read(part, Sample)]


def test_killed_while_it_samples_it_loses_no_finished_sample_and_few_tokens(folder: Path) -> None:
    before = Journal(folder / "journal")
    before.close()
    assert before.finished and before.begun
    samples = samples_of(folder / "run")
    of_place = {(sample.problem_id, sample.index): sample for sample in samples}
    assert len(of_place) == len(samples) == PROBLEMS * N
    asked = asked_problems(command(folder), folder / "run")
    for done in before.finished:
        assert of_place[asked[done.request], done.index].response_ids == done.ids
    # Every response that was begun goes on where it was left, and no other does.
    for (request, index), begun in before.begun.items():
        sample = of_place[asked[request], index]
        assert sample.response_ids[: len(begun.ids)] == begun.ids
        assert sample.segments == (len(begun.ids),)
    assert sum(sample.segments is not None for sample in samples) == len(before.begun)
    # What was finished is not asked again, and of all that both processes drew hardly anything was drawn twice.
    needed = sum(len(sample.response_ids) for sample in samples)
    told = sum(len(done.ids) for done in before.finished) + sum(len(begun.ids) for begun in before.begun.values())
    first, second = (tokens(folder / name) for name in ("first.count", "second.count"))
    assert first >= told > 0.1 * needed
    assert second == needed - told
    assert first + second <= 1.02 * needed


def test_a_whole_iteration_learns_from_its_own_right_answers(folder: Path) -> None:
    assert main(command(folder, "launch.keep=run")) == 0
    run = folder / "run"
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


def asked_problems(arguments: list[str], run: Path) -> list[str]:
    """Problems in order of the work list, which places in the journal refer to."""
    with Session(load_config(arguments[1], [word for word in arguments[2:] if "=" in word]), RunDir(run)) as session:
        return [request.problem.id for request in work_list(session, 1, "draft")]
