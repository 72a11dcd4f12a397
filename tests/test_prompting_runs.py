"""Prompts in whole runs: settings and where they come from, open reasoning, what is taught under which prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from qwen_like import CHATML, ENDOFTEXT, IM_END, tokenizer, write_rows

from selftrain import records
from selftrain.adoption.respell import Speller
from selftrain.artifacts import RunDir
from selftrain.checks.check import check, plan
from selftrain.checks.preview import preview
from selftrain.cli import main
from selftrain.config import check_tree, to_yaml
from selftrain.rollouts.base import Rollout
from selftrain.schema import Reasoning, RunConfig
from selftrain.session import Session
from selftrain.types import Example, Sample

Made = Callable[..., RunConfig]


@pytest.fixture
def config(tmp_path: Path, chat_model: Path) -> Made:
    """A config on sums, with sections and keys of its own."""
    write_rows(tmp_path / "train.jsonl", 12)
    write_rows(tmp_path / "val.jsonl", 3, first=40)

    def make(chat: Any = "auto", task: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
        files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "val")}
        sums = {"kind": "jsonl", "files": files, "verifier": "numeric_answer", **(task or {})}
        tree = {
            "run": {"folder": str(tmp_path / "runs")},
            "model": {"path": str(chat_model), "chat": chat},
            "tasks": {"sums": sums},
            "grow": {"draft": {"n": 2, "max_tokens": 6}},
            "learners": {"policy": {"examples": {"own": {"from": "draft", "verdict": "right"}}}},
            "evaluate": {"n": 0},
            "loop": {"iterations": 1},
            "launch": {"verify_workers": 1},
        }
        return check_tree({**tree, **sections})

    return make


@pytest.fixture
def opened(config: Made, tmp_path: Path) -> Callable[..., Session]:
    return lambda *args, **sections: Session(config(*args, **sections), RunDir(tmp_path / "runs" / "run"))


def test_settings_are_of_the_step_then_of_the_task_and_what_stops_adds_up(opened: Callable[..., Session]) -> None:
    own = {"temperature": 0.5, "max_tokens": 3, "stop": ["T:", "Q:"], "stop_ids": [7]}
    with opened({"stop": ["M:"], "stop_ids": [9]}, {"sampling": {**own, "n": 5}}) as session:
        step = replace(session.config.grow["draft"].sampling(), stop=("Q:",), stop_ids=(7, 8), top_k=4)
        found = session.settings(step, "sums")
        assert (found.temperature, found.top_k, found.max_tokens) == (0.5, 4, 3)
        assert (found.stop, found.stop_ids) == (("Q:", "M:", "T:"), (7, 8, 9))
        assert session.samples_per_problem(2, "sums") == 5


def told(session: Session) -> str:
    check(session)
    return "\n".join([*plan(session), *preview(session)])


def test_settings_of_the_model_are_taken_where_asked_and_named_where_not(
    opened: Callable[..., Session], chat_model: Path
) -> None:
    with opened(grow={"draft": {"values": "model", "max_tokens": 6}}, task={"sampling": {"top_p": 0.5}}) as session:
        found = session.settings(session.config.grow["draft"].sampling(), "sums")
        assert (found.temperature, found.top_k, found.top_p, found.max_tokens) == (0.7, 20, 0.5, 6)
        said = told(session)
        assert f"grow.draft: temperature 0.7, top_k 20, top_p 0.8, from the generation_config of {chat_model}" in said
        assert "repetition_penalty 1.05 of it cannot be set here" in said
        assert "top-p 0.5, as its generation_config says, at most 6 tokens (top_p by tasks.sums.sampling)" in said
    with opened(grow={"draft": {"temperature": 0.7, "max_tokens": 6}}) as session:
        assert "draft: top_k 0, top_p 1 by this config, where the generation_config of" in (said := told(session))
        assert "recommends top_k 20, top_p 0.8; grow.draft.values=model takes the model's" in said
        assert "temperature 0.7, top-k 0, top-p 1, at most 6 tokens, ended by '<|im_end|>'" in said
    same = {"temperature": 0.7, "top_k": 20, "top_p": 0.8}
    with opened(grow={"draft": same}, evaluate={"n": 1, "sampling": {"temperature": 0.5}}) as session:
        lines = [line for line in plan(session) if "recommends" in line]
        assert len(lines) == 1 and lines[0].startswith("evaluate.sampling: temperature 0.5, top_k 0, top_p 1 by this")


WRITER = """
from dataclasses import dataclass
from selftrain.sampling.base import Completion


