"""A whole run with a judge behind the rules: counted, judged again by others, audited by hand, and all of it told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from judge_server import JudgeServer

from selftrain import records
from selftrain.cli import main
from selftrain.evaluation import JUDGE

RULES = """
from selftrain.types import Verdict


def verify(problem, response):
    answer = response.rpartition("#")[2].strip()
    if len(answer) == 1:
        return Verdict("unparsed", 0.0, answer, "a single digit is not read here")
    return Verdict("right" if answer == str(problem.answer) else "wrong", None, answer)
"""
CONFIG = """
run: {{name: trust, folder: {folder}/runs, part_size: 40, reuse: false}}
model:
  architecture: {{model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1,
                 num_attention_heads: 2, max_position_embeddings: 64}}
  alphabet: "0123456789+-*= #"
tasks:
  arithmetic:
    sizes: {{demonstrations: 10, train: 20, val: 4, test: 60, transfer: 4}}
    lengths: [1, 1]
    verifier: {{kind: cascade, rules: "{folder}/rules.py:verify",
               judge: {{url: "{url}", model: judge, cache: {folder}/cache}}}}
grow: {{draft: {{n: 4, max_tokens: 24, sampler: {{kind: scripted, accuracy: 0.6}}}}}}
learners: {{policy: {{examples: {{own: {{from: draft, verdict: right, cap: 2}}}}, optim: {{steps: 2, batch_size: 8}}}}}}
evaluate: {{n: 0, splits: [test], sampler: {{kind: scripted, accuracy: 0.6}}}}
loop: {{iterations: 1}}
launch: {{verify_workers: 1}}
track: {{live: plain}}
"""


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer() as made:
        yield made


def test_judge_regrading_and_audit(server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules.py").write_text(RULES)
    (tmp_path / "config.yaml").write_text(CONFIG.format(folder=tmp_path, url=server.url))
    run, root = ["run", str(tmp_path / "config.yaml")], tmp_path / "runs/trust"
    assert main(run) == 0
    told = capsys.readouterr().out
    path = root / "iteration_0001/evaluation/arithmetic-test.parquet"
    pairs = list(zip(*records.columns(path, "status", "by"), strict=True))
    row = json.loads((root / "metrics.jsonl").read_text().splitlines()[-1])
    accepted = pairs.count(("right", JUDGE))
    assert accepted > 0 and row["by_judge"] == pytest.approx(accepted / 60, abs=1e-6)
    assert "by judge %" in told and "accepted by a judge\niteration 1: " in told
    asked = len(server.bodies)
    assert asked == len({prompt for prompt in server.prompts()})  # The cache spared all repeats.

    # The verifier changes: the same command says so, and what to do; nothing is sampled again but by a new policy.
    by_rules = [*run, "tasks.arithmetic.verifier=numeric_answer"]
    assert main(by_rules) == 2
    said = capsys.readouterr().err
    assert "tasks.arithmetic.verifier" in said and "old verdicts are kept under redone/" in said
    flags = said.rstrip().rpartition(" with ")[2].split()
    assert main([*by_rules, *flags]) == 0
    told = capsys.readouterr().out
    assert "judged again: iteration 1, samples of Grow" in told
    assert "by judge %" not in told.partition("judged again\n")[2]
    assert main(["report", str(root)]) == 0
    report = capsys.readouterr().out
    assert "judged again\niteration_0000/regraded-arithmetic-test.json: numeric_answer@" in report
    assert "<h2>Judged again</h2>" in (root / "report.html").read_text()

    sheet = tmp_path / "sheet.jsonl"
    assert main(["audit", str(root), str(sheet), "--draw", "40"]) == 0
    rows = [json.loads(line) for line in sheet.read_text().splitlines()]
    filled = [{**row, "human": row["response"].rpartition("#")[2].strip() == row["gold"]} for row in rows]
    sheet.write_text("".join(json.dumps(row) + "\n" for row in filled))
    assert main(["audit", str(root), str(sheet)]) == 0
    assert main(["report", str(root)]) == 0
    report = capsys.readouterr().out
    assert "audits\naudit of iteration 1, test (greedy answers): 40 of 40 drawn" in report
    assert "40 judgements; intervals were measured to hold from 50 on" in report
    assert "<h2>Audits</h2>" in (root / "report.html").read_text()
