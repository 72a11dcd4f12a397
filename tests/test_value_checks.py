"""Learners of values that do not go together with the rest of a config: one line that says what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selftrain.checks.heads import check_heads
from selftrain.checks.learning import check_learning
from selftrain.config import ConfigError, apply_overrides, check_tree, to_tree
from selftrain.models.head_form import HeadForm
from selftrain.models.heads import load_value_model, save_value_model
from selftrain.planning.values import form_of, valued

VALUE: dict[str, Any] = {
    "init": "previous",
    "objective": "mse",
    "model": {"head": "scalar", "separator": " "},
    "examples": {"steps": {"from": "draft", "kind": "step_labels", "labels": {"from": "prm"}}},
}
TREE: dict[str, Any] = {
    "tasks": {"arithmetic": {}},
    "grow": {"draft": {}},
    "warmup": {"value": {}},
    "reward": {"sources": {"prm": {"kind": "implicit_prm", "model": "some/prm"}}},
    "learners": {"value": VALUE, "policy": {"examples": {"own": {"from": "draft"}}}},
}


def check(*overrides: str) -> None:
    config = check_tree(apply_overrides(TREE, overrides))
    check_learning(config)
    check_heads(config)


def test_a_config_with_a_learner_of_values_goes_through_and_comes_back() -> None:
    check()
    config = check_tree(TREE)
    assert valued(config) == {"value"} and check_tree(to_tree(config)) == config
    assert form_of(config.learners["value"]) == HeadForm("linear", "sigmoid", "step", " ")
    check("warmup=null", "learners.value.model={head: mlp, read: last}", "learners.value.objective=bce", OUTCOME)


OUTCOME = "learners.value.examples={steps: null, all: {from: draft, kind: outcome}}"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["learners.value.model.head=null"],
            "learners.value.model.head: mse fits a value head; set it to linear or mlp",
        ),
        (["learners.value.model.normaliser=tanh"], "normaliser: mse reads values by sigmoid, and the head's is tanh"),
        (["learners.value.model.separator=''"], "learners.value.model.separator: is empty"),
        (["learners.value.lora={}"], "learners.value.lora: is not available with a value head"),
        (["warmup.value.lora={}"], "warmup.value.lora: is not available with a value head"),
        (
            ["learners.value.objective=nll"],
            "learners.value.examples.steps.kind: nll learns from samples or leaves; set it to samples or leaves",
        ),
        (
            ["learners.value.objective=nll", "learners.value.examples={steps: null, own: {from: draft}}"],
            "learners.value.model: nll fits a language model, which has no head",
        ),
        (["learners.policy.model.head=mlp"], "learners.policy.model: nll fits a language model, which has no head"),
        (
            ["learners.policy={objective: bce, examples: {own: {kind: outcome}}}"],
            "learners.policy.objective: bce fits a value head, and the policy writes",
        ),
        (["learners.value.objective=step_preference"], "step_preference learns from step_pairs; set it to step_pairs"),
        (
            ["learners.value.examples.steps.kind=samples"],
            "mse learns from outcome or step_labels or tree_values; set it to",
        ),
        (["learners.value.examples.steps.labels=null"], "learners.value.examples.steps.labels: must be set"),
        (["learners.value.examples.steps.labels.from=pmr"], "no such reward source (did you mean 'prm'?)"),
        (["learners.value.examples.steps.labels.from=verdict"], "labels.from: outcome knows nothing of steps"),
        (
            ["learners.value.examples={steps: null, t: {from: draft, kind: tree_values, labels: {from: prm}}}"],
            "examples.t.labels: agreement is on labels of 0 and 1; set values to monte_carlo_hard",
        ),
        (
            [
                "learners.value.examples={steps: null, t: {from: draft, kind: tree_values, values: monte_carlo_hard, "
                "labels: {from: prm}}}"
            ],
            "examples.t.labels.threshold: must be set",
        ),
        (["learners.value.examples.steps.balance=all"], "examples.steps.balance: has no effect on step_labels"),
        (["learners.value.when=before_score"], "reads rewards, but learners that train before_score"),
        (["learners.value.examples.steps.from=gold"], "mse learns from judged samples; name a step of grow"),
        (["learners.value.model.read=last"], "learners.value.model.read: last is of outcomes"),
        ([OUTCOME], "learners.value.model.read: its examples are outcomes, which are told of the last token"),
        (["reward.sources.prm.model=learner:value"], "prm.model: 'learner:value' has a value head and is no language"),
        (
            ["learners.policy={objective: dpo, reference: 'learner:value', examples: {own: {kind: pairs}}}"],
            "learners.policy.reference: 'learner:value' has a value head and is no language model",
        ),
    ],
)
def test_what_does_not_go_together_is_told(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check(*overrides)
    assert told in str(raised.value)


def test_a_checkpoint_says_itself_what_its_head_is(tiny: Path, tokenizer: Any, tmp_path: Path) -> None:
    form = HeadForm("mlp", separator=" ")
    save_value_model(load_value_model(tiny, form, device="cpu"), tokenizer, tmp_path / "prm")
    place = f"learners.value.model={{path: '{tmp_path / 'prm'}', head: null, separator: null}}"
    check(place)
    assert form_of(check_tree(apply_overrides(TREE, [place])).learners["value"]) == form
    for overrides, told in {
        (place, "learners.value.model.head=mlp"): "has a value head already, which is fitted on; remove it",
        (place, "learners.value.model.separator=','"): "says itself where its head is read",
        (f"learners.value.model={{path: '{tiny}', head: null}}",): f"(path {tiny} has none)",
        (f"reward.sources.prm.model={tmp_path / 'prm'}",): "has a value head and is no language model",
    }.items():
        with pytest.raises(ConfigError) as raised:
            check(*overrides)
        assert told in str(raised.value)
