"""What is wrong with ``launch.train`` is told in one line before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selftrain import machine
from selftrain.checks import trainer
from selftrain.checks.trainer import check_trainer, overridden
from selftrain.config import ConfigError, check_tree
from selftrain.planning import fingerprints


class Model(SimpleNamespace):
    def get_text_config(self) -> Model:
        return self


MODEL = Model(num_attention_heads=4, num_key_value_heads=2, layer_types=["full_attention"] * 2)


LEARNER: dict[str, Any] = {"examples": {"own": {"from": "draft"}}}
TREE: dict[str, Any] = {"tasks": {"arithmetic": {}}, "grow": {"draft": {}}, "learners": {"policy": LEARNER}}


def config(optim: dict[str, Any] | None = None, **train: Any) -> Any:
    learner = {**LEARNER, "optim": optim or {}}
    return check_tree({**TREE, "learners": {"policy": learner}, "launch": {"train": train}})


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({"processes": 2}, r"launch\.train\.processes: has no effect with engine: torch; set launch\.train\.engine"),
        ({"config": "ds.json"}, r"launch\.train\.config: has no effect with engine: torch"),
        ({"engine": "deepspeed", "zero": 4}, r"launch\.train\.zero: 4 is no stage of ZeRO; choose 1, 2 or 3"),
        ({"engine": "deepspeed", "offload": "parameters"}, r"launch\.train\.offload: only ZeRO-3 divides parameters"),
        ({"engine": "deepspeed", "config": "none.json"}, r"launch\.train\.config: .*No such file.*none\.json"),
        (
            {"engine": "deepspeed", "processes": 3, "sequence_parallel": 2},
            r"launch\.train\.sequence_parallel: 2 does not divide launch\.train\.processes \(3\)",
        ),
        (
            {"engine": "deepspeed", "processes": 3, "sequence_parallel": 3},
            r"launch\.train\.sequence_parallel: 4 heads of attention, 2 of keys and values, cannot be dealt out to 3",
        ),
    ],
)
def test_choices_that_do_not_go_together(train: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        check_trainer(config(**train), lambda: MODEL)
    assert "\n" not in str(error.value)


def test_options_of_the_plain_trainer_are_told() -> None:
    compiled = check_tree({**TREE, "launch": {"train": {"engine": "deepspeed"}, "kernels": {"compile": True}}})
    with pytest.raises(ConfigError, match=r"launch\.kernels: is for launch\.train\.engine: torch"):
        check_trainer(compiled, lambda: MODEL)


def test_wrong_types_and_keys_are_told() -> None:
    with pytest.raises(ConfigError, match=r"launch\.train\.engine"):
        config(engine="megatron")
    with pytest.raises(ConfigError, match=r"launch\.train\.processes: must be at least 1, got 0"):
        config(processes=0)
    with pytest.raises(ConfigError, match=r"launch\.train\.zer: unknown key \(did you mean 'zero'\?\)"):
        config(zer=3)


def test_sequences_are_divided_only_where_attention_is_whole() -> None:
    divided: dict[str, Any] = {"engine": "deepspeed", "processes": 2, "sequence_parallel": 2}
    check_trainer(config(**divided), lambda: MODEL)
    sliding = Model(**{**vars(MODEL), "layer_types": ["full_attention", "sliding_attention"]})
    with pytest.raises(ConfigError, match="layers whose attention is not over the whole sequence"):
        check_trainer(config(**divided), lambda: sliding)
    with pytest.raises(ConfigError, match=r"learners\.policy\.optim\.batching: packed sequences cannot be divided"):
        check_trainer(config({"batching": "packed"}, **divided), lambda: MODEL)


def test_what_this_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    many, told = config(engine="deepspeed", processes=9), list[str]()
    check_trainer(many, lambda: MODEL)
    monkeypatch.setattr(machine, "gpus", lambda: ("0", "1"))
    with pytest.raises(ConfigError, match=r"launch\.train\.processes: 9 for 2 GPUs, one each; set it to 2"):
        check_trainer(many, lambda: MODEL)
    monkeypatch.setattr(trainer, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"DeepSpeed is not installed; install it with: pip install 'selftrain\[deep"):
        check_trainer(many, lambda: MODEL)
    check_trainer(many, lambda: MODEL, told.append)
    assert [one.partition(": ")[0] for one in told] == ["launch.train.engine", "launch.train.processes"]


def test_what_does_not_hold_of_the_users_own_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(
        json.dumps({"optimizer": {"type": "Lamb"}, "zero_optimization": {"stage": 1}, "gradient_clipping": 1})
    )
    (line,) = overridden(config(engine="deepspeed", zero=3, config=str(file)))
    assert line.endswith("this config holds instead for optimizer.type, zero_optimization.stage")
    file.write_text(json.dumps({"gradient_clipping": 1.0, "zero_optimization": {"overlap_comm": False}}))
    assert list(overridden(config(engine="deepspeed", config=str(file)))) == [] == list(overridden(config()))


def test_no_stage_depends_on_it() -> None:
    plain, divided = config(), config(engine="deepspeed", processes=4, zero=3, save_every=5)
    for part in (fingerprints.model, fingerprints.data, fingerprints.evaluate):
        assert part(plain) == part(divided)
    assert fingerprints.improve(plain, "policy") == fingerprints.improve(divided, "policy")
