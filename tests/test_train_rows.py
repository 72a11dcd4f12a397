"""The rows `selftrain train` takes: which fields, how they are read, and what is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from one_line import check_refused
from qwen_like import IM_END

from selftrain import records
from selftrain.checks.fit import check_fit
from selftrain.session import Session
from selftrain.stages.given import Given
from selftrain.stages.train import FitDir
from selftrain.train_config import as_run, check_train, fitted_as
from selftrain.types import Example

Rows = Sequence[dict[str, Any]]
USER, SYSTEM = {"role": "user", "content": "Hi"}, {"role": "system", "content": "Be short."}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def tree(folder: Path, model: Path, rows: Rows, objective: Any, **data: Any) -> dict[str, Any]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "run": {"folder": str(folder / "runs")},
        "model": {"path": str(model)},
        "data": {"path": str(path), **data},
        "learner": {"objective": objective, "optim": {"steps": 1}},
    }


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """As the command has it in a process of its own, where it speaks before the library is loaded."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(before)


@pytest.fixture
def given(chat_model: Path, tmp_path: Path) -> Callable[..., list[tuple[str, str]]]:
    """What carries no loss, and what does, of every example."""

    def read(rows: Rows, objective: str, **data: Any) -> list[tuple[str, str]]:
        config = check_train(tree(tmp_path, chat_model, rows, objective, **data))
        with Session(as_run(config), FitDir(tmp_path / "runs" / "train")) as session:
            found: Given = check_fit(session, config)
            decode = session.tokenizer.decode
            return [(decode(one.prompt_ids), decode(one.response_ids)) for one in found.training]

    return read


ASKED = "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
PAIR = [(ASKED, f"yes{IM_END}"), (ASKED, f"no{IM_END}")]
HERE = [SYSTEM, USER]
SAME = {
    "a prompt of turns, sides of text": {"prompt": HERE, "chosen": "yes", "rejected": "no"},
    "a prompt of turns, sides of a turn": {"prompt": HERE, "chosen": [said("yes")], "rejected": [said("no")]},
    "sides that hold the prompt": {"chosen": [*HERE, said("yes")], "rejected": [*HERE, said("no")]},
    "sides that hold the prompt, and it": {
        "prompt": HERE,
        "chosen": [*HERE, said("yes")],
        "rejected": [*HERE, said("no")],
    },
    "as UltraFeedback has it": {
        "prompt": "Hi",
        "messages": [*HERE, said("yes")],
        "chosen": [*HERE, said("yes")],
        "rejected": [*HERE, said("no")],
        "score_chosen": 8.0,
    },
    "the chosen side is the conversation": {"messages": [*HERE, said("yes")], "rejected": "no"},
    "the conversation so far": {"messages": HERE, "chosen": "yes", "rejected": "no"},
}


@pytest.mark.parametrize("name", SAME)
def test_a_pair_may_be_written_in_several_ways(name: str, given: Callable[..., Any]) -> None:
    assert given([SAME[name]], "dpo") == PAIR


def test_responses_and_other_names_of_fields(given: Callable[..., Any]) -> None:
    ask = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    ask += "<|im_start|>assistant\n"
    assert given([{"prompt": "Hi", "response": "yes"}], "nll") == [(ask, f"yes{IM_END}")]
    assert given([{"prompt": HERE, "completion": [said("yes")], "label": 1}], "kto") == PAIR[:1]
    fields = {"prompt": "q", "chosen": "win", "rejected": "lose"}
    assert given([{"q": HERE, "win": "yes", "lose": "no"}], "dpo", fields=fields) == PAIR
    row = {"prompt": HERE, "chosen": [*HERE, said("yes")], "rejected": "no"}
    assert given([row], "nll", fields={"response": "chosen"}) == PAIR[:1]


