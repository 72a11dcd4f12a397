"""Protocols: prompts and scores against those of lm-evaluation-harness and lighteval, and a run that reports them."""

from __future__ import annotations

import json
import os
import string
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from selftrain import records, registry
from selftrain.cli import main
from selftrain.config import ConfigError, check_tree, instantiate, to_tree
from selftrain.intervals import mean_interval
from selftrain.protocols.base import Graded
from selftrain.report.protocols import protocol_lines
from selftrain.report.run import best_iteration
from selftrain.schema import Component, Sampling
from selftrain.tasks.gsm8k import GSM8K
from selftrain.types import Problem, Sample

HERE = Path(__file__).resolve().parent
GOLDEN: dict[str, Any] = json.loads((HERE / "tables" / "protocols.json").read_text())
FEWSHOT = {"lm_eval_gsm8k_cot": "num_fewshot", "lighteval_gsm8k": "num_fewshots"}
"""The option of each protocol that says how many worked examples it shows."""
DATA = os.environ.get("SELFTRAIN_DATA", "")
HARNESSES = os.environ.get("SELFTRAIN_HARNESSES", "")
Rows = list[dict[str, Any]]


def write_rows(folder: Path, **files: Rows) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def prompts(folder: Path, name: str, shown: int) -> list[str]:
    """The prompts of the test split, in its order; validation is carved out of train, as in a run."""
    task = GSM8K(data_dir=str(folder), val_size=2)
    splits = {split: task.problems(split) for split in task.splits()}
    protocol = registry.build("protocol", name, {FEWSHOT[name]: shown})
    drawn = protocol.shots(splits, "test") if hasattr(protocol, "shots") else {}
    return [protocol.prompt(problem, drawn.get(problem.id, ())) for problem in splits["test"]]


def scores(folder: Path, name: str, responses: Sequence[tuple[int, str]]) -> list[dict[str, float]]:
    problems, protocol = GSM8K(data_dir=str(folder)).problems("test"), registry.build("protocol", name, {})
    return [protocol.scores(problems[row], text) for row, text in responses]


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "golden", train=GOLDEN["train"], test=GOLDEN["test"])


@pytest.mark.parametrize("name", FEWSHOT)
def test_prompts_are_byte_by_byte_those_of_the_harness(name: str, golden: Path) -> None:
    for shown, written in GOLDEN["prompts"][name].items():
        assert prompts(golden, name, int(shown))[: len(written)] == written


@pytest.mark.parametrize("name", FEWSHOT)
def test_scores_are_those_of_the_harness(name: str, golden: Path) -> None:
    found = scores(golden, name, [(case["row"], case["text"]) for case in GOLDEN["responses"]])
    assert found == [case[name] for case in GOLDEN["responses"]]
    assert {score for values in found for score in values.values()} == {0.0, 1.0}


def test_answers_are_drawn_as_the_harness_draws_them() -> None:
    stops = {"lm_eval_gsm8k_cot": ("Q:", "</s>", "<|im_end|>"), "lighteval_gsm8k": ("Question:",)}
    for name, stop in stops.items():
        assert registry.build("protocol", name, {}).sampling() == Sampling(temperature=0.0, max_tokens=256, stop=stop)


@pytest.fixture(scope="module")
def asked() -> list[dict[str, Any]]:
    """What the harnesses are asked: the golden table, and 50 real problems with 4 stored responses each."""
    golden = {
        "shots": {name: [int(shown) for shown in table] for name, table in GOLDEN["prompts"].items()},
        "responses": [(case["row"], case["text"]) for case in GOLDEN["responses"]],
    }
    requests = [{**{name: GOLDEN[name] for name in ("train", "test")}, **golden}]
    if DATA:
        rows = {name: read(Path(DATA) / "gsm8k" / f"{name}.jsonl") for name in ("train", "test")}
        solutions = read(Path(DATA) / "gsm8k" / "model_solutions.jsonl")[:50]
        shots = {"lm_eval_gsm8k_cot": [8], "lighteval_gsm8k": [0, 5]}
        requests.append({**rows, "shots": shots, "responses": stored_responses(rows["test"], solutions)})
    return requests


@pytest.fixture(scope="module")
def told(asked: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the harnesses themselves say, in an environment of their own; starting them takes long, so they do once."""
    if not HARNESSES:
        pytest.skip("SELFTRAIN_HARNESSES is not set; `make test` installs them and sets it")
    folder = tmp_path_factory.mktemp("harnesses")
    (folder / "request.json").write_text(json.dumps(asked))
    command = [HARNESSES, "-W", "ignore", str(HERE / "harness_driver.py"), "request.json", "reply.json"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env={**os.environ, **offline}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    reply: list[dict[str, Any]] = json.loads((folder / "reply.json").read_text())
    return reply


def test_the_golden_table_is_what_the_harnesses_say(told: list[dict[str, Any]]) -> None:
    reply = told[0]
    assert reply["versions"] == GOLDEN["versions"]
    for name in FEWSHOT:
        assert reply["scores"][name] == [case[name] for case in GOLDEN["responses"]]
        for shown, written in GOLDEN["prompts"][name].items():
            assert reply["prompts"][name][shown][: len(written)] == written


@pytest.mark.skipif(not DATA, reason="SELFTRAIN_DATA is not set")
def test_200_stored_responses_score_the_same_and_all_prompts_are_equal(
    asked: list[dict[str, Any]], told: list[dict[str, Any]]
) -> None:
    folder, request, reply = Path(DATA) / "gsm8k", asked[1], told[1]
    assert len(request["responses"]) == 200
    for name, numbers in request["shots"].items():
        found = scores(folder, name, request["responses"])
        assert found == reply["scores"][name]
        assert 20 < sum(score[next(reversed(score))] for score in found) < 180
        for shown in numbers:
            assert len(reply["prompts"][name][str(shown)]) == 1319
            assert prompts(folder, name, shown) == reply["prompts"][name][str(shown)]


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines()]


def stored_responses(test: Rows, solutions: Rows) -> list[tuple[int, str]]:
    """Four models' right and wrong solutions; every other one is ended the way lm-evaluation-harness teaches."""
    place = {row["question"]: index for index, row in enumerate(test)}
    models = [name for name, value in solutions[0].items() if isinstance(value, dict)]
    chosen = [(place[row["question"]], row[name]["solution"]) for row in solutions for name in models]
    return [
        (index, text.replace("\nA: ", "\nThe answer is ") + "." if number % 2 else text)
        for number, (index, text) in enumerate(chosen)
    ]


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
