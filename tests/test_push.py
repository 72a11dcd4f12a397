"""A run's checkpoint and data in a folder and on a hub: the files, what the cards tell, and what is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.cli import main
from selftrain.report.choose import choose
from selftrain.report.lineage import without_paths
from selftrain.types import Example, Sample

TINY = Path(__file__).with_name("tiny.yaml")
LENIENT = "def verify(problem, response):\n    return '#' in response\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two iterations; the verifier is a file in a folder of this machine."""
    folder = tmp_path_factory.mktemp("private-place")
    (folder / "lenient.py").write_text(LENIENT)
    verifier = f"tasks.arithmetic.verifier={folder}/lenient.py:verify"
    assert main(["run", str(TINY), f"run.folder={folder}/runs", verifier, "loop.stop.metric=avg@2"]) == 0
    return folder / "runs" / "tiny"


@pytest.fixture(scope="module")
def pushed(run: Path) -> tuple[Path, Path]:
    """Iteration 2 and its data in folders."""
    target = run.parent / "model"
    assert main(["push", str(run), "--to", str(target), "--iteration", "2", "--data"]) == 0
    return target, target.with_name("model-data")


def checkpoint(run: Path, iteration: int) -> dict[str, bytes]:
    folder = run / f"iteration_{iteration:04d}" / "policy" / "checkpoint"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def front(card: str) -> dict[str, object]:
    from huggingface_hub import RepoCard

    data: dict[str, object] = RepoCard(card).data.to_dict()  # type: ignore[no-untyped-call]
    return data


def test_a_folder_holds_the_checkpoint_as_it_is_and_what_describes_it(run: Path, pushed: tuple[Path, Path]) -> None:
    found = {path.name: path.read_bytes() for path in pushed[0].iterdir()}
    described = {name: found.pop(name) for name in ("README.md", "selftrain.json")}
    assert found == checkpoint(run, 2)
    told = json.loads(described["selftrain.json"])
    assert {entry["name"]: entry["sha256"] for entry in told["files"]} == {
        name: hashlib.sha256(content).hexdigest() for name, content in found.items()
    }


def test_the_pushed_model_gives_the_logits_of_the_run(run: Path, pushed: tuple[Path, Path]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folders = (pushed[0], run / "iteration_0002" / "policy" / "checkpoint")
    ids = AutoTokenizer.from_pretrained(pushed[0])("1+2=", return_tensors="pt").input_ids
    here, there = (AutoModelForCausalLM.from_pretrained(folder)(ids).logits for folder in folders)
    assert here.shape[1] == 4 and torch.equal(here, there)


def test_the_card_tells_method_numbers_and_licences(run: Path, pushed: tuple[Path, Path]) -> None:
    card = (pushed[0] / "README.md").read_text()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["iteration"] == 2 and row["split"] == "test"]
    percents = [f"{100 * row[name]:.1f}" for name in ("pass@1", "pass@1_low", "pass@1_high")]
    assert f"| 2 | {percents[0]} [{percents[1]}, {percents[2]}] |" in card
    test = row["vs_start"]["pass@1"]
    assert f"{100 * test['difference']:+.1f} [{100 * test['low']:+.1f}, {100 * test['high']:+.1f}]" in card
    for told in (
        "ReST-EM (Singh et al. 2023, arXiv:2312.06585)",
        "| init of each fit | base |",
        "| arithmetic | arithmetic | 12 test, 8 val, 40 demonstrations, 24 train |",
        "| base model | none needed | there is no base model |",
        "| data of arithmetic | none needed | generated |",
        "| grow, draft | 4 | 1 | 0 | 1 | 18 | none | transformers |",
        "| evaluation | 2 | 1 | 0 | 1 | 18 | none | transformers |",
        "| evaluation, greedy | 1 | 0 | 0 | 1 | 18 | none | transformers |",
        "on its own verified solutions and worked solutions of its data.",
        "initializer_range: 0.1",
    ):
        assert told in card, told
    index = front(card)["model-index"][0]  # type: ignore[index]
    values = {(r["dataset"]["split"], m["type"]): m["value"] for r in index["results"] for m in r["metrics"]}
    assert values["test", "pass@1"] == row["pass@1"] and values["test", "avg@2"] == row["avg@2"]
    assert front(card)["license"] == "unknown" and "base_model" not in front(card)


