"""A whole run through the command line: what lies on disk afterwards, and what the other commands make of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selftrain import records
from selftrain.cli import main
from selftrain.types import Example, Sample, Verdict

CONFIG = """
run: {{name: tiny, folder: {folder}, part_size: 32}}
model:
  architecture: {{model_type: llama, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1,
                 num_attention_heads: 2, max_position_embeddings: 64, initializer_range: 0.08}}
  alphabet: "0123456789+-*= #"
tasks:
  arithmetic: {{sizes: {{demonstrations: 30, train: 30, val: 10, test: 20, transfer: 5}}, lengths: [1, 1]}}
warmup: {{policy: {{from: demonstrations, optim: {{lr: 1e-2, steps: 60, batch_size: 16}}}}}}
grow: {{draft: {{n: 4, max_tokens: 16}}}}
learners:
  policy:
    examples: {{own: {{from: draft, verdict: right, cap: 2, dedupe: text}}, gold: {{from: gold, weight: 0.5}}}}
    optim: {{lr: 1e-2, steps: 10, batch_size: 16}}
evaluate: {{n: 2}}
loop: {{iterations: 2}}
track: {{live: none}}
"""
LENIENT = "def verify(problem, response):\n    return '=' in response\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose verifier accepts any response with an equals sign, so that some samples are kept."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.yaml").write_text(CONFIG.format(folder=folder))
    (folder / "lenient.py").write_text(LENIENT)
    verifier = f"tasks.arithmetic.verifier={folder}/lenient.py:verify"
    assert main(["run", str(folder / "tiny.yaml"), verifier]) == 0
    return folder / "tiny"


def of(run: Path, kind: type, *folders: str) -> list[Any]:
    return [row for part in records.parts(run.joinpath(*folders)) for row in records.rows(part, kind)]


@pytest.mark.parametrize("iteration", ["iteration_0001", "iteration_0002"])
def test_sampled_ids_are_the_trained_ids(run: Path, iteration: str) -> None:
    samples = {sample.id: sample for sample in of(run, Sample, iteration, "samples")}
    taught = [e for e in of(run, Example, iteration, "examples", "policy") if e.source == "own"]
    assert taught
    for example in taught:
        sample = samples[example.sample_id]
        assert (example.prompt_ids, example.response_ids) == (sample.prompt_ids, sample.response_ids)
        assert sample.finish_reason == "eos"


def test_every_sample_has_one_id_one_verdict_and_one_reason(run: Path) -> None:
    for iteration in ("iteration_0001", "iteration_0002"):
        samples = of(run, Sample, iteration, "samples")
        assert len({sample.id for sample in samples}) == len(samples) == 30 * 4
        assert len(of(run, Verdict, iteration, "verdicts")) == len(samples)
        reasons = json.loads((run / iteration / "selection-policy.json").read_text())
        assert sum(reasons["sampled"].values()) == len(samples)
        assert reasons["selections"]["gold"] == {"kept": 30}


def test_parts_hold_whole_problems(run: Path) -> None:
    parts = records.parts(run / "iteration_0001" / "samples")
    held = [{sample.problem_id for sample in records.rows(part, Sample)} for part in parts]
    assert len(parts) == 4
    assert sum(map(len, held)) == len(set().union(*held)) == 30


def test_what_was_asked_lies_beside_what_was_answered(run: Path) -> None:
    asked = set(records.column(run / "problems.parquet", "id"))
    assert asked.issuperset(sample.problem_id for sample in of(run, Sample, "iteration_0001", "samples"))
    answers = records.column(run / "problems.parquet", "answer")
    assert len(answers) == 95 and all(answer.isdigit() for answer in answers)


def test_metrics_have_a_line_per_iteration_task_and_split_and_only_results(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(row["iteration"], row["split"]) for row in rows] == [
        (iteration, split) for iteration in range(3) for split in ("val", "test", "transfer")
    ]
    for row in rows:
        assert row["pass@1_low"] <= row["pass@1"] <= row["pass@1_high"]
        assert ("vs_start" in row) == (row["iteration"] > 0)
        assert not {"seconds", "time", "host", "path"} & row.keys()


def test_the_last_checkpoint_evaluates_like_the_run_did(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (expected,) = [row for row in rows if row["iteration"] == 2 and row["split"] == "test"]
    checkpoint, output = run / "iteration_0002" / "policy" / "checkpoint", run.parent / "evaluated"
    # Task, verifier and sampling are those of the run the checkpoint lies in.
    arguments = ["evaluate", str(checkpoint), "--task", "arithmetic", "--output", str(output), "evaluate.n=0"]
    assert main(arguments) == 0
    (row,) = json.loads((output / "iteration_0000" / "metrics.json").read_text())
    assert row["pass@1"] == expected["pass@1"]
    assert "arithmetic / test" in capsys.readouterr().out


def says(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def command(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    return command


def test_commands_that_look_at_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = says(capsys)
    assert "arithmetic / test, 20 problems" in command("report", run)
    assert "</html>" in (run / "report.html").read_text()
    assert "improve-policy" in command("status", run)
    compared = command("compare", run, run)
    assert "arithmetic / test" in compared and "+0.0" in compared
    assert "torch" in command("doctor")
    assert "seed: 0" in command("config", run.parent / "tiny.yaml")


def test_history_teaches_samples_of_earlier_iterations_too(run: Path) -> None:
    arguments = ["run", str(run.parent / "tiny.yaml"), f"tasks.arithmetic.verifier={run.parent}/lenient.py:verify",
                 "run.name=history", "learners.policy.examples.own.history=all"]  # fmt: skip
    assert main(arguments) == 0
    folder = run.parent / "history"
    sampled = {sample.id for sample in of(folder, Sample, "iteration_0001", "samples")}
    taught = [e for e in of(folder, Example, "iteration_0002", "examples", "policy") if e.source == "own"]
    assert {e.sample_id for e in taught} & sampled
    per_problem = [e.problem_id for e in taught]
    assert max(map(per_problem.count, per_problem)) == 2