def test_rows_with_one_prompt_are_of_one_problem(chat_model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n // 2}", "response": f"{n}"} for n in range(4)]
    config = check_train(tree(tmp_path, chat_model, rows, "nll"))
    with Session(as_run(config), FitDir(tmp_path / "runs" / "train")) as session:
        problems = [one.problem_id for one in check_fit(session, config).training]
    assert problems[0] == problems[1] != problems[2] == problems[3]


def test_a_fit_to_the_examples_of_a_run_has_the_seed_of_its_learner() -> None:
    def config(path: str) -> Any:
        return check_train({"data": {"path": path}})

    assert fitted_as(config("runs/x/iteration_0003/examples/prm/")) == (3, "prm")
    assert fitted_as(config("data/rows.jsonl")) == (1, "policy")


GOOD = {"prompt": "1+1=", "response": "#2"}
BOTH = {"prompt": "1+1=", "chosen": "#2", "rejected": "#3"}
BAD: dict[str, tuple[Rows, Any, tuple[str, ...], tuple[str, ...]]] = {
    # Keys.
    "unknown key": ([GOOD], "nll", ("learner.optim.lrr=1",), ("learner.optim.lrr: unknown key", "mean 'lr'?")),
    "unknown section": ([GOOD], "nll", ("learners.policy.init=base",), ("learners: unknown key", "'learner'")),
    "unknown objective": ([GOOD], "nll", ("learner.objective=nnl",), ("learner.objective", "mean 'nll'?")),
    "unknown option": ([BOTH], "dpo", ("learner.objective.beat=1",), ("learner.objective.beat", "mean 'beta'?")),
    "out of range": ([GOOD], "nll", ("learner.optim.lr=0",), ("learner.optim.lr: must be more than 0",)),
    "unknown role": ([GOOD], "nll", ("data.fields.respnse=x",), ("data.fields: unknown role", "mean 'response'?")),
    "no data": ([GOOD], "nll", ("data=null",), ("data.path: must be set",)),
    "advantages": ([GOOD], "ppo_clip", (), ("learner.objective: ppo_clip learns from advantages", "selftrain run")),
    "useless reference": ([GOOD], "nll", ("learner.reference=x",), ("learner.reference: nll reads none",)),
    "two validations": (
        [GOOD],
        "nll",
        ("data.validation={}/rows.jsonl", "learner.optim.validation.fraction=0.1"),
        ("learner.optim.validation.fraction", "one of the two"),
    ),
    # Files.
    "missing file": ([GOOD], "nll", ("data.path={}/row.jsonl",), ("data.path: no such file", "mean 'rows.jsonl'?")),
    "missing validation": ([GOOD], "nll", ("data.validation={}/row.jsonl",), ("data.validation: no such file",)),
    "kind of file": ([GOOD], "nll", ("data.path={}/fit.yaml",), ("data.path", "unknown kind of file")),
    "empty file": ([], "nll", (), ("data.path", "rows.jsonl holds no rows")),
    "folder": ([GOOD], "nll", ("data.path={}",), ("data.path: the folder", "holds no examples", "examples/policy")),
    # Rows.
    "no field": ([GOOD, {"prompt": "1+1="}], "nll", (), ("rows.jsonl:2: a row needs 'prompt'", "has prompt")),
    "no such field": ([GOOD], "nll", ("data.fields.response=ressponse",), ("'ressponse'", "set data.fields.response")),
    "no label": ([GOOD], "kto", (), ("rows.jsonl:1: kto learns from labelled", "no 'label'")),
    "label above": ([{**GOOD, "label": 1.5}], "kto", (), ("rows.jsonl:1: the label is 1.5", "from 0 to 1")),
    "label of text": ([{**GOOD, "label": "good"}], "implicit_ce", (), ("the label is 'good'",)),
    "label that is no number": ([{**GOOD, "label": float("nan")}], "kto", (), ("the label is nan",)),
    "pairs for nll": ([BOTH], "nll", (), ("nll learns from single responses", "data.fields.response=chosen")),
    "responses for dpo": ([GOOD], "dpo", (), ("dpo learns from pairs", "this one has prompt, response")),
    "no prompt": ([{"chosen": "#2", "rejected": "#3"}], "dpo", (), ("rows.jsonl:1: has no 'prompt'",)),
    "empty response": ([{**GOOD, "response": " "}], "nll", (), ("rows.jsonl:1: the response is empty",)),
    "empty rejected": ([{**BOTH, "rejected": ""}], "dpo", (), ("rows.jsonl:1: the rejected response is empty",)),
    "only ties": ([{**BOTH, "rejected": "#2"}], "dpo", (), ("data.path: both sides of every pair are the same",)),
    "all validated": ([GOOD], "nll", ("data.validation={}/rows.jsonl",), ("data.validation: has every prompt",)),
    "empty prompt": ([{**GOOD, "prompt": ""}], "nll", (), ("without a single token", "rows.jsonl:1")),
    "long prompt": (
        [GOOD, {**GOOD, "prompt": "1+" * 40}, {**GOOD, "prompt": "2+" * 40}],
        "nll",
        (),
        ("2 of 3 examples are longer than the model's context of 64", "rows.jsonl:2, 80 tokens of prompt and 3"),
    ),
    "unknown characters": ([{**GOOD, "response": "zwei"}], "nll", (), ("characters the tokenizer does not know",)),
    "turns without a template": (
        [{"messages": [USER, said("2")]}],
        "nll",
        (),
        ("rows.jsonl:1: has messages", "model.chat.template"),
    ),
    "other turns": (
        [{"chosen": [USER, said("a")], "rejected": [SYSTEM, USER, said("b")]}],
        "dpo",
        (),
        ("'chosen' and 'rejected' answer different turns",),
    ),
    "turns of nobody": ([{"prompt": "1", "chosen": [USER], "rejected": "3"}], "dpo", (), ("'chosen' must be text",)),
    # Models.
    "no model": ([GOOD], "nll", ("model.path=null",), ("model: needs a path, or an architecture",)),
    "missing model": ([GOOD], "nll", ("model.path={}/none",), ("model.path", "no folder")),
    "missing reference": ([BOTH], "dpo", ("learner.reference={}/none",), ("learner.reference: ", "cannot be had")),
    "reference of a learner": ([BOTH], "dpo", ("learner.reference=learner:x",), ("learner.reference: ", "no learner")),
    "adapter": ([GOOD], "nll", ("learner.lora.targets=k_prj",), ("learner.lora.targets: 'k_prj'", "mean 'k_proj'?")),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_one_line_and_writes_nothing(
    name: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, objective, overrides, told = BAD[name]
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(tree(tmp_path, tiny, rows, objective)))
    filled = [override.replace("{}", str(tmp_path)) for override in overrides]
    refused(tmp_path, filled, told, capsys)


def refused(folder: Path, overrides: Sequence[str], told: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    check_refused(["train", str(folder / "fit.yaml"), *overrides], told, capsys, unwritten=folder / "runs")


def test_another_tokenizer_of_the_reference_is_refused(
    tiny: Path, chat_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(tree(tmp_path, tiny, [BOTH], "dpo")))
    told = ("learner.reference: ", "another tokenizer")
    refused(tmp_path, [f"learner.reference={chat_model}"], told, capsys)


EXAMPLE = Example("a", "p", "own", (3, 4), (5, 1), label=1.0)


@pytest.mark.parametrize(
    ("examples", "objective", "overrides", "told"),
    [
        ([EXAMPLE], "dpo", (), ("dpo learns from pairs, and 1 examples are in none",)),
        ([Example("a", "p", "own", (3,), (5,), pair_id="x", role="chosen")], "nll", (), ("1 examples are sides",)),
        ([EXAMPLE, Example("b", "p", "own", (3,), (5,))], "kto", (), ("labelled responses, and 1 have no label",)),
        ([Example("a", "p", "own", (3, 4), (5, 999))], "nll", (), ("tokens that the model does not know", "example a")),
        ([Example("a", "p", "own", (3, 4), ())], "nll", (), ("response without a single token", "example a")),
        ([Example("a", "p", "own", (3, 4), (5,), label=2.0)], "kto", (), ("1 labels are not within 0 and 1",)),
        ([EXAMPLE], "nll", ("data.fields.prompt=x",), ("data.fields: has no effect", "a run wrote")),
    ],
)
def test_examples_of_a_run_that_do_not_fit_are_refused(
    examples: list[Example],
    objective: str,
    overrides: tuple[str, ...],
    told: tuple[str, ...],
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    records.write(tmp_path / "examples" / "own-00000.parquet", Example, examples)
    made = tree(tmp_path, tiny, [], objective)
    made["data"]["path"] = str(tmp_path / "examples")
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(made))
    refused(tmp_path, overrides, told, capsys)