def test_the_lineage_is_a_chain_of_what_made_and_what_sampled(run: Path, pushed: tuple[Path, Path]) -> None:
    told = json.loads((pushed[0] / "selftrain.json").read_text())
    first, second = told["iterations"]
    assert second["sampled_by"] == {first["made"]: 96}
    warmup = hashlib.sha256((run / "warmup" / "policy" / "warmup-policy.done").read_bytes()).hexdigest()[:16]
    assert first["sampled_by"] == {warmup: 96}
    assert sum(second["verdicts"].values()) == 96 and second["verdicts"]["right"] > 0
    kept = {name: counts["kept"] for name, counts in second["selections"].items()}
    assert kept["gold"] == 40 and sum(kept.values()) == second["examples"]
    assert told["config"]["learners"]["policy"]["optim"]["lr"] == 5e-3


def test_nothing_pushed_names_a_place_on_this_machine(run: Path, pushed: tuple[Path, Path]) -> None:
    place = run.parent.parent.name.encode()
    assert place in (run / "config.yaml").read_bytes()
    for folder in pushed:
        for path in (path for path in folder.rglob("*") if path.is_file()):
            assert place not in path.read_bytes(), path
    assert "kind: lenient.py:verify" in (pushed[0] / "README.md").read_text()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/my data/train.jsonl", "train.jsonl"),
        ("~/models/base", "base"),
        ("../outside/model", "model"),
        ("replay:/home/me/old.jsonl", "replay:old.jsonl"),
        ("/home/me/even.py:verify", "even.py:verify"),
        ("ValueError in /usr/lib/x.py: 3/4/5 is no number", "ValueError in x.py: 3/4/5 is no number"),
        ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B"),
        ("http://localhost:8000/v1/models", "http://localhost:8000/v1/models"),
        ("/no_think {question}", "/no_think {question}"),
        ("Q: {question}\nA: 1/2", "Q: {question}\nA: 1/2"),
    ],
)
def test_of_paths_only_the_last_part_is_shown(text: str, shown: str) -> None:
    assert without_paths({"key": [text, 3]}) == {"key": [shown, 3]}


