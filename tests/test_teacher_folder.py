"""A whole run whose Grow is written by another model folder, with a vocabulary of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import ALPHABET
from qwen_like import write, write_rows

from selftrain import records
from selftrain.cli import main
from selftrain.config import check_tree, to_yaml
from selftrain.models.small import character_tokenizer
from selftrain.types import Example, Sample

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def run(folder: Path, name: str, **sections: Any) -> Path:
    """A run on sums to its end."""
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "val")}
    tree = {
        "run": {"name": name, "folder": str(folder)},
        "tasks": {"sums": {"kind": "jsonl", "files": files, "verifier": "numeric_answer"}},
        "grow": {"draft": {}},
        "learners": {"policy": {"examples": {"own": {"from": "draft", "verdict": "right"}}, "optim": {"steps": 4}}},
        "evaluate": {"n": 0, "sampling": {"max_tokens": 4}},
        "launch": {"verify_workers": 1},
        **sections,
    }
    (folder / f"{name}.yaml").write_text(to_yaml(check_tree(tree)))
    assert main(["run", str(folder / f"{name}.yaml"), "track.live=none"]) == 0
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Problems, and a teacher in ``taught/warmup/policy/checkpoint`` that knows the sums, in tokens of its own."""
    made = tmp_path_factory.mktemp("teacher")
    write(made / "model")
    write_rows(made / "train.jsonl", 24)
    write_rows(made / "val.jsonl", 3, first=40)
    fit = {"policy": {"from": "gold", "optim": {"lr": 5e-3, "steps": 60, "batch_size": 24}}}
    run(made, "taught", model={"path": str(made / "model")}, warmup=fit, loop={"iterations": 0})
    return made


def test_a_policy_learns_from_a_model_of_another_vocabulary(folder: Path) -> None:
    teacher = folder / "taught" / "warmup" / "policy" / "checkpoint"
    ours = character_tokenizer(ALPHABET, context=32)
    sign = ours.convert_tokens_to_ids("#")  # To the teacher this id is "3", which must not end what it writes.
    model = {"architecture": {"model_type": "qwen3", "max_position_embeddings": 32, **SIZES}, "alphabet": ALPHABET}
    draft = {"n": 4, "max_tokens": 8, "model": str(teacher)}
    chat = {"chat": {"stop_ids": [sign]}}
    made = run(folder, "student", model=model | chat, grow={"draft": draft}, loop={"iterations": 1}) / "iteration_0001"
    samples = {s.id: s for part in records.parts(made / "samples") for s in records.rows(part, Sample)}
    assert len(samples) == 24 * 4
    for sample in samples.values():
        assert (sample.policy, sample.origin, sample.sampler) == (str(teacher), "teacher", "transformers")
        end = (ours.eos_token_id,) if sample.finish_reason == "eos" else ()
        assert sample.ids_from == "retokenised" and sample.response_ids == (*ours.encode(sample.text), *end)
        assert len(sample.prompt_ids) == len("0+0=")
    assert sum("#3" in sample.text for sample in samples.values()) >= 4
    examples = records.parts(made / "examples" / "policy")
    taught = [example for part in examples for example in records.rows(part, Example)]
    assert len(taught) >= 8
    for example in taught:
        assert example.response_ids == samples[str(example.sample_id)].response_ids
        assert example.response_ids[-1] == ours.eos_token_id and ours.unk_token_id not in example.response_ids
    assert (made / "policy" / "checkpoint" / "model.safetensors").exists()
