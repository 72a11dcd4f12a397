"""Value learners end to end: fitted to labelled steps by `selftrain train`, and beside the policy in a run."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from selftrain.cli import main
from selftrain.models.head_form import HeadForm, has_value_head, read_form
from selftrain.models.heads import load_value_model
from selftrain.monitors.scores import auc
from selftrain.records import columns, parts
from selftrain.stages.given import read_examples
from selftrain.tasks.arithmetic import Arithmetic, apply, first_wrong_step
from selftrain.training.data import micro_batches
from selftrain.types import Example

TINY = Path(__file__).with_name("tiny.yaml")
Row = dict[str, Any]


def solution(question: str, seed: str) -> Row:
    """A worked chain whose results are wrong now and then, with what the task's own check says of its steps."""
    rng = random.Random(seed)
    first, *rest = re.findall(r"\d+", question)
    value, steps = int(first), []
    for number in map(int, rest):
        result = apply(value, "+", number, 100)
        result = (result + rng.randint(1, 99)) % 100 if rng.random() < 0.35 else result
        steps.append(f"{value}+{number}={result}")
        value = result
    wrong = first_wrong_step(question, " ".join(steps))
    known = len(steps) if wrong is None else wrong
    labels = [1.0 if place < known else 0.0 if place == known else None for place in range(len(steps))]
    return {"prompt": question, "steps": steps, "labels": labels}


