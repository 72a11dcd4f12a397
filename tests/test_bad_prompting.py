"""What is wrong with prompts, their settings or who answers them: one line, before anything is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from one_line import check_refused
from qwen_like import CHATML, write, write_rows

from selftrain.cli import main

ENGINE = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Engine:
    max_model_len: int | None = None
"""
NO_SETTINGS: dict[str, object] = {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, templates and a config that is right."""
    made = tmp_path_factory.mktemp("prompting")
    write(made / "model")
    write(made / "plain", template=None, generation=NO_SETTINGS)
    write(made / "strict", template="{{ raise_exception('no\\nsystem') }}")
    write(made / "short")
    config = made / "short" / "config.json"
    config.write_text(config.read_text().replace('"max_position_embeddings": 192', '"max_position_embeddings": 20'))
    (made / "engine.py").write_text(ENGINE)
    (made / "nothing").mkdir()
    write_rows(made / "train.jsonl", 6)
    write_rows(made / "test.jsonl", 2, first=20)
    (made / "fails.jinja").write_text(CHATML.replace("message.content", "message.content.text.more"))
    (made / "syntax.jinja").write_text("{% for m in messages %}")
    (made / "bytes.jinja").write_bytes(b"\xff\xfe")
    (made / "thinks.jinja").write_text("<|im_start|>{{ messages[0].content }}")
    (made / "run.yaml").write_text(f"""
model: {{path: {made}/model}}
tasks:
  sums: {{kind: jsonl, verifier: numeric_answer, files: {{train: {made}/train.jsonl, test: {made}/test.jsonl}}}}
grow: {{draft: {{n: 4}}}}
learners: {{policy: {{examples: {{own: {{from: draft, verdict: right, cap: 2}}}}}}}}
loop: {{iterations: 1}}
""")
    return made


PLAIN = ("model.path={}/plain",)
BAD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "template that fails": (
        ("model.chat={}/fails.jinja",),
        ("fails.jinja (model.chat.template) fails on problem sums/", "has no attribute 'text'"),
    ),
    "template with bad syntax": (("model.chat={}/syntax.jinja",), ("syntax.jinja (model.chat.template) fails on",)),
    "template that refuses": (
        ("model.path={}/strict",),
        ("the chat template of the tokenizer fails", "no system", "model.chat=none"),
    ),
    "template of a train_prompt alone": (
        ("model.chat={}/fails.jinja", "tasks.sums.train_prompt.system=Add."),
        ("fails.jinja (model.chat.template) fails",),
    ),
    "template file that is missing": (
        ("model.chat.template={}/none.jinja",),
        ("model.chat.template: '", "none.jinja' is no file (No such file or directory); give auto, none, or a file"),
    ),
    "template that is no text": (("model.chat={}/bytes.jinja",), ("model.chat.template: '", "is no UTF-8 text")),
    "arguments that clash": (("model.chat.arguments.tokenize=true",), ("fails on problem", "'tokenize'")),
    "more examples than there are": (
        ("tasks.sums.prompt.few_shot.n=6",),
        ("tasks.sums.prompt.few_shot: 6 examples need more than 6 problems of 'train' with a demonstration",),
    ),
    "more to teach under than there are": (
        ("tasks.sums.train_prompt.few_shot.n=9",),
        ("tasks.sums.train_prompt.few_shot: 9 examples need more than 9", "there are 6"),
    ),
    "examples of an evaluated split": (
        ("tasks.sums.prompt.few_shot={n: 1, from: test}",),
        ("tasks.sums.prompt.few_shot.from: 'test' is evaluated",),
    ),
    "examples of a split that is evaluated here": (
        ("tasks.sums.train_prompt.few_shot={n: 1, from: extra}", "evaluate.splits=[test,extra]"),
        ("tasks.sums.train_prompt.few_shot.from: 'extra' is evaluated",),
    ),
    "examples of no split": (
        ("tasks.sums.prompt.few_shot={n: 1, from: trian}",),
        ("tasks.sums.prompt.few_shot: 1 examples need more than 1 problems of 'trian'", "there are 0"),
    ),
    "prompt to teach under that is too long": (
        (
            "tasks.sums.train_prompt.few_shot={n: 5, separator: x}",
            "tasks.sums.train_prompt.instruction=" + "Think. " * 9,
        ),
        ("tasks.sums: the prompt of sums/", "tokens, the model's context is 192"),
    ),
    "unknown key of chat": (("model.chat.sytem=x",), ("model.chat.sytem: unknown key (did you mean 'system'?)",)),
    "unknown key of reasoning": (("model.chat.reasoning.end=x",), ("model.chat.reasoning.end: unknown key",)),
    "chat that is a list": (("model.chat=[none]",), ("model.chat: expected a mapping",)),
    "unknown key of few_shot": (("tasks.sums.prompt.few_shot.k=2",), ("few_shot.k: unknown key", "from")),
    "system message in plain text": (
        (*PLAIN, "tasks.sums.prompt.system=Add."),
        ("tasks.sums.prompt.system: has no effect", "plain text"),
    ),
    "general system message in plain text": (
        ("model.chat={template: none, system: Add.}",),
        ("model.chat.system: has",),
    ),
    "arguments in plain text": (
        ("model.chat={template: none, arguments: {enable_thinking: false}}",),
        ("model.chat.arguments.enable_thinking: has no effect",),
    ),
    "empty stop string": (("model.chat.stop=['']",), ("model.chat.stop: '' is in every text",)),
    "stop string that is no text": (
        ("grow.draft.stop=['<|endoftext|>']",),
        ("grow.draft.stop: no text of a response holds '<|endoftext|>'", "; its id is 306 (stop_ids)"),
    ),
    "reasoning that is no text": (
        ("model.chat.reasoning.close='<|im_start|>'",),
        ("model.chat.reasoning.close: no text of a response holds '<|im_start|>'",),
    ),
    "values of a model without any": (
        (*PLAIN, "grow.draft.values=model"),
        ("grow.draft.values: the generation config of ", "plain names no temperature, top_k or top_p"),
    ),
    "values of random weights": (
        ("model={path: null, architecture: {model_type: qwen2}, alphabet: abc}", "grow.draft.values=model"),
        ("grow.draft.values: a model of random weights has no generation config",),
    ),
    "values of a server": (
        ("grow.draft={model: x, values: model, sampler: {kind: openai, url: 'http://127.0.0.1:9/v1'}}",),
        ("grow.draft.values: a server does not show the generation config",),
    ),
    "values for evaluation of a model without any": (
        (*PLAIN, "evaluate.sampling.values=model"),
        ("evaluate.sampling.values: the generation config of ", "names no temperature"),
    ),
    "a share of nothing": (
        (
            "grow.draft.prompts=8",
            "tasks.tested={kind: jsonl, verifier: numeric_answer, files: {test: '{}/test.jsonl'}}",
        ),
        ("tasks.tested: has no train problems for its share of grow.draft.prompts; set its weight to 0",),
    ),
    "weight without prompts": (
        ("tasks.sums.weight=0.5",),
        ("tasks.sums.weight: divides grow.draft.prompts, which is not set",),
    ),
    "enough above n": (("grow.draft.enough=5",), ("grow.draft.enough: 5 right samples cannot be had of n=4",)),
    "enough above the n of a task": (
        ("grow.draft.enough=3", "tasks.sums.sampling.n=2"),
        ("grow.draft.enough: 3 right samples cannot be had of n=2",),
    ),
    "dedupe by answer beside enough": (
        ("grow.draft.enough=3", "learners.policy.examples.own={cap: 2, dedupe: answer}"),
        ("learners.policy.examples.own.dedupe: answer keeps one", "grow.draft.enough=3", "set dedupe to text"),
    ),
    "cap above enough": (
        ("grow.draft.enough=1",),
        ("learners.policy.examples.own.cap: 2 is above grow.draft.enough=1",),
    ),
    "teacher that is nowhere": (
        ("grow.draft.model=no/such",),
        ("grow.draft.model: 'no/such' cannot be read as a teacher",),
    ),
    "teacher that is no model": (
        ("grow.draft.model={}/nothing",),
        ("grow.draft.model: '", "nothing' cannot be read as a teacher"),
    ),
    "prompt that is too long for a teacher": (
        ("grow.draft.model={}/short",),
        ("grow.draft.model: tasks.sums: the prompt of sums/train/", "tokens, the model's context is 20"),
    ),
    "prompt that an engine has no room for": (
        ("grow.draft.sampler={kind: '{}/engine.py:Engine', max_model_len: 20}",),
        (
            "grow.draft.sampler.max_model_len: the prompt of sums/",
            "tokens, and 20 leave no room for a response; raise it",
        ),
    ),
    "prompt that the engine of a teacher has no room for": (
        (
            "grow.draft.sampler={kind: '{}/engine.py:Engine', max_model_len: 20}",
            "grow.draft.model={}/plain",
            "tasks.sums.prompt.instruction=" + "Think. " * 9,
            "evaluate.sampler=transformers",
        ),
        ("grow.draft.sampler.max_model_len: the prompt of sums/train/", "raise it, shorten the prompt, or drop"),
    ),
    "prompt that the engine of the evaluation has no room for": (
        ("evaluate.sampler={kind: '{}/engine.py:Engine', max_model_len: 20}",),
        ("evaluate.sampler.max_model_len: the prompt of sums/test/", "raise it, shorten the prompt, or drop"),
    ),
    "prompt that a protocol's question has no room for": (
        (
            "evaluate.sampler={kind: '{}/engine.py:Engine', max_model_len: 180}",
            "evaluate.protocol.sums=lm_eval_gsm8k_cot",
        ),
        ("evaluate.protocol.sums: the prompt of sums/test/", "the model's context is 180"),
    ),
    "teacher whose template refuses": (
        ("grow.draft.model={}/strict",),
        ("grow.draft.model: ", "the chat template of the tokenizer fails on problem sums/"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_prompting_is_one_line_and_writes_nothing(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    arguments, told = BAD[name]
    given = [argument.replace("{}", str(folder)) for argument in arguments]
    runs = tmp_path / "runs"
    check_refused(["run", str(folder / "run.yaml"), f"run.folder={runs}", *given], told, capsys, unwritten=runs)


def test_the_config_the_others_are_made_of_is_right(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(folder / "run.yaml"), f"run.folder={tmp_path / 'runs'}", "--dry-run"]) == 0
    said = capsys.readouterr()
    assert "<|im_start|>assistant" in said.out and said.err == ""
    assert not (tmp_path / "runs").exists()
