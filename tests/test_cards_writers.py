"""What cards say of who wrote the answers and how they were asked for: what happened, not what a config reads like."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from test_cards import FIRST, TINY, facts

from selftrain.artifacts import RunDir
from selftrain.cli import main
from selftrain.config import load_config, to_tree
from selftrain.report.cards import model_card
from selftrain.report.lineage import Lineage
from selftrain.report.sampling import asked

DISTILL = TINY.parent.parent / "configs" / "distill_gsm8k.yaml"
TEACHER = "Qwen/Qwen2.5-7B-Instruct"


def told(folder: Path, config: Path, *overrides: str, **changes: Any) -> tuple[Lineage, str]:
    """The facts of a config, and the card, its config left out."""
    tree = to_tree(load_config(config, overrides))
    found = facts(config=tree, sampling=asked(RunDir(folder), tree), **changes)
    return found, model_card(found, "mine").partition("## Config")[0]


def lines(card: str, beginning: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith(f"| {beginning}")]


def test_a_distilled_model_is_told_to_come_from_its_teacher(tmp_path: Path) -> None:
    written = replace(
        FIRST,
        sampled_by={TEACHER: 8},
        written={"teacher": {f"teacher, {TEACHER}": 8}},
        selections={"theirs": {"kept": 5, "wrong": 2}},
    )
    _, card = told(tmp_path, DISTILL, iterations=[written])
    assert f"samples 16 answers per problem, until 4 are right (teacher) with the teacher {TEACHER}, judges" in card
    assert f"by selftrain 0.1.0 on verified solutions by the teacher {TEACHER}." in card
    assert "current policy" not in card and "its own" not in card and "what an iteration made" not in card
    assert f"| 1 | `teacher, {TEACHER}` | 8 | 5 theirs |" in card
    assert lines(card, "grow, teacher") == [["grow, teacher", "16", "0.7", "0", "1", "512", "none", "openai"]]
    assert lines(card, "evaluation |") == [["evaluation", "4", "0.7", "0", "1", "512", "none", "vllm"]]
    assert ModelCard(card).data.get("license") == "unknown"
    assert "| base model Qwen/Qwen3-0.6B | apache-2.0 | its model card |" in card


@pytest.mark.parametrize(
    ("init", "kept", "on"),
    [
        ("base", 3, " on its own verified solutions."),
        ("previous", 3, " on verified solutions by the teacher big/model and its own verified solutions."),
        ("base", 0, "; no example was kept, so nothing was fitted."),
    ],
)
def test_whose_solutions_depends_on_what_each_fit_begins_with(init: str, kept: int, on: str, tmp_path: Path) -> None:
    taught = replace(FIRST, written={"draft": {"teacher, big/model": 8}})
    own = replace(FIRST, number=2, selections={"own": {"kept": kept}})
    _, card = told(tmp_path, TINY, f"learners.policy.init={init}", iterations=[taught, own], iteration=2)
    assert f"by selftrain 0.1.0{on}\n" in card


def test_replayed_rows_are_named_and_of_unknown_licence(tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_text(json.dumps({"prompt": "1+1=", "response": "2"}))
    more = "learners.policy.examples.old.from=replay:old.jsonl"
    _, card = told(tmp_path, TINY, more, iterations=[replace(FIRST, selections={"old": {"kept": 1}})])
    assert "by selftrain 0.1.0 on examples of old.jsonl." in card
    assert "| examples of old.jsonl | unknown | unknown |" in card and ModelCard(card).data.get("license") == "unknown"


def test_the_numbers_are_those_that_held(tmp_path: Path) -> None:
    """The model's where it names them, a task's own before any, and all that stops a response."""
    model = tmp_path / "model"
    model.mkdir()
    path = model / "generation_config.json"
    path.write_text(json.dumps({"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}))
    words = (
        *(f"model.path={model}", "model.architecture=null", "model.alphabet=null", "model.chat.stop=['Q:']"),
        *("grow.draft.values=model", "grow.draft.stop=['|']", "grow.draft.stop_ids=[3]"),
        *("tasks.other={kind: arithmetic, sampling: {n: 2, temperature: 0.9, max_tokens: 9, stop: ['#']}}",),
    )
    whose = "transformers, numbers of the model's generation config"
    _, card = told(tmp_path, TINY, *words)
    assert lines(card, "grow, draft") == [
        ["grow, draft: arithmetic", "4", "0.6", "20", "0.95", "18", r'`"\|"`, `"Q:"`, `3`', whose],
        ["grow, draft: other", "2", "0.9", "20", "0.95", "9", r'`"\|"`, `"Q:"`, `"#"`, `3`', whose],
    ]
    assert lines(card, "evaluation: other")[0][:6] == ["evaluation: other", "2", "0.9", "20", "0.95", "9"]
    assert lines(card, "evaluation, greedy: other")[0][:3] == ["evaluation, greedy: other", "1", "0"]
    assert "samples 2 or 4 answers per problem (draft) with the current policy" in card
    path.unlink()
    _, card = told(tmp_path, TINY, *words)
    assert lines(card, "grow, draft: a")[0][1:6] == ["4", "unknown", "unknown", "unknown", "18"]


def test_adopted_answers_are_called_so(tmp_path: Path) -> None:
    """A whole run whose only Grow is a file of another tool."""
    from selftrain import records

    words = [str(TINY), f"run.folder={tmp_path}", "loop.iterations=1", "learners.policy.examples.gold=null"]
    assert main(["run", *words, "--until", "0/evaluate"]) == 0
    asked_for = zip(
        *records.columns(tmp_path / "tiny" / "problems.parquet", "split", "question", "answer"), strict=True
    )
    rows = [{"question": q, "response": f"#{gold}"} for split, q, gold in asked_for if split == "train"]
    (tmp_path / "theirs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config, *overrides = words
    assert main(["adopt", config, str(tmp_path / "theirs.jsonl"), *overrides, "--format", "jsonl"]) == 0
    assert main(["run", *words]) == 0
    assert main(["push", str(tmp_path / "tiny"), "--to", str(tmp_path / "out"), "--iteration", "1", "--data"]) == 0
    card = (tmp_path / "out" / "README.md").read_text().partition("## Config")[0]
    assert (
        "Each iteration adopts answers that were written outside this run (iteration 1: theirs.jsonl), judges" in card
    )
    assert "on verified solutions adopted from theirs.jsonl." in card and "ReST-EM" not in card
    assert "current policy" not in card and "its own" not in card
    assert lines(card, "grow, draft") == [["grow, draft", *["-"] * 6, "none: adopted"]]
    assert "| answers written by adopted:theirs.jsonl, " in card
    assert "answers that were written outside this run" in (tmp_path / "out-data" / "README.md").read_text()
