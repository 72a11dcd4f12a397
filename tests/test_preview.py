"""What a dry run shows of prompts, of who reads them and what ends the answers, and of what is taught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ALPHABET
from qwen_like import write_rows

from selftrain.artifacts import RunDir
from selftrain.checks.check import check
from selftrain.checks.preview import preview
from selftrain.config import check_tree
from selftrain.planning.settings import sampling_of
from selftrain.session import Session
from selftrain.stages.grow import work_list


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Session]:
    """A session on sums, with sections and keys of its own."""
    write_rows(tmp_path / "train.jsonl", 12)
    write_rows(tmp_path / "val.jsonl", 3, first=40)

    def make(model: Any, task: dict[str, Any] | None = None, **sections: Any) -> Session:
        files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "val")}
        tree = {
            "model": model,
            "tasks": {"sums": {"kind": "jsonl", "files": files, "verifier": "numeric_answer", **(task or {})}},
            "grow": {"draft": {"n": 2, "max_tokens": 6}},
            "learners": {"policy": {"examples": {"own": {"from": "draft", "verdict": "right"}}}},
            "evaluate": {"n": 0},
        }
        return Session(check_tree({**tree, **sections}), RunDir(tmp_path / "runs" / "run"))

    return make


def shown(session: Session) -> str:
    with session:
        check(session)
        return "\n".join(preview(session)) + "\n"


def test_a_chat_and_what_is_taught_of_it(opened: Callable[..., Session], chat_model: Path) -> None:
    task = {
        "prompt": {"few_shot": {"n": 1}, "instruction": "Think."},
        "train_prompt": {"template": "Sum {question}"},
    }
    assert (
        shown(opened({"path": str(chat_model), "chat": {"system": "Add."}}, task))
        == """\
prompt of sums/train/0, 72 tokens:
  | <|im_start|>system
  | Add.<|im_end|>
  | <|im_start|>user
  | 1+3=
  | Think.<|im_end|>
  | <|im_start|>assistant
  | #4<|im_end|>
  | <|im_start|>user
  | 0+0=
  | Think.<|im_end|>
  | <|im_start|>assistant
  |\x20
  grow.draft: sampled at temperature 1, top-k 0, top-p 1, at most 6 tokens, ended by '<|im_end|>'
training example, with what carries no loss in ⟦ ⟧:
  | ⟦<|im_start|>system
  | Add.<|im_end|>
  | <|im_start|>user
  | Sum 0+0=<|im_end|>
  | <|im_start|>assistant
  | ⟧#0<|im_end|>
"""
    )


def test_plain_text_and_what_is_taught_of_it(opened: Callable[..., Session], chat_model: Path) -> None:
    form = {"template": "Q: {question} A:", "answer": " {demonstration}"}
    task = {"prompt": {**form, "few_shot": {"n": 1}}, "train_prompt": form}
    assert (
        shown(opened({"path": str(chat_model), "chat": {"template": "none", "stop": ["Q:"]}}, task))
        == """\
prompt of sums/train/0, 24 tokens:
  | Q: 1+3= A: #4
  |\x20
  | Q: 0+0= A:
  grow.draft: sampled at temperature 1, top-k 0, top-p 1, at most 6 tokens, ended by 'Q:', '<|im_end|>'
training example, with what carries no loss in ⟦ ⟧:
  | ⟦Q: 0+0= A:⟧ #0<|im_end|>
"""
    )


SERVER = {"kind": "openai", "url": "http://127.0.0.1:9/v1"}


def characters(**options: Any) -> dict[str, Any]:
    """A policy to whom token 18 is ``#``; to the teacher it is ``3``."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "max_position_embeddings": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return {"architecture": {"model_type": "qwen3", **sizes, **heads}, "alphabet": ALPHABET, **options}


def test_each_writer_is_shown_its_prompt_and_what_ends_it(opened: Callable[..., Session], chat_model: Path) -> None:
    grow = {
        "draft": {"stop": ["="]},
        "folder": {"model": str(chat_model), "stop_ids": [7]},
        "server": {"model": "far", "sampler": SERVER},
        "alike": {"model": "near", "sampler": {**SERVER, "prompt_ids": True}},
    }
    said = shown(opened(characters(chat={"stop_ids": [18], "stop": ["0"]}), grow=grow))
    sampled = "sampled at temperature 1, top-k 0, top-p 1, at most 512 tokens, ended by"
    assert (
        said
        == f"""\
prompt of sums/train/0, 4 tokens:
  | 0+0=
  grow.draft: {sampled} '=', '0', 18, '<end>'
  grow.folder: {chat_model} reads it in tokens of its own, 58:
  | <|im_start|>system
  | You are a helpful assistant.<|im_end|>
  | <|im_start|>user
  | 0+0=<|im_end|>
  | <|im_start|>assistant
  |\x20
  grow.folder: {sampled} '0', 7, '<|im_end|>'; not by 18, which only the policy is known to read so
  grow.server: {sampled} '0', its own end token; not by 18, which only the policy is known to read so
  grow.alike: {sampled} '0', 18, its own end token
training example, with what carries no loss in ⟦ ⟧:
  | ⟦0+0=⟧#0<end>
"""
    )


def test_token_ids_stop_those_who_read_them_alike(opened: Callable[..., Session], chat_model: Path) -> None:
    grow = {
        "draft": {"stop_ids": [3]},
        "folder": {"model": str(chat_model), "stop_ids": [7]},
        "server": {"model": "far", "sampler": SERVER},
    }
    task = {"sampling": {"stop_ids": [5], "stop": ["7"]}}

    def stops(session: Session) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
        found = [work_list(session, 1, step)[0].settings for step in grow]
        return [(settings.stop, settings.stop_ids) for settings in found]

    with opened(characters(chat={"stop_ids": [18]}), task, grow=grow) as session:
        check(session)
        assert stops(session) == [(("7",), (3, 18, 5)), (("7",), (7,)), (("7",), ())]
    # A teacher of the policy's own vocabulary is stopped by all of them.
    with opened({"path": str(chat_model), "chat": {"stop_ids": [18]}}, task, grow=grow) as session:
        assert stops(session) == [(("7",), (3, 18, 5)), (("7",), (7, 18, 5)), (("7",), ())]


def test_evaluation_takes_the_numbers_of_a_teacher_and_not_its_token_ids(opened: Callable[..., Session]) -> None:
    with opened(characters(), grow={"far": {"model": "x", "top_k": 5, "stop_ids": [7], "sampler": SERVER}}) as session:
        found = sampling_of(session.config)
        assert (found.top_k, found.stop_ids) == (5, ())
