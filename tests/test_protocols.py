"""Protocols in a run: reported beside its own metrics, refused where they cannot be asked."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from small_data import write_lines

from selftrain import records, registry
from selftrain.cli import main
from selftrain.config import ConfigError, check_tree, instantiate, to_tree
from selftrain.intervals import mean_interval
from selftrain.planning.best import best_iteration
from selftrain.protocols.base import Graded
from selftrain.report.protocols import protocol_lines
from selftrain.schema import Component
from selftrain.tasks.gsm8k import GSM8K
from selftrain.types import Problem, Sample

Rows = list[dict[str, Any]]


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(folder: Path, **files: Rows) -> Path:
    for name, rows in files.items():
        write_lines(folder / f"{name}.jsonl", rows)
    return folder


CONFIG: dict[str, Any] = {
    "model": {
        "architecture": {
            "model_type": "qwen3", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 1024,
        },
        "alphabet": string.printable[:95] + "\n",
    },
    "grow": {"draft": {"n": 2, "max_tokens": 16, "sampler": {"kind": "scripted", "accuracy": 0.6}}},
    "learners": {"policy": {"examples": {"own": {"from": "draft"}}, "optim": {"steps": 2, "batch_size": 4}}},
    "loop": {"iterations": 1, "stop": {"metric": "pass@1", "split": "val", "patience": 5}},
    "launch": {"verify_workers": 1},
    "track": {"live": "plain"},
}  # fmt: skip


def sums(first: int, count: int) -> Rows:
    return [
        {"question": f"What is {i} + {i}?", "answer": f"{i} + {i} = <<{i}+{i}={2 * i}>>{2 * i}\n#### {2 * i}"}
        for i in range(first, first + count)
    ]


def configured(folder: Path, **protocol: Any) -> dict[str, Any]:
    tasks = {
        name: {"kind": "gsm8k", "val_size": 4, "data_dir": str(write_rows(folder / name, train=train, test=test))}
        for name, train, test in (("easy", sums(10, 12), sums(40, 6)), ("hard", sums(500, 12), sums(900, 6)))
    }
    evaluate = {"n": 2, "splits": ["val", "test"], "protocol": protocol}
    return {**CONFIG, "run": {"name": "run", "folder": str(folder)}, "tasks": tasks, "evaluate": evaluate}


def run(folder: Path, config: dict[str, Any]) -> int:
    (folder / "config.yaml").write_text(json.dumps(config))
    return main(["run", str(folder / "config.yaml")])


def test_a_run_reports_a_protocol_beside_its_own_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen: dict[str, Any] = {
        "easy": {"kind": "lm_eval_gsm8k_cot", "num_fewshot": 1},
        "hard": "lighteval_gsm8k",
    }
    config = configured(tmp_path, **chosen)
    assert run(tmp_path, config) == 0
    rows = read(tmp_path / "run" / "metrics.jsonl")
    own, theirs = ([row for row in rows if ("protocol" in row) is named] for named in (False, True))
    assert len(own) == len(theirs) == 2 * 2 * 2 and all("pass@1" in row for row in own)
    for row in theirs:
        options = {"num_fewshot": 1} if row["task"] == "easy" else {}
        check_row(tmp_path / "run", row, registry.build("protocol", row["protocol"], options))
    assert max(row.get("exact_match,flexible-extract", 0) for row in theirs) > 0.3
    said = capsys.readouterr().out
    assert "iteration 1 easy/test, lm_eval_gsm8k_cot: exact_match,strict-match" in said
    assert "hard / test by lighteval_gsm8k, 6 problems" in said
    assert "hard / test by lighteval_gsm8k, 6 problems" in (tmp_path / "run" / "report.html").read_text()
    assert main(["compare", str(tmp_path / "run"), str(tmp_path / "run")]) == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert run(tmp_path, config) == 0 and (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def check_row(root: Path, row: dict[str, Any], protocol: Any) -> None:
    """The line follows from the stored answers, which answer the protocol's own prompt without chance."""
    name = f"{row['task']}-{row['split']}-{row['protocol']}.parquet"
    samples = records.read(root / f"iteration_{row['iteration']:04d}" / "evaluation" / name, Sample)
    problems = {f"{row['task']}/{p.id.partition('/')[2]}": p for p in problems_of(root, row)}
    assert {sample.problem_id for sample in samples} == problems.keys() and len(samples) == row["n_problems"]
    graded = [protocol.scores(problems[sample.problem_id], sample.text) for sample in samples]
    for metric in protocol.metrics:
        estimate = mean_interval([score[metric] for score in graded])
        assert [row[f"{metric}{end}"] for end in ("", "_low", "_high")] == [round(number, 6) for number in estimate]
    for sample in samples:  # One id per character.
        assert len(sample.prompt_ids) == len(protocol.prompt(problems[sample.problem_id]))
    assert (row["errors"], row["truncated"]) == (0.0, 0.0)


