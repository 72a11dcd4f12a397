"""Reward source value_head: values after each step, and what comes of them; what is refused before a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from kill_driver import Driver
from numpy.typing import NDArray
from small_values import QWEN, causal, saved, value_model

from selftrain import records
from selftrain.cli import main
from selftrain.models.head_form import HeadForm
from selftrain.models.heads import save_value_model
from selftrain.models.small import character_tokenizer, random_model
from selftrain.registry import TABLES
from selftrain.rewards.base import Judged
from selftrain.rewards.process import aggregate
from selftrain.rewards.steps import pieces
from selftrain.rewards.value_head import ValueHead
from selftrain.selection import as_scored
from selftrain.training.valuing import Valuer
from selftrain.types import Sample, Score, Verdict

TINY = Path(__file__).with_name("tiny.yaml")
ALPHABET = "0123456789+-*= #"
VALUES = {"three": [0.9, 0.5, 0.8], "stopped": [0.25, 0.5], "empty": [], "long": [0.5, math.nan], "cut": [0.7, 0.2]}
TEXTS = {1: "", 5: "a", 6: "\n", 7: "b"}
RESPONSES = {"three": (5, 6, 7, 6, 5, 1), "stopped": (5, 6, 7), "empty": (), "long": (5, 6, 5), "cut": (5, 6, 7)}


class Scripted:
    """Models whose values are written down by sample."""

    def __init__(self, ends: list[tuple[int, ...]] | None = None) -> None:
        self.ends: list[tuple[int, ...]] = []
        self._count = ends

    def step_values(self, model: str, samples: Sequence[Sample], ends: Sequence[Any]) -> list[NDArray[np.float32]]:
        assert model == "learner:value"
        self.ends = list(ends)
        return [np.array(VALUES[sample.id], np.float32)[-len(own) :] for sample, own in zip(samples, ends, strict=True)]

    def log_ratios(self, *_: Any) -> list[NDArray[np.float32]]:
        raise AssertionError("values are all it asks for")

    def logprobs(self, *_: Any) -> list[NDArray[np.float32]]:
        raise AssertionError("values are all it asks for")

    def texts(self, ids: Sequence[int]) -> list[str]:
        return [TEXTS[token] for token in ids]

    def name(self, model: str) -> str:
        return f"digest of {model}"


def scored(source: ValueHead) -> dict[str, Score]:
    ends: dict[str, Any] = {"stopped": "stop", "cut": "length"}
    samples = [
        Sample(name, "p", 1, "draft", 0, (9,), ids, "", ends.get(name, "eos"), "policy", "scripted")
        for name, ids in RESPONSES.items()
    ]
    judged = [Judged(sample.id, Verdict("right", 1.0), sample) for sample in samples]
    return {score.sample_id: score for score in source.scores(judged, "value", Scripted())}


def test_values_stand_at_the_ends_of_steps() -> None:
    found = scored(ValueHead())
    assert {name: score.step_ends for name, score in found.items()} == {
        "three": (2, 4, 6),
        "stopped": (2, 4),  # The end token is added where it is read.
        "empty": (),
        "long": (2, 3),
        "cut": (2, 3),
    }
    assert found["three"].step_rewards == pytest.approx((0.9, 0.5, 0.8))
    assert [name for name, score in found.items() if score.valid] == ["three", "stopped", "cut"]
    assert found["empty"].reward is None and found["long"].reward is None
    assert {score.model for score in found.values()} == {"digest of learner:value"}


def test_ends_that_are_given_are_taken() -> None:
    """Of labelled steps, which may hold separators inside."""
    sample = Sample("three", "p", 1, "draft", 0, (9,), RESPONSES["three"], "", "eos", "policy", "scripted")
    (score,) = ValueHead().scores([Judged("three", Verdict("right"), sample, (4, 6))], "value", Scripted())
    assert score.step_ends == (4, 6) and score.step_rewards == pytest.approx((0.5, 0.8))


def test_an_outcome_model_reads_a_response_as_one_step() -> None:
    found = scored(ValueHead(read="last"))
    assert [found[name].step_ends for name in ("three", "stopped", "cut")] == [(6,), (4,), (3,)]
    assert found["three"].reward == pytest.approx(0.8)


REWARDS = {"last": 0.8, "min": 0.5, "mean": 2.2 / 3, "sum": 2.2, "product": 0.36}


@pytest.mark.parametrize("how", REWARDS)
def test_values_are_probabilities_already(how: Any) -> None:
    """Rewards of an implicit model, which are log-odds, go through a sigmoid in a product; these do not."""
    assert scored(ValueHead(aggregation=how))["three"].reward == pytest.approx(REWARDS[how])
    odds = np.log(np.array([0.9, 0.5, 0.8]) / (1 - np.array([0.9, 0.5, 0.8])))
    if how == "product":
        assert aggregate(odds, how) == pytest.approx(REWARDS[how])


def test_the_source_is_found_by_its_name() -> None:
    assert TABLES["reward"]["value_head"].endswith(":ValueHead")


def prm(folder: Path, separator: str, seed: int = 0, **form: Any) -> Path:
    """A value model of the tokens of the runs below."""
    tokenizer = character_tokenizer(ALPHABET, 32)
    base = folder.with_name(f"{folder.name}-base")
    random_model(QWEN, tokenizer, seed).save_pretrained(base)
    tokenizer.save_pretrained(base)
    save_value_model(value_model(base, HeadForm(separator=separator, **form), seed), tokenizer, folder)
    return folder


def config(folder: Path, **source: Any) -> Path:
    own = {"kind": "value_head", "separator": " ", **source}
    near = {"kind": "regularised", "reward": own, "beta": 0.05}
    told = {
        "include": str(TINY),
        "run": {"folder": str(folder), "name": "values"},
        "reward": {"sources": {"verdict": "outcome", "value": own}, "total": {"verdict": 1.0}},
        "evaluate": {"splits": ["val"], "n": 2, "best_of": {"value": own, "near": near}},
        "loop": {"iterations": 1},
        "launch": {"keep": "run"},
    }
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


def test_a_run_is_scored_and_chooses_by_values(tmp_path: Path, driver: Driver) -> None:
    model, never = prm(tmp_path / "prm", " "), prm(tmp_path / "never", "\n", 1)
    ended = driver.run(
        [
            "run",
            str(config(tmp_path, model=str(model))),
            "reward.sources.never.kind=value_head",
            f"reward.sources.never.model={never}",
        ]
    )
    assert ended.status == 0, ended.err
    run = tmp_path / "values"
    samples = [s for part in records.parts(run / "iteration_0001/samples") for s in records.rows(part, Sample)]
    found = [s for part in records.parts(run / "iteration_0001/scores") for s in records.rows(part, Score)]
    own = [score for score in found if score.source == "value"]
    assert [score.sample_id for score in own] == [sample.id for sample in samples]
    tokenizer = character_tokenizer(ALPHABET, 32)
    examples = [as_scored(sample, int(tokenizer.eos_token_id)) for sample in samples]
    for score, example in zip(own, examples, strict=True):
        cut = [end for end in score.step_ends or () if end < len(example.response_ids)]
        assert all(pieces(tokenizer, example.response_ids)[end - 1] == " " for end in cut)
    with Valuer(model, device="cpu") as valuer:
        expected = valuer.values(examples, [score.step_ends or () for score in own])
    for score, values in zip(own, expected, strict=True):
        assert score.step_rewards == pytest.approx(values.tolist(), abs=1e-5)
        assert score.reward == pytest.approx(values[-1], abs=1e-5)
    assert max(len(score.step_ends or ()) for score in own) > 2
    chosen = records.read(run / "iteration_0001/evaluation/arithmetic-val-value.parquet", Score)
    assert len(chosen) == 8 * 2 and all(score.valid for score in chosen)
    warned = f"reward.sources.never.separator: '\\n' cuts none of {len(samples)} responses"
    assert warned in ended.out + ended.err
    assert "sources.value.separator" not in ended.out + ended.err


def test_a_learner_is_asked_as_it_is_then(tmp_path: Path, driver: Driver) -> None:
    """Its next checkpoint is put into the model that is loaded; before it is fitted all values are 0.5."""
    file = config(tmp_path, model="learner:value", read="last")
    told = yaml.safe_load(file.read_text())
    learner = {
        "objective": "mse",
        "init": "previous",
        "model": {"head": "linear", "read": "last"},
        "examples": {"all": {"from": "draft", "kind": "outcome"}},
        "optim": {"lr": 5e-3, "steps": 6, "batch_size": 8},
    }
    told["learners"] = {"value": learner}
    told["evaluate"]["best_of"].pop("near")
    told["loop"]["iterations"] = 2
    file.write_text(yaml.safe_dump(told))
    ended = driver.run(["run", str(file)])
    assert ended.status == 0, ended.err
    run, seen = tmp_path / "values", []
    end = int(character_tokenizer(ALPHABET, 32).eos_token_id)
    for iteration in range(3):
        folder = run / f"iteration_{iteration:04d}" / "evaluation"
        samples = [s for s in records.rows(folder / "arithmetic-val.parquet", Sample) if s.step == "sampled"]
        found = records.read(folder / "arithmetic-val-value.parquet", Score)
        seen.append([value for score in found for value in score.step_rewards or ()])
        if iteration == 0:
            assert set(seen[0]) == {0.5}
            continue
        with Valuer(run / f"iteration_{iteration:04d}/value/checkpoint", device="cpu") as valuer:
            own = valuer.values([as_scored(one, end) for one in samples], [score.step_ends or () for score in found])
        for score, values in zip(found, own, strict=True):
            assert score.step_rewards == pytest.approx(values.tolist(), abs=1e-5)
            assert score.reward == pytest.approx(float(values[0]), abs=1e-5)
    assert len({round(value, 4) for value in seen[1]}) > 8 and seen[1] != seen[2]


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], **source: Any) -> str:
    assert main(["run", str(config(tmp_path, **source)), "--dry-run"]) == 2
    return capsys.readouterr().err


def test_what_is_no_value_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = causal(tmp_path / "plain")
    told = refused(tmp_path, capsys, model=str(plain))
    assert f"reward.sources.value.model: {plain} has no value head; name the folder" in told
    assert "policy is fitted by nll, which gives it no value head" in refused(tmp_path, capsys, model="policy")
    assert "names no learner" in refused(tmp_path, capsys, model="learner:value")


def test_other_tokens_and_other_steps_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = saved(tmp_path / "foreign", causal(tmp_path / "foreign-base"), HeadForm(separator=" "))
    assert "has another tokenizer than the policy" in refused(tmp_path, capsys, model=str(foreign))
    model = prm(tmp_path / "prm", "#")
    told = refused(tmp_path, capsys, model=str(model))
    assert f"reward.sources.value.separator: ' ' is not what {model} is trained with, '#'; set it to that" in told
    outcome = prm(tmp_path / "outcome", "#", read="last")
    told = refused(tmp_path, capsys, model=str(outcome))
    assert f"reward.sources.value.read: 'step' is not what {outcome} is trained with, 'last'" in told
    assert main(["run", str(config(tmp_path, model=str(outcome), read="last")), "--dry-run"]) == 0
