"""Models stop by themselves after training, whatever their layout of end and pad tokens.

Checkpoints laid out as Qwen2.5's go through sampling, training, saving and serving: a chat model, whose end token is
``<|im_end|>`` and whose pad token also ends a text, and a base model, which has one token for both and never ends. The
chat model is sampled with vLLM too, and both are served by it.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import collect
from qwen_like import CHATML, ENDOFTEXT, IM_END, RECOMMENDED, write, write_rows

from selftrain import records
from selftrain.cli import main
from selftrain.objectives.nll import NLL
from selftrain.sampling.base import Completion, Request
from selftrain.sampling.vllm import VLLM
from selftrain.schema import Optim, Sampling
from selftrain.training.data import micro_batches
from selftrain.training.fit import Fit, fit
from selftrain.types import Example, Problem, Sample

RUN = """
run: {{folder: {folder}}}
model: {{path: {folder}/start, chat: {chat}}}
tasks:
  sums:
    kind: jsonl
    verifier: numeric_answer
    files: {{train: {folder}/train.jsonl, val: {folder}/val.jsonl}}
    prompt: {prompt}
warmup: {warmup}
grow: {{draft: {{n: 4, temperature: 0.5, max_tokens: 24, stop: {stop}, sampler: {sampler}}}}}
learners: {{policy: {{examples: {{own: {{from: draft}}}}, optim: {{lr: 3.0e-3, steps: 60, batch_size: 16}}}}}}
evaluate: {{n: 0}}
loop: {{iterations: 1}}
launch: {{verify_workers: 1}}
track: {{live: none}}
"""


def run(folder: Path, sampler: str = "transformers", **parts: str) -> Path:
    """The folder of its iteration."""
    write_rows(folder / "train.jsonl", 24)
    write_rows(folder / "val.jsonl", 2, first=40)
    (folder / "run.yaml").write_text(RUN.format(folder=folder, sampler=sampler, **parts))
    assert main(["run", str(folder / "run.yaml")]) == 0
    return folder / "run" / "iteration_0001"


def read(folder: Path, kind: type[Any]) -> list[Any]:
    return [row for part in records.parts(folder) for row in records.rows(part, kind)]


def targets(examples: list[Example], pad: int) -> Counter[int]:
    """Tokens that carry loss, by id, in padded batches."""
    uneven = [replace(example, prompt_ids=example.prompt_ids[i % 3 :]) for i, example in enumerate(examples)]
    batches = micro_batches(uneven, batching="bucketed", max_tokens=4096, pad=pad)
    assert sum(batch.input_ids.numel() for batch in batches) > sum(batch.tokens for batch in batches)
    return Counter(token for batch in batches for token in batch.positions.targets.tolist())


def served(checkpoint: Path, prompts: set[tuple[int, ...]]) -> list[list[int]]:
    """What the checkpoint answers where nothing is said about how to stop or what to pad with."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint)
    answers = []
    for prompt in sorted(prompts):
        ids = torch.tensor([prompt])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40)
        answers.append(out[0, len(prompt) :].tolist())
    return answers


def served_by_vllm(checkpoint: Path, prompts: set[tuple[int, ...]]) -> list[Completion]:
    problem, settings = Problem("t/train/1", "t", "train", "1+1="), Sampling(temperature=0, max_tokens=40)
    work = [Request(problem, prompt, (0,), settings) for prompt in sorted(prompts)]
    engine = VLLM(max_num_seqs=32).open(checkpoint)
    found = collect(engine, work)
    engine.close()
    return list(found.values())


@pytest.fixture(scope="module", params=["transformers", "vllm"])
def chat(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    write(folder / "start")
    optim = "{lr: 3.0e-3, steps: 100, batch_size: 12}"
    warmup = f"{{policy: {{from: train, optim: {optim}}}}}"
    return run(folder, request.param, chat="auto", prompt="{}", warmup=warmup, stop="[]")


def test_a_chat_model_ends_its_turns(chat: Path) -> None:
    from transformers import AutoTokenizer

    saved = chat / "policy" / "checkpoint"
    tokenizer: Any = AutoTokenizer.from_pretrained(saved)
    end, pad = tokenizer.convert_tokens_to_ids([IM_END, ENDOFTEXT])
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, end != pad) == (end, pad, True)
    assert tokenizer.chat_template == CHATML
    settings = json.loads((saved / "generation_config.json").read_text())
    assert (settings["eos_token_id"], settings["pad_token_id"]) == ([end, pad], pad)
    assert not settings.keys() & RECOMMENDED.keys()
    drawn = read(chat / "samples", Sample)
    finished = [sample for sample in drawn if sample.finish_reason == "eos"]
    assert len(finished) > 0.9 * len(drawn) == 0.9 * 96
    assert {sample.response_ids[-1] for sample in finished} == {end}
    assert all("<|" not in sample.text for sample in finished)
    answers = served(saved, {sample.prompt_ids for sample in drawn})
    assert len(answers) == 24
    assert sum(answer[-1] == end for answer in answers) >= 0.9 * 24
    if drawn[0].sampler == "vllm":
        ended = [c for c in served_by_vllm(saved, {sample.prompt_ids for sample in drawn}) if c.finish_reason == "eos"]
        assert len(ended) >= 0.9 * 24 and {completion.ids[-1] for completion in ended} == {end}


