"""`selftrain prm`: scores of the steps of a file, the numbers they come to, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from scored import log_ratios, nudged
from small_values import value_model

from selftrain.cli import main
from selftrain.encoding import Encoder
from selftrain.models.checkpoint import load_tokenizer
from selftrain.models.head_form import HeadForm
from selftrain.models.heads import save_value_model
from selftrain.rewards.process import step_rewards, token_rewards
from selftrain.schema import Chat
from selftrain.stages import labelled
from selftrain.training.valuing import Valuer
from selftrain.types import Example


@pytest.fixture(scope="module")
def other(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nudged(tiny, tmp_path_factory.mktemp("other"))


def write(path: Path, count: int, offset: int = 0) -> list[dict[str, Any]]:
    """Sums of three numbers; every third solution has no wrong step, others the second or the third. The first step
    holds what elsewhere stands between two."""
    rows = []
    for i in range(offset, offset + count):
        problem, steps = f"{i}+1+2=", [f"{i}+1= {i + 1}", f"{i + 1}+2={i + 3}", f"#{i + 3}"]
        rows.append({"id": f"row-{i}", "problem": problem, "steps": steps, "label": (-1, 1, 2)[i % 3]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def asked(folder: Path, model: Path, reference: Path, *words: str) -> int:
    source = ["prm", "implicit_prm", f"model={model}", f"reference={reference}", "separator=' '"]
    return main([*source, "--data", str(folder / "steps.jsonl"), "--output", str(folder / "out"), *words])


def told(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lines = (folder / "out" / "rows.jsonl").read_text().splitlines()
    return json.loads((folder / "out" / "prm.json").read_text()), [json.loads(line) for line in lines]


def test_scores_are_those_of_the_source_at_the_steps_given(
    tiny: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(tmp_path / "steps.jsonl", 9)
    write(tmp_path / "val.jsonl", 9, offset=6)  # Three of its problems are tested ones.
    assert asked(tmp_path, other, tiny, "beta=2.0", "--validation", str(tmp_path / "val.jsonl")) == 0
    result, lines = told(tmp_path)
    tokenizer = load_tokenizer(tiny)
    encoder, one = Encoder(tokenizer, Chat(), None), rows[4]
    ids, ends = encoder.steps(one["steps"], " ")
    (ratios,) = log_ratios(other, tiny, [Example("e", "p", "s", encoder.ids(one["problem"]), ids)])
    assert lines[4]["scores"] == pytest.approx(step_rewards(token_rewards(ratios, 2.0), ends).tolist(), abs=1e-4)
    assert len(lines) == 9 + 6 and [line["validation"] for line in lines] == [False] * 9 + [True] * 6
    assert lines[4] == {**lines[4], "id": "row-4", "first": 1, "labels": [1.0, 0.0, None]}
    assert (result["solutions"], result["n_erroneous"], result["n_validation"]) == (9, 6, 6)
    assert result["source"]["kind"] == "implicit_prm" and result["scores"] == "log-odds"
    hits = [line["predicted"] == line["first"] for line in lines[:9]]
    wrong = [hit for hit, line in zip(hits, lines, strict=False) if line["first"] >= 0]
    assert result["erroneous"][0] == pytest.approx(sum(wrong) / 6, abs=1e-4)
    shown = capsys.readouterr().out
    assert "3 solutions of" in shown and "left out" in shown
    assert "first wrong step (ProcessBench)" in shown and "place from the end" in shown


def headed(base: Path, folder: Path, form: HeadForm) -> Path:
    model = value_model(base, form)
    save_value_model(model, load_tokenizer(base), folder)
    return folder


def test_a_value_head_is_read_where_the_given_steps_end(tiny: Path, tmp_path: Path) -> None:
    """Its folder says what stands between two; a step that holds that inside is one step all the same."""
    rows = write(tmp_path / "steps.jsonl", 4)
    folder = headed(tiny, tmp_path / "prm", HeadForm(separator=" "))
    given = ["--data", str(tmp_path / "steps.jsonl"), "--output", str(tmp_path / "out"), "--threshold", "0.5"]
    assert main(["prm", str(folder), *given]) == 0
    lines = told(tmp_path)[1]
    encoder = Encoder(load_tokenizer(tiny), Chat(), None)
    encoded = [encoder.steps(row["steps"], " ") for row in rows]
    asked = [
        Example("e", "p", "s", encoder.ids(row["problem"]), ids) for row, (ids, _) in zip(rows, encoded, strict=True)
    ]
    with Valuer(folder, device="cpu") as valuer:
        expected = valuer.values(asked, [ends for _, ends in encoded])
    for line, values in zip(lines, expected, strict=True):
        assert len(line["scores"]) == 3 and line["scores"] == pytest.approx(values.tolist(), abs=1e-5)


def test_a_value_head_is_asked_as_it_was_trained(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "steps.jsonl", 3)
    given = ["--data", str(tmp_path / "steps.jsonl"), "--threshold", "0"]
    folder = headed(tiny, tmp_path / "prm", HeadForm(separator=" "))
    assert main(["prm", "value_head", f"model={folder}", *given]) == 2
    assert f"separator: '\\n' is not what {folder} is trained with, ' '" in capsys.readouterr().err
    outcome = headed(tiny, tmp_path / "orm", HeadForm(read="last"))
    assert main(["prm", str(outcome), *given]) == 2
    assert "read at the last token alone, and says nothing of steps" in capsys.readouterr().err


def test_a_fifth_of_the_problems_chooses_where_nothing_else_does(tiny: Path, other: Path, tmp_path: Path) -> None:
    write(tmp_path / "steps.jsonl", 60)
    assert asked(tmp_path, other, tiny) == 0
    result, _ = told(tmp_path)
    assert result["solutions"] + result["n_validation"] == 60 and 4 <= result["n_validation"] <= 24
    assert asked(tmp_path, other, tiny, "--threshold", "0.5") == 0
    result, _ = told(tmp_path)
    assert (result["solutions"], result["n_validation"], result["threshold"]) == (60, 0, 0.5)


def test_a_second_time_nothing_is_computed_again(
    tiny: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another aggregation, threshold or kill: what the models said lies beside the result."""
    write(tmp_path / "steps.jsonl", 3)
    assert asked(tmp_path, other, tiny, "--threshold", "0") == 0
    before = told(tmp_path)[1]

    def fail(*_: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("selftrain.stages.scorers.Scorers.at", fail)
    assert asked(tmp_path, other, tiny, "--threshold", "0") == 0
    assert told(tmp_path)[1] == before


def test_a_command_that_is_stopped_goes_on_from_there(
    tiny: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "steps.jsonl", 6)
    monkeypatch.setattr(labelled, "PART", 2)
    whole = labelled._scored

    def stopped(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr(labelled, "_scored", stopped)
        assert asked(tmp_path, other, tiny, "--threshold", "0") == 143
    assert not (tmp_path / "out" / "prm.json").exists() and "goes on from here" in capsys.readouterr().err
    assert asked(tmp_path, other, tiny, "--threshold", "0") == 0
    assert len(told(tmp_path)[1]) == 6


@pytest.mark.parametrize(
    "words, message",
    [
        (["outcome"], "outcome asks no model and gives no scores to steps"),
        (["implicit_prm"], "model=learner:prm: there is no run here; give a folder or hub name: model=MODEL"),
        (["implicit_prm", "model={tiny}"], "reference=base: there is no run here"),
        (["implicit_prm", "model={tiny}", "reference={tiny}", "betta=1"], "betta: unknown key (did you mean 'beta'?)"),
        (["implicit_prm", "model={tiny}", "reference={tiny}", "prompt.templat=x"], "prompt.templat: unknown key"),
        (["implicit_prm", "model={tiny}", "reference={tiny}/none"], "reference: {tiny}/none cannot be had"),
        (["implicit_prm", "model={tiny}", "reference={tiny}", "prompt.few_shot.n=1"], "prompt.few_shot.n: there is no"),
        (["nothing"], "unknown reward 'nothing'"),
        (["{tiny}"], "has no value head"),
    ],
)
def test_a_source_that_cannot_be_asked_is_refused(
    tiny: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "steps.jsonl", 3)
    given = [word.format(tiny=tiny) for word in words]
    assert main(["prm", *given, "--data", str(tmp_path / "steps.jsonl"), "--threshold", "0"]) == 2
    error = capsys.readouterr().err
    assert message.format(tiny=tiny) in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "rows, words, message",
    [
        ([], [], "holds no labelled solutions"),
        ([{"problem": "1+1=", "steps": ["2"], "label": 1}], [], "steps.jsonl:1: label is 1"),
        ([{"problem": "1+1=", "steps": ["2"], "label": 0}], [], "give another --validation, or --threshold"),
        ([{"problem": "1+1=", "steps": ["2" * 80], "label": 0}], ["--threshold", "0"], "context of 64 tokens"),
        ([{"problem": "1+1=", "steps": ["x"], "label": 0}], ["--threshold", "0"], "does not know"),
        ([{"problem": f"{i}=", "steps": ["1"], "label": 0} for i in range(30)], [], "solutions have a wrong step"),
    ],
)
def test_a_file_that_says_nothing_is_refused(
    tiny: Path,
    other: Path,
    tmp_path: Path,
    rows: list[dict[str, Any]],
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert asked(tmp_path, other, tiny, *words) == 2
    assert message in capsys.readouterr().err