def test_a_config_that_names_its_folder_is_cleaned_and_the_weights_are_not_touched(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = copy / "iteration_0001" / "policy" / "checkpoint" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_name_or_path": "/home/me/base"}))
    assert main(["push", str(copy), "--to", f"{tmp_path}/out", "--iteration", "1"]) == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["_name_or_path"] == "base"
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == checkpoint(run, 1)["model.safetensors"]


def test_data_are_all_samples_with_verdicts_and_all_examples_with_text(run: Path, pushed: tuple[Path, Path]) -> None:
    from datasets import load_dataset

    for number in (1, 2):
        place = run / f"iteration_{number:04d}"
        samples = [s for part in records.parts(place / "samples") for s in records.rows(part, Sample)]
        read = load_dataset("parquet", data_files=str(pushed[1] / f"samples/iteration_{number:04d}.parquet"))["train"]
        assert read["id"] == [s.id for s in samples] and read["text"] == [s.text for s in samples]
        assert [status == "right" for status in read["status"]] == ["#" in text for text in read["text"]]
        assert all(gold.isdigit() for gold in read["gold"]) and all("=" in question for question in read["question"])
        examples = [e for part in records.parts(place / "examples" / "policy") for e in records.rows(part, Example)]
        read = load_dataset("parquet", data_files=str(pushed[1] / f"examples/iteration_{number:04d}.parquet"))["train"]
        assert [tuple(ids) for ids in read["response_ids"]] == [e.response_ids for e in examples]
        assert read["prompt"] == read["question"] and all(text.endswith("<end>") for text in read["response"])
    card = (pushed[1] / "README.md").read_text()
    assert "Contains test questions: **no**. All" in card and "20 questions of test, val" in card
    splits = {config["config_name"]: config["data_files"] for config in front(card)["configs"]}  # type: ignore
    assert splits["samples"][1] == {"split": "iteration_2", "path": "samples/iteration_0002.parquet"}


def test_test_questions_among_the_data_are_told(run: Path, tmp_path: Path) -> None:
    """The record of what was asked is changed so that one trained question is one of the test split."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    table = pq.read_table(copy / "problems.parquet")
    problem = records.column(records.parts(run / "iteration_0001" / "samples")[0], "problem_id")[0]
    moved = pc.if_else(pc.equal(table["id"], problem), "test", table["split"])
    pq.write_table(table.set_column(table.schema.get_field_index("split"), "split", moved), copy / "problems.parquet")
    assert main(["push", str(copy), "--to", f"{tmp_path}/out", "--iteration", "1", "--data"]) == 0
    count = re.search(
        r"Contains test questions: \*\*yes\*\*, (\d+) rows", (tmp_path / "out-data/README.md").read_text()
    )
    assert count is not None and int(count[1]) >= 4


def test_by_default_the_iteration_is_the_one_the_stop_rule_calls_best(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    values = {row["iteration"]: row["avg@2"] for row in rows if row["split"] == "val"}
    found = choose(RunDir(run), "policy", None)
    assert found.iteration == max(values, key=lambda number: values[number])
    assert found.why == "the best by avg@2 on val"


def test_the_report_and_a_push_call_the_same_iteration_the_best(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By avg@2, as `loop.stop` says, where pass@1 says another."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    values = {"avg@2": (0.1, 0.6, 0.5), "pass@1": (0.1, 0.5, 0.6)}
    for number in range(3):
        path = copy / f"iteration_{number:04d}" / "metrics.json"
        rows = json.loads(path.read_text())
        path.write_text(json.dumps([{**row, **{name: of[number] for name, of in values.items()}} for row in rows]))
    (copy / "metrics.jsonl").unlink()
    assert main(["report", str(copy)]) == 0
    told = capsys.readouterr().out
    assert f"\nbest by avg@2 on val  {copy}/iteration_0001/policy/checkpoint\n" in told
    assert f"\ncheckpoint            {copy}/iteration_0002/policy/checkpoint\n" in told
    found = choose(RunDir(copy), "policy", None)
    assert (found.iteration, found.why) == (1, "the best by avg@2 on val")


def test_a_push_takes_the_place_of_an_earlier_one_and_of_nothing_else(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out"
    for iteration in (1, 2):
        assert main(["push", str(run), "--to", str(target), "--iteration", str(iteration)]) == 0
    assert (target / "model.safetensors").read_bytes() == checkpoint(run, 2)["model.safetensors"]
    (target / "mine.txt").write_text("mine")
    assert main(["push", str(run), "--to", str(target)]) == 2
    assert "holds files that no push wrote (mine.txt)" in capsys.readouterr().err
    assert (target / "mine.txt").exists()


def test_a_dry_run_shows_files_and_card_and_needs_neither_hub_nor_token(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run), "--to", "org/name", "--iteration", "2", "--data", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "nothing is pushed" in told and "model.safetensors" in told and "samples/iteration_0001.parquet" in told
    assert "- org/name-data" in told and "# name-data" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--iteration", "7"], "--iteration 7: not finished in"),
        (["--learner", "polcy"], "--learner polcy: the run has no such learner (did you mean 'policy'?)"),
        (["--to", "org//name"], "--to org//name: Repo id must be"),
        (["--to", "-x"], "--to -x: Repo id must"),
    ],
)
def test_usage_that_leads_nowhere_is_one_line(
    options: list[str], told: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"{options[0]}={options[1]}"]
    assert main(["push", str(run), "--to", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_finished_iteration_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    (tmp_path / "iteration_0001").mkdir()
    assert main(["push", str(tmp_path), "--to", str(tmp_path / "out")]) == 1
    assert "no iteration is finished; run the same command again to go on" in capsys.readouterr().err
    assert main(["push", str(tmp_path / "iteration_0001"), "--to", str(tmp_path / "out")]) == 2
    assert "is no run directory" in capsys.readouterr().err
