"""What DeepSpeed itself would only fail at once the model is loaded, or take no notice of, is told before."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selftrain.checks.trainer import check_trainer
from selftrain.config import ConfigError, check_tree


class Model(SimpleNamespace):
    def get_text_config(self) -> Model:
        return self


MODEL = Model(num_attention_heads=4, num_key_value_heads=2)
LEARNER: dict[str, Any] = {"examples": {"own": {"from": "draft"}}}


def check(dtype: str = "float32", **train: Any) -> None:
    learner = {**LEARNER, "optim": {"dtype": dtype}}
    tree = {"tasks": {"arithmetic": {}}, "grow": {"draft": {}}, "learners": {"policy": learner}}
    launch = {"train": {"engine": "deepspeed", "processes": 2, **train}}
    check_trainer(check_tree({**tree, "launch": launch}), lambda: MODEL)


def test_zero_1_in_bfloat16_shares_no_sequences() -> None:
    with pytest.raises(ConfigError, match=r"launch\.train\.zero: 1 takes no norm of gradients in bfloat16 .*to 2"):
        check("bfloat16", zero=1, sequence_parallel=2)
    check("float32", zero=1, sequence_parallel=2)
    check("bfloat16", zero=2, sequence_parallel=2)
    check("bfloat16", zero=1, sequence_parallel=2, offload="optimizer")


def test_values_that_only_another_trainer_fills_in_are_told(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"train_batch_size": "auto", "zero_optimization": {"reduce_bucket_size": "auto"}}))
    with pytest.raises(ConfigError, match=r"'zero_optimization\.reduce_bucket_size' is 'auto', which transformers'"):
        check(config=str(file))
    # What the config says in its place need not be known.
    file.write_text(json.dumps({"train_batch_size": "auto", "bf16": {"enabled": "auto"}}))
    check(config=str(file))


def test_keys_that_would_do_nothing_or_fail_later_are_told(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"overlap_comm": True}}))
    with pytest.raises(ConfigError, match=r"ZeRO-1 reduces once a step.*remove 'zero_optimization\.overlap_comm'"):
        check(zero=1, config=str(file))
    check(zero=2, config=str(file))
    file.write_text(json.dumps({"compile": {"deepcompile": True}}))
    with pytest.raises(ConfigError, match="'compile' is no key that can be set here"):
        check(config=str(file))