def write(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ARCHITECTURE = {
    **{"model_type": "qwen3", "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64},
    **{"tie_word_embeddings": True, "initializer_range": 0.1},
}


def config(folder: Path, rows: Path, **learner: Any) -> Path:
    tree = {
        "run": {"name": "fit", "folder": str(folder / "runs")},
        "model": {"architecture": ARCHITECTURE, "alphabet": "0123456789+-*= #"},
        "data": {"path": str(rows)},
        "learner": {
            "objective": "bce",
            "model": {"head": "scalar", "separator": " "},
            "optim": {"lr": 1e-2, "steps": 150, "batch_size": 32},
            **learner,
        },
        "track": {"live": "plain"},
    }
    path = folder / "fit.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def scored(checkpoint: Path, examples: Sequence[Example]) -> tuple[list[float], list[float]]:
    """The value and the target of every labelled step."""
    model = load_value_model(checkpoint, dtype="float32", device="cpu").eval()
    found: tuple[list[float], list[float]] = ([], [])
    for batch in micro_batches(examples, batching="bucketed", max_tokens=4096, pad=0):
        assert batch.terms.targets is not None
        with torch.no_grad():
            raw = model.raw(batch.input_ids, batch.position_ids, batch.value_positions)
        found[0].extend(model.normalised(raw).tolist())
        found[1].extend(batch.terms.targets.tolist())
    return found


def test_a_value_learner_tells_right_from_wrong_steps_of_other_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tokenizer: Any
) -> None:
    task = Arithmetic(sizes={"train": 1500, "test": 200}, lengths=(1, 3), operations="+")
    rows = {split: [solution(one.question, one.id) for one in task.problems(split)] for split in ("train", "test")}
    path = config(tmp_path, write(tmp_path / "train.jsonl", rows["train"]))
    held = write(tmp_path / "test.jsonl", rows["test"])
    more = [f"data.validation={held}", "learner.optim.validation.every=150"]
    assert main(["train", str(path), *more, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "learner: bce on a linear head (sigmoid, read at the end of each step), 150 steps" in shown
    assert re.search(r"\| ⟦\d\+\S*=⟧\d\+\d=\d+ ?(<\S+>)?⟨[01]⟩", shown)
    assert main(["train", str(path), *more]) == 0
    assert "next: selftrain prm" in capsys.readouterr().out
    checkpoint = tmp_path / "runs" / "fit" / "checkpoint"
    assert read_form(checkpoint) == HeadForm(separator=" ")
    examples = [encoded(tokenizer, row) for row in rows["test"]]
    told, targets = scored(checkpoint, examples)
    sides = {side: [value for value, target in zip(told, targets, strict=True) if target == side] for side in (0, 1)}
    assert len(sides[0]) > 50 and len(sides[1]) > 150
    assert auc(sides[1], sides[0]) > 0.8
    # What was saved is what was trained: the loss it was stopped at comes out again.
    last = json.loads((checkpoint.parent / "log.jsonl").read_text().splitlines()[-1])
    losses = [-math.log(value if target else 1 - value) for value, target in zip(told, targets, strict=True)]
    assert sum(losses) / len(losses) == pytest.approx(last["validation"], rel=1e-4)
    # Targets are counted: of 32 responses of 1 to 3 steps.
    assert 32 <= last["loss_tokens"] <= 96


def encoded(tokenizer: Any, row: Row) -> Example:
    """Its characters are its tokens."""
    text, targets = "", []
    for place, (step, label) in enumerate(zip(row["steps"], row["labels"], strict=True)):
        last = place == len(row["steps"]) - 1
        own = step if last else f"{step} "
        targets += [math.nan] * (len(own) - (not last)) + [math.nan if label is None else label]
        text += own
    ids = (*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id)
    prompt = tuple(tokenizer.encode(row["prompt"], add_special_tokens=False))
    return Example(row["prompt"], row["prompt"], "test", prompt, ids, targets=tuple(targets))


@pytest.mark.parametrize(
    ("row", "changes", "told"),
    [
        ({"prompt": "1+1=", "steps": ["1+1=2"], "labels": [-1]}, {}, "the label is -1; it must be true, false, or a"),
        (
            {"prompt": "1+1=", "steps": ["1+1=2"], "labels": []},
            {},
            "'labels' must be a list with one for each of the 1",
        ),
        ({"prompt": "1+1=", "steps": ["1+1=2", " "], "labels": [1, 0]}, {}, "'steps' must be a list of texts"),
        ({"prompt": "1+1=", "response": "#2", "label": 1}, {}, "needs 'steps' and 'labels' for a head that is read at"),
        ({"prompt": "1+1=", "response": "#2", "label": 1}, {"model": {}}, "learner.model.head: bce fits a value head"),
        ({"prompt": "1+1=", "response": "#2"}, {"objective": "nll"}, "learner.model: nll fits a language model, which"),
        (
            {"prompt": "1+1=", "response": "#2"},
            {"objective": "step_preference"},
            "learns from pairs of steps, as a run",
        ),
        ({"prompt": "1+1=", "response": "#2"}, {"lora": {"r": 2}}, "learner.lora: is not available with a value head"),
        ({"prompt": "1+1=", "response": "#2"}, {"model": {"head": "mlp", "path": "x"}}, "a fit begins with model.path"),
        (
            {"prompt": "1+1=", "response": "#2"},
            {"model": {"head": "mlp", "normaliser": "tanh"}},
            "learner.model.normaliser: bce reads values by sigmoid, and the head's is tanh",
        ),
    ],
)
def test_what_a_fit_of_values_cannot_read_is_told_in_a_line(
    row: Row, changes: dict[str, Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(config(tmp_path, write(tmp_path / "rows.jsonl", [row]), **changes)), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "row",
    [
        {"problem": "1+1+2=", "steps": ["1+1=3", "3+2=5"], "label": 0},
        {"question": {"problem": "1+1+2="}, "label": {"steps": [{"completions": [{"text": "1+1=3", "rating": -1}]}]}},
    ],
    ids=["ProcessBench", "PRM800K"],
)
def test_files_of_others_are_read_as_they_are(row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(config(tmp_path, write(tmp_path / "rows.jsonl", [row]))), "--dry-run"]) == 0
    assert "⟦1+1+2=⟧1+1=3" in (said := capsys.readouterr().out) and "⟨0⟩" in said


VALUE = """
reward:
  sources:
    value: {kind: value_head, model: "learner:value", separator: " "}
  total: {verdict: 1.0}
warmup: {value: {optim: {lr: 1.0e-2, steps: 10, batch_size: 16}}}
learners:
  value:
    init: previous
    objective: mse
    model: {head: scalar, separator: " "}
    examples: {steps: {from: draft, kind: step_labels, truncated: in, labels: {from: value}}}
    optim: {lr: 1.0e-3, steps: 2, batch_size: 8}
  judge:
    objective: bce
    model: {head: mlp, read: last}
    examples: {whole: {from: draft, kind: outcome, truncated: in}}
    optim: {lr: 1.0e-3, steps: 2, batch_size: 8}
evaluate: {splits: [val]}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("values")
    (folder / "run.yaml").write_text(f"include: {TINY}\n{VALUE}")
    for _ in range(2):  # The second time all is done.
        assert main(["run", str(folder / "run.yaml"), f"run.folder={folder}", "track.live=none"]) == 0
    return folder / "tiny"


def test_learners_of_values_begin_with_a_warm_up_or_a_fresh_head(run: Path) -> None:
    assert {path.name for path in (run / "warmup").glob("*/*.done")} == {
        *("warmup-policy.done", "warmup-value.done", "head-judge.done")
    }
    policy = load_value_model(run / "warmup" / "policy" / "checkpoint", HeadForm(), dtype="float32", device="cpu")
    judge = load_value_model(run / "warmup" / "judge" / "checkpoint", dtype="float32", device="cpu")
    assert judge.form == HeadForm("mlp", read="last")
    for name, tensor in judge.backbone.state_dict().items():
        assert tensor.equal(policy.backbone.state_dict()[name]), name
    ids = torch.tensor([[5, 6, 7]])
    assert judge.normalised(judge.raw(ids, None, torch.arange(3))).tolist() == [0.5, 0.5, 0.5]
    log = [json.loads(line) for line in (run / "warmup" / "value" / "log.jsonl").read_text().splitlines()]
    assert len(log) == 10 and log[-1]["loss"] < log[0]["loss"]
    for number in (1, 2):
        for name in ("value", "judge"):
            assert has_value_head(run / f"iteration_{number:04d}" / name / "checkpoint")


def test_targets_are_step_rewards_and_verdicts(run: Path) -> None:
    scores = {
        sample: {end - 1: reward for end, reward in zip(ends, rewards, strict=True)}
        for part in parts(run / "iteration_0001" / "scores")
        for sample, source, ends, rewards in zip(
            *columns(part, "sample_id", "source", "step_ends", "step_rewards"), strict=True
        )
        if source == "value"
    }
    examples = read_examples(run / "iteration_0001" / "examples" / "value", "")
    assert len(examples) == 96
    for one in examples:
        told = {place: target for place, target in enumerate(one.targets or ()) if not math.isnan(target)}
        assert told == scores[str(one.sample_id)]
    whole = read_examples(run / "iteration_0001" / "examples" / "judge", "")
    assert {one.targets[-1] for one in whole if one.targets} == {0.0, 1.0}
    assert all(math.isnan(target) for one in whole for target in (one.targets or ())[:-1])
    assert all(one.targets[-1] == one.label for one in whole if one.targets)
