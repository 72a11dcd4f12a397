"""What cards say of licences, teachers and methods: what is written somewhere, and unknown where nothing is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard, ModelCard

from selftrain.config import check_tree, load_config, to_tree
from selftrain.planning import fingerprints
from selftrain.report.cards import dataset_card, model_card
from selftrain.report.export import Data
from selftrain.report.licences import base_licence, task_licence
from selftrain.report.lineage import Iteration, Lineage

TINY = Path(__file__).with_name("tiny.yaml")
MIT = {"name": "mit", "where": "openai/gsm8k", "link": None, "other": False}
APACHE = {"name": "apache-2.0", "where": "its model card", "link": None, "other": False}
QWEN = {"kind": "hub", "name": "Qwen/Qwen3-0.6B", "licence": APACHE}
FIRST = Iteration(
    1,
    {"aa": 8},
    {"draft": {"policy": 8}},
    {"right": 5, "wrong": 2, "timeout": 1},
    {"own": {"kept": 5, "wrong": 2}},
    5,
    "bb",
)


def facts(**changes: Any) -> Lineage:
    row = {"iteration": 1, "task": "maths", "split": "test", "n_problems": 9, "errors": 0.0}
    row |= {"pass@1": 0.5, "pass@1_low": 0.2, "pass@1_high": 0.8}
    config = to_tree(load_config(TINY, ["warmup=null"]))
    maths = {"kind": "gsm8k", "licence": MIT, "problems": {"train": 8, "test": 9}}
    made = Lineage("0.1.0", "r", "policy", 1, "the last", QWEN, {"maths": maths}, [FIRST], [row], config, {})
    return replace(made, **changes)


def front(card: ModelCard | DatasetCard) -> dict[str, Any]:
    found: dict[str, Any] = card.data.to_dict()  # type: ignore[no-untyped-call]
    return found


def test_metadata_name_base_data_licence_and_numbers() -> None:
    found = front(ModelCard(model_card(facts(), "org/mine")))
    assert found["base_model"] == "Qwen/Qwen3-0.6B" and found["license"] == "apache-2.0"
    assert found["datasets"] == ["openai/gsm8k"] and "rest-em" in found["tags"]
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"] == {"name": "maths", "type": "openai/gsm8k", "split": "test"}
    assert result["metrics"] == [
        {"type": "pass@1", "value": 0.5, "name": "pass@1, 95 % interval 0.200 to 0.800, 9 problems"}
    ]


def test_a_licence_without_an_identifier_goes_on_with_name_and_link() -> None:
    link = "https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/LICENSE"
    licence = {"name": "qwen-research", "where": "its model card", "link": link, "other": True}
    found = front(ModelCard(model_card(facts(base={**QWEN, "licence": licence}), "org/mine")))
    assert [found[name] for name in ("license", "license_name", "license_link")] == ["other", "qwen-research", link]


def test_answers_of_others_are_named_and_their_licence_is_unknown() -> None:
    taught = replace(FIRST, sampled_by={"big/model": 8}, written={"draft": {"teacher, big/model": 8}})
    card = model_card(facts(iterations=[taught]), "mine")
    assert "| answers written by teacher, big/model | unknown | unknown |" in card
    assert "ReST-EM" not in card and "Iterated self-training" in card
    data = Data({"samples/iteration_0001.parquet": (1, 8)})
    assert front(DatasetCard(dataset_card(facts(), "mine-data", data)))["license"] == "mit"
    assert front(DatasetCard(dataset_card(facts(iterations=[taught]), "mine-data", data)))["license"] == "unknown"


@pytest.mark.parametrize("override", ["learners.policy.init=previous", "learners.policy.examples.own.verdict=any"])
def test_other_choices_are_not_called_rest_em(override: str) -> None:
    config = to_tree(load_config(TINY, [override]))
    assert "ReST-EM" not in model_card(facts(config=config), "mine")


def test_a_prompt_cannot_end_the_block_of_the_config() -> None:
    config = to_tree(load_config(TINY))
    config["tasks"]["arithmetic"]["prompt"]["template"] = "```\n# not a heading |\n```{question}"
    card = model_card(facts(config=config), "mine")
    assert "\n````yaml\n" in card and card.rstrip().endswith("````\n\n</details>")


@pytest.mark.parametrize(
    ("task", "licence", "source"),
    [
        ({"kind": "gsm8k"}, "mit", "openai/gsm8k"),
        ({"kind": "gsm8k", "hub": "someone/copy"}, "unknown", "someone/copy"),
        ({"kind": "gsm8k", "data_dir": "/my/own/company/data"}, "unknown", "unknown"),
        ({"kind": "gsm8k", "data_dir": "/my", "licence": "mit", "origin": "openai/gsm8k"}, "mit", "openai/gsm8k"),
        ({"kind": "gsm8k", "hub": "someone/copy", "licence": "mit"}, "mit", "someone/copy"),
        ({"kind": "svamp"}, "mit", "ChilleD/SVAMP"),
        ({"kind": "aqua"}, "apache-2.0", "deepmind/aqua_rat"),
        ({"kind": "countdown"}, "unknown", "Jiayi-Pan/Countdown-Tasks-3to4"),
        ({"kind": "countdown", "data_dir": "/my"}, "unknown", "unknown"),
        ({"kind": "arithmetic", "modulus": 10}, "none needed", "generated"),
        ({"kind": "jsonl"}, "unknown", "unknown"),
        ({"kind": "jsonl", "licence": "cc-by-4.0", "origin": "org/data"}, "cc-by-4.0", "org/data"),
        ({"kind": "nowhere.py:Task"}, "unknown", "unknown"),
    ],
)
def test_a_task_says_what_its_data_stand_under(task: dict[str, Any], licence: str, source: str) -> None:
    found = task_licence(task)
    assert (found.name, found.where) == (licence, source)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: gemma\n---\n", "gemma"),
        ("---\nlicense: other\nlicense_name: qwen\nlicense_link: LICENSE\n---\n", "qwen"),
        ("---\ntags: [a]\n---\n", "unknown"),
        ("no metadata", "unknown"),
        ("---\nlicense: [\n---\n", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_local_base_stands_under_what_its_card_says(card: str | None, licence: str, tmp_path: Path) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert base_licence(str(tmp_path), "local", online=False).name == licence


def test_a_licence_written_down_later_leaves_what_is_done_valid(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({"question": "1+1=", "answer": "2"}))
    tree = to_tree(load_config(TINY))
    jsonl = {"kind": "jsonl", "files": {"train": str(tmp_path / "train.jsonl")}, "verifier": "numeric_answer"}
    before, after = (
        fingerprints.data(check_tree({**tree, "tasks": {"own": {**jsonl, **more}}}))
        for more in ({}, {"licence": "cc0-1.0", "origin": "mine"})
    )
    assert before == after and "fields" in before["tasks"]["own"]
    gsm8k = {"kind": "gsm8k", "data_dir": str(tmp_path)}
    before, after = (
        fingerprints.data(check_tree({**tree, "tasks": {"own": {**gsm8k, **more}}}))
        for more in ({}, {"licence": "mit", "origin": "openai/gsm8k"})
    )
    assert before == after and "val_size" in before["tasks"]["own"]