@dataclass(frozen=True)
class Thinker:
    '''Says the same to every prompt; sample 0 ends its reasoning, sample 1 does not, and both are right at the end.'''

    def open(self, checkpoint):
        from selftrain.models.checkpoint import load_tokenizer

        object.__setattr__(self, "tokenizer", load_tokenizer(checkpoint))
        return self

    def reload(self, checkpoint):
        pass

    def sample(self, work, answers):
        for place, request in enumerate(work):
            for index in range(len(request.seeds)):
                text = "so #{}</think> #{}" if index == 0 else "so #{}"
                text = text.replace("{}", request.problem.answer)
                ids = (*self.tokenizer.encode(text), self.tokenizer.eos_token_id)
                yield [Completion(place, index, ids, text, "eos")]

    def close(self):
        pass
"""


def run(config: RunConfig, tmp_path: Path) -> Path:
    (tmp_path / "run.yaml").write_text(to_yaml(config))
    assert main(["run", str(tmp_path / "run.yaml"), "track.live=none"]) == 0
    return tmp_path / "runs" / "run"


def test_a_checkpoint_is_evaluated_with_the_settings_its_run_took_from_the_model(
    config: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learner = {"examples": {"own": {"from": "draft"}}, "optim": {"steps": 1}}
    grow = {"draft": {"n": 1, "values": "model", "max_tokens": 4, "stop": ["1", "="]}}
    root = run(config(grow=grow, evaluate={"n": 1}, learners={"policy": learner}), tmp_path)
    command = ["evaluate", str(root / "iteration_0001" / "policy" / "checkpoint"), "--task", "sums", "--split", "val"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    again = check_tree(OmegaConf.to_container(OmegaConf.load(tmp_path / "out" / "config.yaml")))  # type: ignore[arg-type]
    found = again.grow["draft"]
    assert (found.values, found.temperature, found.top_k, found.top_p) == ("config", 0.7, 20, 0.8)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("thinking", [True, False])
def test_reasoning_that_is_open_is_truncated_and_never_taught(thinking: bool, config: Made, tmp_path: Path) -> None:
    (tmp_path / "thinker.py").write_text(WRITER)
    sampler = f"{tmp_path}/thinker.py:Thinker"
    chat = {"reasoning": {}, "arguments": {"enable_thinking": thinking}}
    learner = {"examples": {"own": {"from": "draft", "verdict": "right"}}, "optim": {"steps": 1}}
    root = run(config(chat, grow={"draft": {"n": 2, "sampler": sampler}}, learners={"policy": learner}), tmp_path)
    part = records.parts(root / "iteration_0001" / "samples")[0]
    drawn = list(records.rows(part, Sample))
    expected = ["eos", "length" if thinking else "eos"]
    assert [s.finish_reason for s in drawn] == expected * 12
    verdicts = records.column(root / "iteration_0001" / "verdicts" / part.name, "status")
    assert verdicts == ["right", "unparsed" if thinking else "right"] * 12
    reasons = json.loads((root / "iteration_0001" / "selection-policy.json").read_text())["sampled"]
    assert reasons == ({"kept": 12, "truncated (length)": 12} if thinking else {"kept": 24})
    metrics = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    assert {row["pass@1"] for row in metrics} == {1.0}
    # Judging again, from the files alone, comes to the same.
    command = ["run", str(tmp_path / "run.yaml"), "track.live=none", "reward.verify.seconds=9"]
    assert main([*command, "--redo", "1/verify", "--redo", "0/evaluate"]) == 0
    assert records.column(root / "iteration_0001" / "verdicts" / part.name, "status") == verdicts


TAUGHT = {
    "prompt": {"few_shot": {"n": 1}, "instruction": "Think."},
    "train_prompt": {"template": "Solve {question}", "system": "Add."},
}


@pytest.mark.parametrize("asked", ["prompt", "train_prompt"])
def test_examples_are_taught_under_train_prompt_and_samples_keep_theirs(
    asked: str, config: Made, tmp_path: Path
) -> None:
    bpe = tokenizer()
    (tmp_path / "thinker.py").write_text(WRITER)
    grow = {"draft": {"n": 1, "sampler": f"{tmp_path}/thinker.py:Thinker"}}
    learner = {"examples": {"own": {"from": "draft"}, "gold": {"from": "gold"}}, "optim": {"steps": 1}}
    evaluate = {"n": 0, "prompt": asked}
    root = run(config("auto", TAUGHT, grow=grow, evaluate=evaluate, learners={"policy": learner}), tmp_path)
    folder = root / "iteration_0001"
    drawn = [s for part in records.parts(folder / "samples") for s in records.rows(part, Sample)]
    read = {bpe.decode(s.prompt_ids) for s in drawn}
    assert len(read) == 12 and all(text.count("\nThink.<|im_end|>") == 2 for text in read)
    taught = [e for part in records.parts(folder / "examples" / "policy") for e in records.rows(part, Example)]
    assert len(taught) == 24
    for example in taught:
        text = bpe.decode(example.prompt_ids)
        assert text.startswith("<|im_start|>system\nAdd.<|im_end|>\n<|im_start|>user\nSolve ") and "Think." not in text
        assert example.response_ids[-1] == bpe.eos_token_id
    evaluated = list(records.rows(folder / "evaluation" / "sums-val.parquet", Sample))
    solve = [bpe.decode(sample.prompt_ids).count("user\nSolve ") for sample in evaluated]
    assert solve == [1 if asked == "train_prompt" else 0] * 3
    said = [json.loads(line) for line in (root / "events.jsonl").read_text().splitlines()]
    notices = [event["text"] for event in said if event["event"] == "Notice"]
    assert len(notices) == 1 and notices[0].startswith("grow.draft: temperature 1, top_k 0, top_p 1 by this config")


def test_the_checkpoint_carries_the_template_it_was_trained_with(config: Made, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    (tmp_path / "thinker.py").write_text(WRITER)
    (tmp_path / "own.jinja").write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}:")
    grow = {"draft": {"n": 1, "sampler": f"{tmp_path}/thinker.py:Thinker"}}
    learner = {"examples": {"own": {"from": "draft"}}, "optim": {"steps": 1}}
    expected = {"auto": CHATML, "none": None, str(tmp_path / "own.jinja"): (tmp_path / "own.jinja").read_text()}
    for number, (chat, template) in enumerate(expected.items()):
        sections = {"run": {"name": f"{number}", "folder": str(tmp_path / "runs")}, "learners": {"policy": learner}}
        run(config(chat, grow=grow, **sections), tmp_path)
        saved = tmp_path / "runs" / f"{number}" / "iteration_0001" / "policy" / "checkpoint"
        served = AutoTokenizer.from_pretrained(saved)
        assert served.chat_template == template
        assert (served.eos_token, served.pad_token) == (IM_END, ENDOFTEXT)


def test_a_template_file_counts_by_its_contents(config: Made, tmp_path: Path) -> None:
    from selftrain.planning.fingerprints import model as fingerprint

    (tmp_path / "a.jinja").write_text("x")
    (tmp_path / "b.jinja").write_text("x")
    a, b = (fingerprint(config(str(tmp_path / name))) for name in ("a.jinja", "b.jinja"))
    assert a == b
    (tmp_path / "b.jinja").write_text("y")
    assert fingerprint(config(str(tmp_path / "b.jinja"))) != a


def test_adopted_reasoning_that_is_open_is_truncated(
    config: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["<think>so</think> #1", "#1", "<think>so #1", "<think>a</think> #2 <think> #1"]
    rows = [{"prompt": "0+1=", "completion": text} for text in texts]
    rows.append({"prompt": "0+2=<think>", "completion": "so #2"})  # Their prompt began it, ours does not.
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.yaml").write_text(to_yaml(config({"reasoning": {}})))
    assert main(["adopt", str(tmp_path / "run.yaml"), str(tmp_path / "rows.jsonl")]) == 0
    assert "3 truncated" in capsys.readouterr().out
    part = records.parts(tmp_path / "runs" / "run" / "iteration_0001" / "samples")[0]
    end = tokenizer().eos_token_id
    for sample in records.rows(part, Sample):
        done = sample.text in texts[:2]
        assert sample.finish_reason == ("eos" if done else "length"), sample
        assert (sample.response_ids[-1] == end) == done


def test_the_ids_of_an_engine_stay_as_they_are_where_reasoning_is_open() -> None:
    bpe = tokenizer()
    ids = (*bpe.encode("so #1"), bpe.eos_token_id)
    rollout = Rollout("so #1", response_ids=ids)
    for asked, reason in (("Q", "eos"), ("Q<think>\n", "length")):
        spelt = Speller(bpe, 64, Reasoning()).spell(asked, (1,), rollout)
        assert not isinstance(spelt, str)
        assert (spelt.ids, spelt.finish_reason, spelt.ids_from) == (ids, reason, "engine")