def test_the_end_of_a_turn_carries_loss_and_pad_does_not(chat: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(chat / "policy" / "checkpoint")
    examples = read(chat / "examples" / "policy", Example)
    assert not any(example.eos_added for example in examples)
    found = targets(examples, tokenizer.pad_token_id)
    assert found[tokenizer.eos_token_id] == len(examples)
    assert found[tokenizer.pad_token_id] == 0
    assert found.total() == sum(len(example.response_ids) for example in examples)


def endless(tokenizer: Any, count: int) -> list[Example]:
    """Text without an end, as a base model was trained on: question after question with its answer."""
    pairs = [f"Question: {i // 8}+{i % 8}=\nAnswer: #{i // 8 + i % 8}\n\n" for i in range(24)]
    texts = ["".join(pairs[(start * 7 + 5 * step) % 24] for step in range(6)) for start in range(count)]
    ids = [tuple(tokenizer.encode(text)) for text in texts]
    return [Example(f"{i}", f"p{i}", "text", one[:1], one[1:]) for i, one in enumerate(ids)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = write(folder / "random", base=True)
    optim = Optim(lr=3e-3, steps=120, batch_size=16)
    log = folder / "log.jsonl"
    examples = endless(tokenizer, 24)
    for _ in fit(examples, Fit(folder / "random", folder / "start", log, NLL(), optim, seed=0)):
        pass
    prompt = '{template: "Question: {question}\\nAnswer:", answer: " {demonstration}", few_shot: {n: 2}}'
    return run(folder, chat="none", prompt=prompt, warmup="null", stop='["\\n\\nQuestion"]')


def test_a_base_model_is_cut_at_a_stop_string_and_learns_to_end(base: Path) -> None:
    from transformers import AutoTokenizer

    saved = base / "policy" / "checkpoint"
    tokenizer: Any = AutoTokenizer.from_pretrained(saved)
    end = tokenizer.eos_token_id
    assert tokenizer.eos_token == tokenizer.pad_token == ENDOFTEXT
    assert tokenizer.chat_template is None
    drawn = read(base / "samples", Sample)
    cut = [sample for sample in drawn if sample.finish_reason == "stop"]
    assert len(drawn) == 96 and len(cut) > 0.9 * 96
    assert all(end not in sample.response_ids and "Question" not in sample.text for sample in cut)
    assert all(tokenizer.decode(sample.prompt_ids).count("Question: ") == 3 for sample in cut)
    prompts = {sample.prompt_ids for sample in drawn}
    before = served(base.parents[1] / "start", prompts)
    assert sum(answer[-1] == end for answer in before) == 0
    assert sum(answer[-1] == end for answer in served(saved, prompts)) >= 0.9 * 24
    answers = served_by_vllm(saved, prompts)
    assert sum(answer.finish_reason == "eos" and answer.ids[-1] == end for answer in answers) >= 0.9 * 24


def test_the_appended_end_carries_loss_and_pad_of_the_same_id_does_not(base: Path) -> None:
    from transformers import AutoTokenizer

    end = AutoTokenizer.from_pretrained(base / "policy" / "checkpoint").eos_token_id
    cut = {sample.id: sample for sample in read(base / "samples", Sample) if sample.finish_reason == "stop"}
    examples = read(base / "examples" / "policy", Example)
    assert {example.sample_id for example in examples} == set(cut)
    for example in examples:
        assert example.eos_added and example.sample_id is not None
        assert example.response_ids == (*cut[example.sample_id].response_ids, end)
    assert targets(examples, end)[end] == len(examples)
