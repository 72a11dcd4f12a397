"""A run whose learners are fitted to pairs and to labels: what is written for them, and what they are told."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from selftrain import records
from selftrain.cli import main
from selftrain.types import Example, TokenScores, Verdict

CONFIG = """
run: {{name: run, folder: {folder}, part_size: 24}}
model:
  architecture: {{model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1,
                 num_attention_heads: 2, max_position_embeddings: 64}}
  alphabet: "0123456789+-*= #"
tasks:
  arithmetic: {{sizes: {{demonstrations: 10, train: 12, val: 4, test: 4, transfer: 4}}, lengths: [1, 1]}}
grow: {{draft: {{n: 5, max_tokens: 24, sampler: {{kind: scripted, accuracy: 0.5}}}}}}
learners:
  policy:
    objective: {{kind: dpo, beta: 0.5}}
    examples: {{pairs: {{from: draft, kind: pairs, pairing: cartesian, max_per_problem: 4}}}}
    optim: {{lr: 5e-3, steps: 12, batch_size: 8}}
  judge:
    objective: {{kind: kto, beta: 0.5, desirable: 3}}
    examples: {{all: {{from: draft, balance: problem}}}}
    optim: {{lr: 5e-3, steps: 6, batch_size: 16}}
evaluate: {{n: 0, splits: [val], sampler: scripted}}
loop: {{iterations: 1}}
launch: {{verify_workers: 1}}
track: {{live: none}}
"""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The only iteration of a finished run."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
    assert main(["run", str(folder / "config.yaml")]) == 0
    return folder / "run" / "iteration_0001"


def rows(first: Path, kind: type, *folders: str) -> list[Any]:
    return [row for part in records.parts(first.joinpath(*folders)) for row in records.rows(part, kind)]


def log(first: Path, learner: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (first / learner / "log.jsonl").read_text().splitlines()]


def counts(first: Path) -> dict[str, list[int]]:
    """Wrong and right samples of each problem."""
    samples = [name for part in records.parts(first / "samples") for name in records.column(part, "problem_id")]
    found: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for problem, verdict in zip(samples, rows(first, Verdict, "verdicts"), strict=True):
        found[problem][verdict.status == "right"] += 1
    return found


def test_pairs_are_written_side_by_side(first: Path) -> None:
    examples = rows(first, Example, "examples", "policy")
    sides = list(zip(examples[::2], examples[1::2], strict=True))
    assert all((a.role, b.role, a.pair_id) == ("chosen", "rejected", b.pair_id) for a, b in sides)
    assert all(a.problem_id == b.problem_id and a.label == 1.0 and b.label == 0.0 for a, b in sides)
    assert len({a.pair_id for a, _ in sides}) == len(sides)
    expected = {problem: min(4, wrong * right) for problem, (wrong, right) in counts(first).items()}
    assert Counter(a.problem_id for a, _ in sides) == {p: n for p, n in expected.items() if n}
    assert sum(expected.values()) > 24


def test_dpo_learns_them(first: Path) -> None:
    lines = log(first, "policy")
    assert lines[0]["loss"] == pytest.approx(0.6931, abs=1e-4)
    assert lines[0]["reward accuracy"] == pytest.approx(0.5, abs=0.25)
    assert lines[-1]["loss"] < 0.65
    assert lines[-1]["margin"] > 0.05
    assert "measures" not in lines[0]


def test_kto_is_given_a_divergence_that_the_reference_was_scored_for(first: Path) -> None:
    examples = rows(first, Example, "examples", "judge")
    assert {one.role for one in examples} == {None}
    (folder,) = (first / "logprobs").iterdir()
    scored = [one for part in records.parts(folder) for one in records.rows(part, TokenScores)]
    taught = {(one.prompt_ids, one.response_ids) for one in examples}
    assert len(scored) > 1.5 * len(taught)
    lines = log(first, "judge")
    assert lines[0]["divergence"] == pytest.approx(0, abs=1e-4)
    assert all(line["divergence"] >= 0 for line in lines)
    assert any(line["divergence"] > 1e-3 for line in lines)


def test_both_sides_of_a_problem_weigh_alike(first: Path) -> None:
    weights: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for one in rows(first, Example, "examples", "judge"):
        weights[one.problem_id][one.label == 1.0] += one.weight
    for problem, (wrong, right) in counts(first).items():
        assert weights[problem] == pytest.approx([2.5, 2.5] if wrong and right else [0.0, 0.0])
