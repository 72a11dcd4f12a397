"""A DeepSpeed JSON of the user's own: what of it holds, and what is no key of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fitting import OPTIM

from selftrain.schema import Trainer
from selftrain.training.zero import settings


def test_the_config_wins_over_the_users_own_and_says_where(tmp_path: Path) -> None:
    file = tmp_path / "user.json"
    user = {
        "train_batch_size": 64,
        "gradient_clipping": 0.5,
        "fp16": {"enabled": True},
        "wall_clock_breakdown": True,
        "zero_optimization": {
            "stage": 2,
            "overlap_comm": True,
            "offload_optimizer": {"device": "nvme", "pin_memory": True},
        },
    }
    file.write_text(json.dumps(user))
    config, lost = settings.merged(settings.read(str(file)), Trainer("deepspeed", 2, 3), OPTIM, bf16=False)
    zero = config["zero_optimization"]
    assert lost == [
        "fp16.enabled",
        "train_batch_size",
        "zero_optimization.offload_optimizer.device",
        "zero_optimization.stage",
    ]
    assert config["wall_clock_breakdown"] and zero["overlap_comm"] and zero["offload_optimizer"]["pin_memory"]
    assert (zero["stage"], zero["offload_optimizer"]["device"], config["gradient_clipping"]) == (3, "none", 0.5)
    assert "fp16" not in config and "train_batch_size" not in config
    assert settings.merged({}, Trainer("deepspeed"), OPTIM, bf16=True)[0]["bf16"] == {"enabled": True}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"zero_optimisation": {}}', "'zero_optimisation' is no key that can be set here .did you mean 'zero_optim"),
        ('{"zero_optimization": {"stage3_bucket": 1}}', r"'zero_optimization\.stage3_bucket' is no key"),
        ('{"zero_optimization": {"zero_quantized_weights": true}}', "'zero_optimization.zero_quantized_weights' is no"),
        ('{"zero_optimization": {"offload_param": {"nvme_path": "/x"}}}', r"offload_param\.nvme_path' is no key"),
        ('{"zero_optimization": 3}', "zero_optimization is no JSON object"),
        ("[1]", "holds no JSON object"),
        ("{", "is not JSON"),
    ],
)
def test_a_wrong_key_is_told(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "user.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=told):
        settings.read(str(file))


def test_deepspeed_knows_every_key_that_can_be_set() -> None:
    from deepspeed.runtime.config import DeepSpeedConfig
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    names = {*DeepSpeedZeroConfig.model_fields, *(one.alias for one in DeepSpeedZeroConfig.model_fields.values())}
    assert {*settings.FREE_ZERO, *settings.OURS_ZERO, *settings.OFFLOADS} <= names
    assert {name.removeprefix("stage3_") for name in settings.FREE_ZERO} <= {*DeepSpeedZeroConfig.model_fields}
    config, _ = settings.merged({}, Trainer("deepspeed", 2, 3, "parameters"), OPTIM, bf16=True)
    understood = DeepSpeedConfig(config)
    assert understood.zero_optimization_stage == 3 and understood.bfloat16_config.enabled
    assert not understood.managed_gradient_accumulation and understood.gradient_clipping == OPTIM.clip