def problems_of(root: Path, row: dict[str, Any]) -> list[Problem]:
    return GSM8K(data_dir=str(root.parent / row["task"]), val_size=4).problems(row["split"])


def test_rows_of_protocols_decide_nothing() -> None:
    own = [{"iteration": i, "task": "easy", "split": "val", "pass@1": share} for i, share in enumerate((0.5, 0.4))]
    theirs = [{"iteration": i, "task": "easy", "split": "val", "protocol": "p", "pass@1": i} for i in range(2)]
    config = {"tasks": {"easy": {}}, "loop": {"stop": None}}
    assert best_iteration([*own, *theirs], config) == (0, "pass@1 on val")
    assert protocol_lines(own) == []


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ({"easy": "lm_eval_gsm8k"}, "evaluate.protocol.easy: unknown protocol 'lm_eval_gsm8k' (did you mean"),
        ({"esy": "lighteval_gsm8k"}, "evaluate.protocol.esy: no such task (did you mean 'easy'?)"),
        ({"easy": {"kind": "lm_eval_gsm8k_cot", "num_fewshot": 9}}, "num_fewshot must be from 0 to 8, got 9"),
        ({"easy": {"kind": "lighteval_gsm8k", "num_fewshot": 9}}, "unknown key (did you mean 'num_fewshots'?)"),
        ({"easy": {"kind": "lighteval_gsm8k", "num_fewshots": 99}}, "num_fewshots is 99, but train has 8 problems"),
        ({"easy": "lm_eval_gsm8k_cot"}, "the model's context is 1024; ask with fewer worked examples"),
    ],
)
def test_mistakes_are_told_before_the_run(
    protocol: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, configured(tmp_path, **protocol)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_problem_without_a_worked_solution_cannot_be_graded_as_lighteval_does() -> None:
    protocol = registry.build("protocol", "lighteval_gsm8k", {})
    with pytest.raises(ValueError, match="has no metadata 'solution'"):
        protocol.prompt(Problem("mine/test/0", "mine", "test", "What is 1 + 1?", answer="2"))


def test_worked_examples_are_drawn_by_row_so_ids_must_end_in_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those of files of one's own do where they have a field ``id``; else they end in a hash of the question."""
    config = configured(tmp_path, mine={"kind": "lighteval_gsm8k", "num_fewshots": 1})
    rows = {"train": sums(10, 6), "val": sums(20, 3), "test": sums(30, 3)}
    for numbered in (False, True):
        name = "numbered" if numbered else "hashed"
        more = [{"solution": row["answer"], **({"id": i} if numbered else {})} for i, row in enumerate(sums(0, 9))]
        data = {
            split: [{**row, **extra, "answer": "1"} for row, extra in zip(own, more, strict=False)]
            for split, own in rows.items()
        }
        folder = write_rows(tmp_path / name, **data)
        files = {split: f"{folder}/{split}.jsonl" for split in rows}
        config["tasks"] = {"mine": {"kind": "jsonl", "files": files, "verifier": "numeric_answer"}}
        assert run(tmp_path, config) == (0 if numbered else 2)
    error = capsys.readouterr().err
    assert error.startswith("selftrain: evaluate.protocol.mine: problem mine/train/") and error.count("\n") == 1
    assert "ids must end in a row number; give every record one" in error and "set num_fewshots to 0" in error


def test_what_a_protocol_needs_is_looked_for_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.build("protocol", "lighteval_gsm8k", {}).check()
    monkeypatch.setattr("selftrain.protocols.lighteval.REQUIRED", "latex2sympy2_extended==0.0.1")
    with pytest.raises(ValueError, match=r"needs latex2sympy2_extended==.*pip install"):
        registry.build("protocol", "lighteval_gsm8k", {}).check()


def test_a_protocol_grades_like_a_verifier() -> None:
    problem = Problem("mine/test/0", "mine", "test", "What is 1 + 1?", answer="2")
    verdict = Graded("lm_eval_gsm8k_cot", {"num_fewshot": 0})(problem, "It is 2")
    assert (verdict.status, verdict.value) == ("wrong", 0.5)
    assert json.loads(verdict.reason or "") == {"exact_match,strict-match": 0.0, "exact_match,flexible-extract": 1.0}


def test_a_protocol_is_a_component_of_the_config(tmp_path: Path) -> None:
    config = check_tree(configured(tmp_path, easy="lm_eval_gsm8k_cot", hard=None))
    assert config.evaluate.protocol == {"easy": Component("lm_eval_gsm8k_cot", {"num_fewshot": 8})}
    assert check_tree(to_tree(config)) == config
    assert instantiate("protocol", config.evaluate.protocol["easy"]).num_fewshot == 8
    with pytest.raises(ConfigError, match=r"evaluate\.protocol: expected a mapping"):
        check_tree({"evaluate": {"protocol": "lm_eval_gsm8k_cot"}})
